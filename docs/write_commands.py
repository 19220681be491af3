"""Write docs/commands.md from the help of every command: ``make docs``.

A test compares the committed page with what this script writes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# Help is wrapped to the terminal; a page has one width.
os.environ |= {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}

import typer

from palate.cli import main as cli

HEAD = """# Commands

Written from `palate <command> --help` by `make docs`; do not edit.

A command that was interrupted is resumed by the same command. `--json` gives the result to
machines. The exit status is 0 for success, 1 where a check did not hold, 2 for a wrong argument or
input, and 130 for Ctrl-C.
`PALATE_QUIET=1` shows no progress, and `PALATE_DEBUG=1` shows where an error arose.
"""


def sections(name: str, command: Any) -> list[str]:
    """One section for a command, and one for each of its sub-commands."""
    context = command.make_context(name, [], resilient_parsing=True)
    context.help_option_names = ["--help"]
    help_text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    found = [f"## {name}\n\n```text\n{help_text.strip()}\n```\n"]
    for word, inner in getattr(command, "commands", {}).items():
        found += sections(f"{name} {word}", inner)
    return found


def page() -> str:
    """Put the sections of all commands together."""
    command = typer.main.get_command(cli.app)
    context = command.make_context("palate", [], resilient_parsing=True)
    parts = [HEAD, f"```text\n{command.get_help(context).strip()}\n```\n"]
    for verb in cli.VERBS:
        parts += sections(f"palate {verb}", cli.load_verb(verb))
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1] == "-":
        sys.stdout.write(page())
    else:
        Path(sys.argv[1]).write_text(page(), encoding="utf-8")

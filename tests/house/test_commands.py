"""Every command has help with an example, and its page is what the help says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from palate.cli.main import VERBS, load_verb


def commands() -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []

    def walk(name: str, command: object) -> None:
        inner = getattr(command, "commands", None)
        if inner:
            for word, sub in inner.items():
                walk(f"{name} {word}", sub)
        else:
            found.append((name, command))

    for verb in VERBS:
        walk(verb, load_verb(verb))
    return found


@pytest.fixture(scope="module")
def every():
    return commands()


def test_every_command_says_what_it_does_with_an_example(every):
    for name, command in every:
        text = f"{command.help or ''}\n{command.epilog or ''}"
        assert command.help, f"palate {name} has no help"
        first = command.help.strip().splitlines()[0]
        assert first.endswith("."), f"palate {name}: the first line of its help is no sentence"
        example = re.search(r"Examples?:[\s\S]*\bpalate\s+(\S+(?:\s+\S+)?)", text)
        assert example, f"palate {name}: its help has no example"
        assert name.split()[0] in example.group(0), f"palate {name}: the example is another's"


def test_every_option_is_explained(every):
    silent = [
        f"palate {name} {option.opts[0]}"
        for name, command in every
        for option in command.params
        if not getattr(option, "help", None) and not option.hidden
    ]
    assert silent == []


def test_the_page_of_commands_is_what_the_help_says(root):
    script = root / "docs" / "write_commands.py"
    said = subprocess.run(
        [sys.executable, str(script), "-"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout == (root / "docs" / "commands.md").read_text(), "run `make docs`"

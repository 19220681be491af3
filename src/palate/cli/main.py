"""The command ``palate``: finds the verb, and turns errors into sentences."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from palate import EXTRAS, __version__
from palate.errors import MissingExtraError, PalateError

# verb -> what it does; the module is palate.cli.<verb>, imported when the verb is used
VERBS = {
    "data": "Import, export, show, audit and split choices and images.",
    "generate": "Make images for prompts.",
    "study": "Ask people which image they prefer.",
    "train": "Teach a scorer from choices.",
    "score": "Score images for their prompts.",
    "convert": "Write an official checkpoint or an adapter in a standard form.",
    "verify": "Compare a scorer with published scores.",
    "label": "Turn scores into what adaptation learns from.",
    "adapt": "Adapt a generator to what people prefer.",
    "arms": "Say whether an adapter made a generator better.",
    "evaluate": "Measure scorers, or compare two generators.",
    "stats": "Agreement, rankings, calibration, bias and sample sizes.",
    "demo": "Run the whole loop in a small simulated world.",
}

_USER_FAULT = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: the words after ``palate``; those of the process if None.

    Returns:
        0 for success, 1 where a command says so, 2 for a wrong argument or input, 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        typer.main.get_command(app)(args=words, prog_name="palate")
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    return 0


def load_verb(verb: str) -> Any:
    """Import the command of a verb: a function of that name, or the app ``<verb>_app``."""
    module = import_module(f"palate.cli.{verb}")
    sub_app = getattr(module, f"{verb}_app", None)
    if sub_app is not None:
        command: Any = typer.main.get_group(sub_app)
        command.name = verb
    else:
        single = typer.Typer(add_completion=False)
        single.command(name=verb)(getattr(module, verb))
        command = typer.main.get_command(single)
    _without_boxes(command)
    return command


def _without_boxes(command: Any) -> None:
    """Print help as plain text, which wraps paragraphs and can be searched and copied."""
    command.rich_markup_mode = None
    for inner in getattr(command, "commands", {}).values():
        _without_boxes(inner)


class _Verbs(TyperGroup):
    """Lists every verb by its summary, and imports only the one that is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for verb, summary in VERBS.items():
            self.add_command(TyperCommand(verb, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_verb(name or args[0]), rest

    def invoke(self, ctx: Any) -> Any:
        return _guarded(lambda: super(_Verbs, self).invoke(ctx), ctx)


def _guarded(call: Callable[[], Any], ctx: Any) -> Any:
    """Turn what a user can meet into one sentence on stderr; anything else is a bug and is shown."""
    try:
        return call()
    except PalateError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to resume", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _fail(
            str(MissingExtraError(f"palate {ctx.invoked_subcommand or ''}".strip(), extra))
        )
    except OSError as error:
        if error.errno == errno.EPIPE or error.strerror is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)


def _fail(sentence: str) -> None:
    """Say what went wrong; with PALATE_DEBUG=1 also where."""
    if os.environ.get("PALATE_DEBUG") == "1":
        raise  # noqa: PLE0704 - called while an error is handled
    typer.echo(f"error: {sentence}", err=True)
    raise typer.Exit(_USER_FAULT) from None


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(epilog="Example: palate demo --quick")
def palate(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Turn human choices between generated images into a preference score.

    The score then makes better images. Each verb reads and writes tables, and can be run, resumed
    and replaced alone.
    """
    if version:
        typer.echo(f"palate {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    sys.exit(main())

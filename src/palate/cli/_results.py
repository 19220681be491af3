"""What the commands of `palate stats` share: the data they read, and where their result goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from palate.cli._startup import spare_pandas

if TYPE_CHECKING:
    from palate.data.tables import Dataset

ScoresOption: TypeAlias = Annotated[
    Path, typer.Option("--scores", help="Scores of its images: a table or the run of `score`.")
]
ScorerOption: TypeAlias = Annotated[
    str | None, typer.Option("--scorer", help="Which scorer, if there are several.")
]
OutOption: TypeAlias = Annotated[
    Path | None, typer.Option("--out", help="JSON file for the result; tables go to stdout.")
]
OverwriteOption: TypeAlias = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace a file at --out that is another thing's."),
]


def open_choices(path: Path, dimension: str | None = None) -> Dataset:
    """The data set of a folder, or choices.parquet alone, with the choices on one dimension."""
    import pyarrow.compute as pc

    from palate.data.schemas import SCHEMAS
    from palate.data.tables import Dataset, load_dataset, read_table
    from palate.errors import DataError

    spare_pandas()
    if path.suffix == ".parquet":
        found = Dataset(SCHEMAS["images"].empty_table(), read_table(path, "choices"), path.parent)
    else:
        found = load_dataset(path)
    if not len(found.choices):
        raise DataError(f"{path}: has no choices")
    if dimension is None:
        return found
    kept = found.choices.filter(pc.equal(found.choices.column("dimension"), dimension))
    if not len(kept):
        there = sorted(found.choices.column("dimension").unique().to_pylist())
        raise DataError(
            f"{path}: has no choices on {dimension!r}; it has choices on {', '.join(there)}"
        )
    return Dataset(found.images, kept, found.folder)


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Name the file in the sentence of an error that does not."""
    from palate.errors import DataError

    try:
        yield
    except DataError as fault:
        if str(fault).startswith(str(path)):
            raise
        raise type(fault)(f"{path}: {fault}") from None


def refuse_other_file(out: Path | None, command: str, *, overwrite: bool) -> None:
    """Refuse, before any work, a file at `out` that is no earlier result of the same command."""
    from palate.errors import RunError

    if out is None or not out.exists():
        return
    if out.is_dir():
        raise RunError(f"{out}: is a folder, expected the name of a JSON file")
    if overwrite:
        return
    try:
        old = json.loads(out.read_text(encoding="utf-8"))
    except ValueError:
        old = None
    if not isinstance(old, dict) or old.get("command") != command:
        raise RunError(
            f"{out}: exists and is no result of `palate {command}`; choose another --out, or --overwrite"
        )


def tell(
    command: str, facts: dict[str, Any], text: Callable[[], str], out: Path | None, *, as_json: bool
) -> None:
    """Keep a result as JSON where a file was named, and print it as JSON or as text."""
    from palate.runs import write_atomic

    told = {"command": command, **facts}
    if out is not None:
        write_atomic(out, json.dumps(told, indent=1, ensure_ascii=False, default=str) + "\n")
    typer.echo(json.dumps(told, ensure_ascii=False, default=str) if as_json else text())


def named(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the options that set them: `pair_ties` is --pair-ties."""
    return {f"--{name.replace('_', '-')}": value for name, value in given.items()}


def refuse_options(mode: str, given: dict[str, Any], reasons: dict[str, str] | None = None) -> None:
    """Refuse options that a mode does not read, in one sentence that names them, and says why if known."""
    from palate.errors import SettingsError

    words = [name for name, value in given.items() if value is not None and value is not False]
    if words:
        why = next((f": {reasons[word]}" for word in words if reasons and word in reasons), "")
        verb = "does" if len(words) == 1 else "do"
        raise SettingsError(f"{', '.join(words)} {verb} not go with {mode}{why}")

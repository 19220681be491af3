"""`palate data`: import, export, show, audit and split images and choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.cli._text import plural, text_table
from palate.cli.auditing import audit
from palate.cli.exporting import export_app
from palate.cli.importing import import_app

data_app = typer.Typer(
    help="Import, export, show, audit and split images and choices.",
    no_args_is_help=True,
    epilog="Example: palate data audit data/hpd",
)
data_app.add_typer(import_app, name="import")
data_app.add_typer(export_app, name="export")
data_app.command("audit")(audit)


@data_app.command("show")
def show(
    path: Annotated[Path, typer.Argument(help="Folder of a data set, or one Parquet table.")],
    rows: Annotated[int, typer.Option(help="How many rows of each table to print.")] = 3,
    columns: Annotated[
        bool, typer.Option("--columns", help="Say what each column means instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows as JSON Lines.")] = False,
) -> None:
    """Show what a data set or a table holds.

    Example: palate data show data/hpd --rows 2
    """
    for name, table in _tables(path).items():
        if as_json:
            for row in table.slice(0, rows).to_pylist():
                typer.echo(json.dumps({"table": name} | row, ensure_ascii=False))
            continue
        typer.echo(f"{name}: {plural(len(table), 'row')}")
        if columns:
            meaning = [[f.name, str(f.type), f.metadata[b"doc"].decode()] for f in table.schema]
            typer.echo(text_table(["column", "type", "meaning"], meaning) + "\n")
            continue
        for number, row in enumerate(table.slice(0, rows).to_pylist()):
            typer.echo(f"  row {number}")
            for column, value in row.items():
                if value is not None:
                    typer.echo(f"    {column:<12} {_short(value)}")


def _tables(path: Path) -> dict[str, Any]:
    """The tables of a data set folder, or the one table of a file."""
    from palate.data.schemas import kind_of
    from palate.data.tables import load_dataset, read_table
    from palate.errors import DataError

    if path.suffix != ".parquet":
        dataset = load_dataset(path)
        return {
            name: table
            for name, table in (("images", dataset.images), ("choices", dataset.choices))
            if len(table)
        }
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        kind = kind_of(pq.read_schema(path))
    except (OSError, pa.ArrowException):
        raise DataError(f"{path}: is not there, or is no Parquet file") from None
    return {kind: read_table(path, kind)}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 110 else text[:109] + "…"


@data_app.command("split")
def split(
    dataset: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    out: Annotated[Path, typer.Option(help="Folder for the parts, one data set each.")],
    parts: Annotated[
        str, typer.Option(help="Names and fractions of the parts, which sum to 1.")
    ] = "train=0.8,test=0.2",
    seed: Annotated[int, typer.Option(help="Another seed draws another split.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Split a data set so that the parts share no prompt and no image.

    Image files stay where they are. The order of the rows does not matter.

    Example: palate data split data/hpd --out data/hpd-parts --parts train=0.8,test=0.2
    """
    from palate.data.splits import SplitSettings, split_dataset, write_split
    from palate.data.tables import load_dataset
    from palate.runs import start_run

    settings = SplitSettings(_fractions(parts), seed)
    loaded = load_dataset(dataset)
    found = split_dataset(loaded, settings)
    tables = {kind: dataset / f"{kind}.parquet" for kind in ("images", "choices")}
    inputs = {kind: path for kind, path in tables.items() if path.exists()}
    with start_run("data split", out, settings, inputs, overwrite=overwrite) as run:
        if not run.finished:
            write_split(loaded, found, out)
            sizes = {
                name: {"images": len(part.images), "choices": len(part.choices)}
                for name in found.names
                for part in [found.part(loaded, name)]
            }
            run.finish(
                {"parts": sizes, "components": found.components, "largest": found.largest},
                files=[path for name in found.names for path in (out / name).glob("*.parquet")],
            )
        result = run.result
    if as_json:
        typer.echo(json.dumps(result))
        return
    for name, size in result["parts"].items():
        images, choices = plural(size["images"], "image"), plural(size["choices"], "choice")
        typer.echo(f"{out / name}: {choices}, {images}")
    typer.echo(f"{plural(result['components'], 'group')} of prompts and images that hang together")


def _fractions(parts: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts.split(","):
        name, _, number = part.partition("=")
        try:
            fraction = float(number)
        except ValueError:
            hint = f"{part!r} is not name=fraction, such as train=0.8"
            raise typer.BadParameter(hint, param_hint="--parts") from None
        if name.strip() in found:
            raise typer.BadParameter(f"{name.strip()!r} stands there twice", param_hint="--parts")
        found[name.strip()] = fraction
    return found

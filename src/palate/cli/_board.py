"""What `palate evaluate` does with several scorers or data sets: one table, and a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from palate.cli._options import scores_path
from palate.cli._results import about
from palate.cli._text import text_table


def board(
    paths: Sequence[Path],
    tables: Sequence[Path],
    given: dict[str, Any],
    recipe: Path | None,
    out: Path | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure every scorer in the tables against every data set, print it, and keep it with its page.

    The benchmark `hps-v2-bench` measures generators instead: the mean score of each style.
    """
    if given["benchmark"] == "hps-v2-bench":
        _styles(paths, tables, given, out, overwrite=overwrite, as_json=as_json)
        return
    from palate.data.tables import read_table
    from palate.evaluation.board import BoardSettings, measure_board
    from palate.evaluation.board_tables import board_tables
    from palate.runs import start_run
    from palate.settings import read_settings

    settings = read_settings(BoardSettings, recipe, given, section="board")
    datasets = [(path.stem, _dataset(path)) for path in paths]
    places = [scores_path(path) for path in tables]
    scores = [read_table(path, "scores") for path in places]
    found = measure_board(datasets, scores, settings)
    if out is not None:
        inputs: dict[str, Path | str] = {}
        for number, path in enumerate(paths, start=1):
            inputs[f"choices {number}"] = (
                path if path.suffix == ".parquet" else path / "choices.parquet"
            )
        inputs |= {f"scores {number}": path for number, path in enumerate(places, start=1)}
        with start_run("evaluate board", out, settings, inputs, overwrite=overwrite) as run:
            if not run.finished:
                run.finish({"rows": len(found.rows)}, files=_keep(found, datasets, scores, out))
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    typer.echo("\n\n".join(_text(table) for table in board_tables(found)))


def _text(table: Any) -> str:
    right = "".join(map(str, table.numeric))
    notes = "".join(f"\n{note}" for note in table.notes)
    return f"{table.title}\n{text_table(table.header, table.rows, right=right)}{notes}"


def _styles(
    paths: Sequence[Path],
    tables: Sequence[Path],
    given: dict[str, Any],
    out: Path | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Score generators by style, as the HPS v2 benchmark does, beside what was published."""
    from palate.data.tables import read_table
    from palate.errors import DataError, RunError
    from palate.evaluation.styles import benchmark_styles, style_csv, style_table
    from palate.runs import RECORD, start_run
    from palate.stats.intervals import Bootstrap

    asked = {name: given[name] for name in ("resamples", "seed") if given[name] is not None}
    bootstrap = Bootstrap(**asked)
    images = [_dataset(path).images for path in paths]
    places = [scores_path(table) for table in tables]
    scores = [read_table(place, "scores") for place in places]
    rows = []
    for one in images:
        for place, table in zip(places, scores, strict=True):
            with about(place):
                rows += benchmark_styles(one, table, bootstrap)
    told = [(row.scorer, row.dimension, row.generator, row.style) for row in rows]
    if twice := next((one for one in told if told.count(one) > 1), None):
        raise DataError(f"two tables have scores of {twice[2]!r} by {twice[0]!r}, expected one")
    table = style_table(rows)
    if out is not None:
        inputs = {
            f"images {number}": path / "images.parquet" for number, path in enumerate(paths, 1)
        }
        inputs |= {f"scores {number}": place for number, place in enumerate(places, 1)}
        written = {
            "styles.json": json.dumps([row.to_dict() for row in rows], indent=1) + "\n",
            "styles.md": table.to_markdown(),
            "styles.csv": style_csv(rows),
        }
        for name in written:
            if (out / name).exists() and not (out / RECORD).exists():
                raise RunError(f"{out / name}: exists and is no run's; choose another --out")
        with start_run("evaluate styles", out, bootstrap, inputs, overwrite=overwrite) as run:
            if not run.finished:
                files = _write(written, out)
                run.finish({"rows": len(rows)}, files=files)
    typer.echo(json.dumps([row.to_dict() for row in rows]) if as_json else _text(table))


def _dataset(path: Path) -> Any:
    from palate.data.schemas import SCHEMAS
    from palate.data.tables import Dataset, load_dataset, read_table

    if path.suffix == ".parquet":
        return Dataset(SCHEMAS["images"].empty_table(), read_table(path, "choices"), path.parent)
    return load_dataset(path)


def _write(written: dict[str, str], out: Path) -> list[Path]:
    """Write texts into a folder; give their files."""
    from palate.runs import write_atomic

    for name, text in written.items():
        write_atomic(out / name, text)
    return [out / name for name in written]


def _keep(found: Any, datasets: Any, scores: Any, out: Path) -> list[Path]:
    """Write the board as JSON, Markdown and CSV, and as a page where the extra is there."""
    from palate.evaluation.board_tables import board_csv, board_markdown

    written = {
        "board.json": json.dumps(found.to_dict(), indent=1) + "\n",
        "board.md": board_markdown(found),
        "board.csv": board_csv(found),
    }
    files = _write(written, out)
    try:
        from palate.evaluation.board_page import write_board_page

        write_board_page(found, datasets, scores, out / "board.html")
    except ModuleNotFoundError as fault:
        if (fault.name or "").partition(".")[0] not in {"jinja2", "matplotlib"}:
            raise
        typer.echo("no page: it needs pip install 'palate[report]'", err=True)
        return files
    return [*files, out / "board.html"]

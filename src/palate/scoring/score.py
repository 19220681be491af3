"""The verb ``score``: images in, a table of scores out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.tables import SCORES, image_path, read_table, write_table
from palate.errors import DataError, ImageError, RunError, SettingsError
from palate.models.pixels import open_picture
from palate.runs import start_run, track
from palate.scoring.inputs import Gathered, hash_table
from palate.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """How images are read and scored; none of it changes a score beyond rounding but ``exif``.

    ``batch`` images go to the scorer at once. After each ``shard`` of rows, made of whole prompts,
    the scores are on disk and need not be computed again. ``workers`` threads open files. ``exif``
    turns an image as its EXIF orientation says, which the official codes do not.
    """

    batch: int = 32
    shard: int = 2048
    workers: int = 2
    exif: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes below one."""
        for name in ("batch", "shard", "workers"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")


def score_images(
    gathered: Gathered,
    scorer: Scorer,
    out: Path,
    settings: ScoreSettings = ScoreSettings(),
    *,
    allow_errors: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score images as a run that can be interrupted and resumed; give what was found.

    ``out`` is a folder, which will hold ``scores.parquet``, or the ``.parquet`` file itself, whose
    run record is then kept in a folder of the same name ending in ``.run``. Images that could not
    be scored are rows with an error. Raises DataError for them after the table is written, unless
    ``allow_errors``; then the same command tries these images again.
    """
    as_file = out.suffix == ".parquet"
    folder, path = (out.with_suffix(".run"), out) if as_file else (out, out / "scores.parquet")
    if as_file and path.exists() and not folder.exists() and not overwrite:
        raise RunError(f"{path}: exists already; choose another --out, or --overwrite")
    inputs = {
        "images": hash_table(gathered.images),
        "scorer": f"{scorer.name} {scorer.fingerprint}",
    }
    with start_run("score", folder, {"exif": settings.exif}, inputs, overwrite=overwrite) as run:
        if not run.finished:
            shards = folder / "shards"
            scores = score_table(gathered.images, gathered.folder, scorer, settings, shards)
            write_table(scores, path)
            accept_errors(scores, path, allow_errors=allow_errors)
            run.finish(_result(scores, scorer, path), files=[path.resolve()])
            shutil.rmtree(shards, ignore_errors=True)
        elif run.result["errors"]:
            accept_errors(read_table(path, "scores"), path, allow_errors=allow_errors)
        return run.result


def accept_errors(scores: Any, path: Path | None, *, allow_errors: bool) -> None:
    """Raise DataError for a table with errors unless they are allowed."""
    errors = error_rows(scores)
    if len(errors) and not allow_errors:
        where = f"all are in {path}; " if path else ""
        raise DataError(
            f"{len(errors)} of {len(scores)} images could not be scored, the first because "
            f"{errors['error'][0].as_py()} ({where}--allow-errors accepts them)"
        )


def _result(scores: Any, scorer: Scorer, path: Path) -> dict[str, Any]:
    """Sum a run up."""
    return {
        "scores": str(path),
        "scorer": scorer.name,
        "dimension": scorer.dimension,
        "unit": scorer.unit,
        "fingerprint": scorer.fingerprint,
        "images": len(scores),
        "errors": len(error_rows(scores)),
        "cut_prompts": len(cut_rows(scores)),
    }


@dataclass(frozen=True, slots=True)
class _Row:
    """One image to be scored."""

    image: str
    prompt: str
    path: str | None


def score_table(
    images: Any,
    folder: Path,
    scorer: Scorer,
    settings: ScoreSettings = ScoreSettings(),
    shards: Path | None = None,
) -> Any:
    """Score a table of images; give the table of scores, one row per image in the same order.

    ``folder`` is where the paths of the table start. An image that cannot be read, and a score that
    is not finite, becomes a row with an error and without a value; nothing is left out. Given
    ``shards``, a folder, finished parts are kept there and found again; it is the caller's to
    remove. The features of a prompt are computed once, whatever its number of images.
    """
    rows = [_Row(**row) for row in images.select(["image", "prompt", "path"]).to_pylist()]
    cuts = _cuts(rows, settings.shard)
    tables = []
    for number, places in track(list(enumerate(cuts)), f"scoring with {scorer.name}"):
        kept = shards / f"{number:06d}.parquet" if shards else None
        here = [rows[place] for place in places]
        table = _kept(kept, here, scorer) if kept else None
        if table is None:
            table = _score_rows(here, folder, scorer, settings)
            if kept:
                write_table(table, kept)
        tables.append(table)
    if not tables:
        return SCORES.empty_table()
    back = np.argsort(np.concatenate([np.asarray(places) for places in cuts]), kind="stable")
    return pa.concat_tables(tables).take(pa.array(back))


def error_rows(scores: Any) -> Any:
    """Give the rows of a table of scores that hold an error instead of a value."""
    return scores.filter(pc.is_valid(scores["error"]))


def cut_rows(scores: Any) -> Any:
    """Give the rows whose prompt was longer than the scorer reads."""
    return scores.filter(pc.less(scores["tokens_kept"], scores["tokens_given"]))


def _cuts(rows: Sequence[_Row], size: int) -> list[list[int]]:
    """Cut the rows into parts of whole prompts with at least ``size`` rows, prompts as they come.

    A prompt's features are then computed in one part only, and a part looks the same whether or
    not the parts before it had to be computed.
    """
    prompts: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        prompts.setdefault(row.prompt, []).append(place)
    cuts: list[list[int]] = [[]]
    for places in prompts.values():
        if len(cuts[-1]) >= size:
            cuts.append([])
        cuts[-1].extend(places)
    return [cut for cut in cuts if cut]


def _kept(path: Path, rows: Sequence[_Row], scorer: Scorer) -> Any | None:
    """Read a part that was scored before, if it is this part and this scorer's.

    A part with errors is computed again: the file may be there by now.
    """
    if not path.is_file():
        return None
    try:
        table = read_table(path, "scores")
    except DataError:  # damaged; it is only a copy, so it is made again
        return None
    same = (
        table["image"].to_pylist() == [row.image for row in rows]
        and table["prompt"].to_pylist() == [row.prompt for row in rows]
        and set(table["fingerprint"].to_pylist()) == {scorer.fingerprint}
        and table["error"].null_count == len(table)
    )
    return table if same else None


def _score_rows(rows: Sequence[_Row], folder: Path, scorer: Scorer, settings: ScoreSettings) -> Any:
    """Score some rows, batch after batch."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("value", "tokens_given", "tokens_kept", "error")
    }
    for images, batch in _batches(rows, folder, settings):
        for name, part in _score_batch(images, batch, scorer).items():
            columns[name].extend(part)
    shared = {
        "scorer": scorer.name,
        "dimension": scorer.dimension,
        "unit": scorer.unit,
        "fingerprint": scorer.fingerprint,
    }
    columns |= {name: [value] * len(rows) for name, value in shared.items()}
    columns["image"] = [row.image for row in rows]
    columns["prompt"] = [row.prompt for row in rows]
    return pa.table([pa.array(columns[field.name], field.type) for field in SCORES], schema=SCORES)


def _batches(
    rows: Sequence[_Row], folder: Path, settings: ScoreSettings
) -> Iterator[tuple[list[PIL.Image.Image | str], Sequence[_Row]]]:
    """Open images while the batch before is scored; what cannot be opened is a sentence instead."""

    def opened(row: _Row) -> PIL.Image.Image | str:
        try:
            path = image_path({"image": row.image, "path": row.path}, folder)
            return open_picture(path, exif=settings.exif)
        except ImageError as error:
            return str(error)

    parts = [rows[start : start + settings.batch] for start in range(0, len(rows), settings.batch)]
    with ThreadPoolExecutor(settings.workers) as pool:
        ahead = [pool.submit(opened, row) for row in parts[0]] if parts else []
        for number, part in enumerate(parts):
            now = ahead
            following = parts[number + 1] if number + 1 < len(parts) else []
            ahead = [pool.submit(opened, row) for row in following]
            yield [future.result() for future in now], part


def _score_batch(
    images: Sequence[PIL.Image.Image | str], rows: Sequence[_Row], scorer: Scorer
) -> dict[str, list[Any]]:
    """Score the images of a batch that could be opened."""
    good = [place for place, image in enumerate(images) if not isinstance(image, str)]
    pictures = [image for image in images if not isinstance(image, str)]
    scored = scorer.score(pictures, [rows[place].prompt for place in good])
    values: list[float | None] = [None] * len(rows)
    given: list[int | None] = [None] * len(rows)
    kept: list[int | None] = [None] * len(rows)
    errors = [image if isinstance(image, str) else None for image in images]
    for place, value, many, read in zip(
        good, scored.values, scored.tokens_given, scored.tokens_kept, strict=True
    ):
        given[place], kept[place] = int(many), int(read)
        if np.isfinite(value):
            values[place] = float(value)
        else:
            errors[place] = f"the score is {value}, which is not finite"
    return {"value": values, "tokens_given": given, "tokens_kept": kept, "error": errors}

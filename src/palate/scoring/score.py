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

from palate.data.tables import SCORES, image_fault, image_path, read_table, write_table
from palate.errors import DataError, ImageError, RunError, SettingsError
from palate.models.pixels import open_picture
from palate.runs import start_run, track
from palate.scoring.inputs import Gathered, hash_table
from palate.scoring.output import is_score_file, read_scores, write_scores
from palate.scoring.scorer import NetworkScorer, Scored, Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """How images are read and scored; none of it changes a score beyond rounding but ``exif``.

    ``batch`` images go to the scorers at once. After each ``shard`` of rows, made of whole prompts,
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
    scorers: Scorer | Sequence[Scorer],
    out: Path,
    settings: ScoreSettings = ScoreSettings(),
    *,
    allow_errors: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score images as a run that can be interrupted and resumed; give what was found.

    ``out`` is a folder, which will hold ``scores.parquet``, or a file ending in .parquet, .csv or
    .jsonl, whose run record is then kept in a folder beside it: ``scores.run``, ``scores.csv.run``. Images
    that could not be scored are rows with an error. Raises DataError for them after the table is
    written, unless ``allow_errors``; then the same command tries these images again.
    """
    judges = _several(scorers)
    as_file = is_score_file(out)
    beside = out.stem if out.suffix.lower() == ".parquet" else out.name
    folder, path = (
        (out.with_name(f"{beside}.run"), out) if as_file else (out, out / "scores.parquet")
    )
    if as_file and path.exists() and not folder.exists() and not overwrite:
        raise RunError(f"{path}: exists already; choose another --out, or --overwrite")
    inputs = {
        "images": hash_table(gathered.images),
        "scorers": "; ".join(f"{scorer.name} {scorer.fingerprint}" for scorer in judges),
    }
    with start_run("score", folder, {"exif": settings.exif}, inputs, overwrite=overwrite) as run:
        if not run.finished:
            shards = folder / "shards"
            scores = score_table(gathered.images, gathered.folder, judges, settings, shards)
            write_scores(scores, path)
            accept_errors(scores, path, allow_errors=allow_errors)
            run.finish(_result(scores, judges, path), files=[path.resolve()])
            shutil.rmtree(shards, ignore_errors=True)
        elif run.result["errors"]:
            accept_errors(read_scores(path), path, allow_errors=allow_errors)
        return run.result


def accept_errors(scores: Any, path: Path | None, *, allow_errors: bool) -> None:
    """Raise DataError for a table with errors unless they are allowed."""
    errors = error_rows(scores)
    if len(errors) and not allow_errors:
        where = f"all are in {path}; " if path else ""
        raise DataError(
            f"{len(errors)} of {len(scores)} scores could not be had, the first because "
            f"{errors['error'][0].as_py()} ({where}--allow-errors accepts them)"
        )


def _result(scores: Any, scorers: Sequence[Scorer], path: Path) -> dict[str, Any]:
    """Sum a run up."""
    return {
        "scores": str(path),
        "scorers": [scorer.card() for scorer in scorers],
        "images": len(scores) // len(scorers),
        "errors": len(error_rows(scores)),
        "cut_prompts": len(cut_rows(scores)),
        "cropped_images": len(scores.filter(pc.less(scores["area_kept"], 1.0))),
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
    scorers: Scorer | Sequence[Scorer],
    settings: ScoreSettings = ScoreSettings(),
    shards: Path | None = None,
) -> Any:
    """Score a table of images; give the table of scores, one row per image in the same order.

    Several scorers share the opening of each image and, where they have the same tower and
    preparation, its features; their rows follow one after the other, all images of one scorer first.
    ``folder`` is where the paths of the table start. An image that cannot be read, and a score that
    is not finite, becomes a row with an error and without a value; nothing is left out. Given
    ``shards``, a folder, finished parts are kept there and found again; it is the caller's to
    remove. The features of a prompt are computed once, whatever its number of images.
    """
    judges = _several(scorers)
    rows = [_Row(**row) for row in images.select(["image", "prompt", "path"]).to_pylist()]
    cuts = _cuts(rows, settings.shard)
    tables: list[list[Any]] = [[] for _ in judges]
    for number, places in track(list(enumerate(cuts)), f"scoring with {_names(judges)}"):
        here = [rows[place] for place in places]
        for column, table in zip(
            tables, _shard(number, here, folder, judges, settings, shards), strict=True
        ):
            column.append(table)
    if not cuts:
        return SCORES.empty_table()
    back = pa.array(np.argsort(np.concatenate([np.asarray(cut) for cut in cuts]), kind="stable"))
    return pa.concat_tables([pa.concat_tables(column).take(back) for column in tables])


def _several(scorers: Scorer | Sequence[Scorer]) -> list[Scorer]:
    """Give the scorers as a list; one that is there twice would give every row twice."""
    judges = [scorers] if isinstance(scorers, Scorer) else list(scorers)
    seen = {(scorer.name, scorer.dimension, scorer.fingerprint) for scorer in judges}
    if not judges or len(seen) < len(judges):
        raise DataError("the same scorer was given twice" if judges else "no scorer was given")
    return judges


def _names(judges: Sequence[Scorer]) -> str:
    return ", ".join(dict.fromkeys(scorer.name for scorer in judges))


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


def _shard(
    number: int,
    rows: Sequence[_Row],
    folder: Path,
    judges: Sequence[Scorer],
    settings: ScoreSettings,
    shards: Path | None,
) -> list[Any]:
    """Give one table per scorer for a part of the rows; those that were finished before are found again."""
    files = [
        shards / f"{number:06d}-{place}.parquet" if shards else None for place in range(len(judges))
    ]
    found = [
        _kept(file, rows, scorer) if file else None
        for file, scorer in zip(files, judges, strict=True)
    ]
    missing = [place for place, table in enumerate(found) if table is None]
    fresh = _score_rows(rows, folder, [judges[place] for place in missing], settings)
    for place, table in zip(missing, fresh, strict=True):
        found[place] = table
        if (file := files[place]) is not None:
            write_table(table, file)
    return found


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


def _score_rows(
    rows: Sequence[_Row], folder: Path, judges: Sequence[Scorer], settings: ScoreSettings
) -> list[Any]:
    """Score some rows with every scorer, batch after batch; one table per scorer."""
    if not judges:
        return []
    parts: list[list[dict[str, list[Any]]]] = [[] for _ in judges]
    for images, batch in _batches(rows, folder, settings):
        for column, part in zip(parts, _score_batch(images, batch, judges), strict=True):
            column.append(part)
    return [_table(rows, scorer, column) for scorer, column in zip(judges, parts, strict=True)]


def _table(rows: Sequence[_Row], scorer: Scorer, parts: Sequence[dict[str, list[Any]]]) -> Any:
    columns = {name: [value for part in parts for value in part[name]] for name in parts[0]}
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
        where = {"image": row.image, "path": row.path}
        try:
            return open_picture(image_path(where, folder), exif=settings.exif)
        except ImageError as error:
            return image_fault(error, where, folder)

    parts = [rows[start : start + settings.batch] for start in range(0, len(rows), settings.batch)]
    with ThreadPoolExecutor(settings.workers) as pool:
        ahead = [pool.submit(opened, row) for row in parts[0]] if parts else []
        for number, part in enumerate(parts):
            now = ahead
            following = parts[number + 1] if number + 1 < len(parts) else []
            ahead = [pool.submit(opened, row) for row in following]
            yield [future.result() for future in now], part


def _score_batch(
    images: Sequence[PIL.Image.Image | str], rows: Sequence[_Row], judges: Sequence[Scorer]
) -> list[dict[str, list[Any]]]:
    """Score the images of a batch that could be opened; the columns of each scorer."""
    good = [place for place, image in enumerate(images) if not isinstance(image, str)]
    pictures = [image for image in images if not isinstance(image, str)]
    prompts = [rows[place].prompt for place in good]
    errors = [image if isinstance(image, str) else None for image in images]
    return [_columns(scored, good, errors) for scored in judge_together(judges, pictures, prompts)]


def judge_together(
    judges: Sequence[Scorer], images: Sequence[PIL.Image.Image], prompts: Sequence[str]
) -> list[Scored]:
    """Score images with several scorers; a tower that some of them share looks at each image once."""
    seen: dict[str, Any] = {}
    scored = []
    for scorer in judges:
        if not isinstance(scorer, NetworkScorer) or not images:
            scored.append(scorer.judge(images, prompts))
            continue
        # the key hashes the tower's weights, which takes a while: one scorer needs none
        key = scorer.eye.key if len(judges) > 1 else ""
        if key not in seen:
            seen[key] = scorer.eye.see(images)
        scored.append(scorer.judge_seen(seen[key], [image.size for image in images], prompts))
    return scored


def _columns(
    scored: Scored, good: Sequence[int], unreadable: Sequence[str | None]
) -> dict[str, list[Any]]:
    """Put the scores of the images that could be opened among those that could not."""
    errors = list(unreadable)
    names = ("value", "tokens_given", "tokens_kept", "area_kept")
    columns: dict[str, list[Any]] = {name: [None] * len(errors) for name in names}
    for row, place in enumerate(good):
        columns["tokens_given"][place] = int(scored.tokens_given[row])
        columns["tokens_kept"][place] = int(scored.tokens_kept[row])
        columns["area_kept"][place] = float(scored.area_kept[row])
        value = float(scored.values[row])
        if np.isfinite(value):
            columns["value"][place] = value
        else:
            errors[place] = f"the score is {value}, which is not finite"
    return columns | {"error": errors}

"""The verb ``score``: images in, a table of scores out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat, tee
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from palate.data.tables import SCORES
from palate.errors import DataError, RunError, SettingsError
from palate.runs import start_run, track
from palate.scoring.cache import FeatureCache
from palate.scoring.inputs import Gathered, survey_table
from palate.scoring.judging import Bench, judge_rows, to_open
from palate.scoring.looking import Shelf, shelf_for
from palate.scoring.output import Counts, write_parts
from palate.scoring.pieces import Piece, Row, Survey
from palate.scoring.run_place import run_place
from palate.scoring.scorer import NetworkScorer, Scorer
from palate.scoring.shards import Shards
from palate.scoring.workers import Opener

_MANY_IMAGES = 256
_MANY_BYTES = 32 * 2**20


def _cores() -> int:
    return max(1, min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """How images are read and scored; none of it changes a score beyond rounding but ``exif``.

    ``batch`` images go to a network at once. After each ``shard`` of rows the scores are on disk and need not be
    computed again. ``workers`` open images beside the network: threads for few images, processes for many. ``exif``
    turns an image as its EXIF orientation says, which the official codes do not.
    """

    batch: int = 32
    shard: int = 512
    workers: int = field(default_factory=_cores)
    exif: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes below one."""
        for name in ("batch", "shard", "workers"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True, slots=True)
class Done:
    """How many pieces a run has, what their tables hold together, and what the record says of how it was done."""

    pieces: int
    counts: Counts
    how: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """The pieces of a run with all that is needed to score them: ``shards`` hold what is there, ``shelf`` the cache."""

    pieces: Iterable[Piece]
    judges: Sequence[Scorer]
    settings: ScoreSettings
    survey: Survey
    shards: Shards
    shelf: Shelf | None

    def bench(self) -> Bench:
        """Give the scorers with the towers that they share."""
        return Bench(self.judges, self.settings.batch, self.shelf, exif=self.settings.exif)


PieceScorer: TypeAlias = Callable[[Job], Done]
"""Scores the pieces of a job that are not there yet."""


def score_images(
    gathered: Gathered,
    scorers: Scorer | Sequence[Scorer],
    out: Path | str,
    settings: ScoreSettings = ScoreSettings(),
    *,
    cache: FeatureCache | None = None,
    allow_errors: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score images as a run that can be interrupted and resumed; give what was found.

    ``out`` is a folder, which will hold ``scores.parquet``, or a file ending in .parquet, .csv or .jsonl, whose run
    record is then kept in a folder beside it: ``scores.run``, ``scores.csv.run``; or either behind a URL. Images that
    could not be scored are rows with an error. Raises DataError for them after the table is written, unless ``allow_errors``; the same command
    then tries these images again.
    """
    result = run_scores(
        gathered,
        scorers,
        out,
        settings,
        cache=cache,
        allow_errors=allow_errors,
        overwrite=overwrite,
    )
    refuse_errors(result, result["scores"], allow_errors=allow_errors)
    return result


def run_scores(
    gathered: Gathered,
    scorers: Scorer | Sequence[Scorer],
    out: Path | str,
    settings: ScoreSettings = ScoreSettings(),
    *,
    cache: FeatureCache | None = None,
    score: PieceScorer | None = None,
    allow_errors: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Do as :func:`score_images`, but leave it to the caller to refuse errors; the run is then not finished.

    ``score`` scores the pieces: in this process by default, see :mod:`palate.scoring.ray_engine` for the other.
    """
    judges = _several(scorers)
    survey = gathered.survey
    inputs = {
        "images": survey.digest,
        "scorers": "; ".join(f"{scorer.name} {scorer.fingerprint}" for scorer in judges),
    }
    how = {"exif": settings.exif, "backend": _backend(judges)}
    with (
        run_place(out, overwrite=overwrite) as place,
        start_run("score", place.folder, how, inputs, overwrite=overwrite) as run,
    ):
        if run.finished:
            _refuse_changed(run.result, survey, place.folder)
            return run.result
        place.keep_record()
        shards = place.shards
        shelf = None if cache is None else shelf_for(cache, survey, judges)
        pieces = gathered.source.pieces(settings.shard)
        done = (score or score_pieces)(Job(pieces, judges, settings, survey, shards, shelf))
        counts = done.counts
        if survey.rows is not None:
            _refuse_other_count(counts.rows, survey.rows * len(judges), place.folder)
        write_parts(lambda: shards.tables(done.pieces, len(judges)), place.table)
        place.publish()
        result = _result(counts, judges, place.name, survey, shelf)
        run.note(**done.how)
        if counts.errors and not allow_errors:
            run.note(fault=f"{counts.errors} scores could not be had")
            run.save("failed")
            return result
        run.finish(result, files=place.files)
        place.forget_shards()
        return run.result


def _refuse_changed(result: dict[str, Any], survey: Survey, folder: Path) -> None:
    """A finished run stands only for the images as they were."""
    if result.get("state", survey.state) != survey.state:
        raise RunError(
            f"{folder}: holds a run of 'score' on other inputs (changed: 'images'); "
            "choose another --out, or --overwrite"
        )


def _refuse_other_count(found: int, expected: int, folder: Path) -> None:
    if found != expected:
        raise DataError(
            f"{folder}: the images changed while they were scored: {found} scores, expected {expected}"
        )


def refuse_errors(result: dict[str, Any], path: Path | str | None, *, allow_errors: bool) -> None:
    """Raise DataError for scores that could not be had unless they are allowed."""
    if result["errors"] and not allow_errors:
        where = f"all are in {path}; " if path else ""
        raise DataError(
            f"{result['errors']} of {result['images'] * len(result['scorers'])} scores could not be had, "
            f"the first because {result['first_error']} ({where}--allow-errors accepts them)"
        )


def _result(
    counts: Counts,
    scorers: Sequence[Scorer],
    name: str | None,
    survey: Survey,
    shelf: Shelf | None,
) -> dict[str, Any]:
    """Sum a run up."""
    return {
        "scores": name,
        "scorers": [scorer.card() for scorer in scorers],
        "images": counts.rows // len(scorers),
        "errors": counts.errors,
        "first_error": counts.first_error,
        "cut_prompts": counts.cut_prompts,
        "cropped_images": counts.cropped_images,
        "cache": shelf.counts() if shelf else None,
        "state": survey.state,
    }


def score_table(
    images: Any,
    folder: Path,
    scorers: Scorer | Sequence[Scorer],
    settings: ScoreSettings = ScoreSettings(),
    shards: Path | None = None,
    cache: FeatureCache | None = None,
) -> Any:
    """Score a table of images; give the table of scores, one row per image in the same order.

    Several scorers share the opening of each image and, where they have the same tower and preparation, its features;
    their rows follow one after the other, all images of one scorer first. ``folder`` is where the paths of the table
    start. An image that cannot be read, and a score that is not finite, becomes a row with an error and without a
    value; nothing is left out. Given ``shards``, a folder, finished pieces are kept there and found again; it is the
    caller's to remove. Given a ``cache``, images and prompts that are known there are not looked at.
    """
    return score_gathered(survey_table(images, folder), scorers, settings, shards, cache)[0]


def score_gathered(
    gathered: Gathered,
    scorers: Scorer | Sequence[Scorer],
    settings: ScoreSettings = ScoreSettings(),
    shards: Path | None = None,
    cache: FeatureCache | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Score what was gathered as :func:`score_table` does; give the table, and what :func:`score_images` gives."""
    judges, survey, kept = _several(scorers), gathered.survey, Shards(shards)
    shelf = None if cache is None else shelf_for(cache, survey, judges)
    pieces = gathered.source.pieces(settings.shard)
    done = score_pieces(Job(pieces, judges, settings, survey, kept, shelf))
    table = pa.concat_tables([SCORES.empty_table(), *kept.tables(done.pieces, len(judges))])
    return table, _result(done.counts, judges, None, survey, shelf)


def score_piece(
    piece: Piece,
    scorers: Scorer | Sequence[Scorer],
    settings: ScoreSettings = ScoreSettings(),
    shelf: Shelf | None = None,
) -> list[Any]:
    """Score one piece; give one table of scores per scorer, a row for each row of the piece in its order.

    It needs nothing but what it is given, so that any process on any machine can score any piece: the same piece gives
    the same tables. Images are opened in threads.
    """
    bench = Bench(_several(scorers), settings.batch, shelf, exif=settings.exif)
    opening, rows = tee(piece.rows())
    with (
        Opener(
            bench.plan(), workers=settings.workers, ahead=2 * bench.batch, processes=False
        ) as opener,
        bench.ready(),
    ):
        return judge_rows(rows, opener.stream(to_open(opening, bench.stride)), bench, repeat(None))


@dataclass(slots=True)
class Task:
    """A piece, how its tables are marked, and how many rows they have; None if it is not scored yet."""

    piece: Piece
    marks: list[str]
    found: int | None


def score_pieces(job: Job) -> Done:
    """Score the pieces that are not there yet.

    Images are opened ahead across pieces, so that the network need not wait where one ends.
    """
    bench = job.bench()
    counts = [Counts() for _ in job.judges]
    ahead, tasks = tee(_read_twice(find_tasks(job.pieces, bench, job.shards, counts)))
    done = track(job.survey.ticks(), label(job.judges), job.survey.rows)
    number = 0
    with _opener(bench, job.settings, job.survey) as opener, bench.ready():
        opened = opener.stream(
            row
            for task, rows, _ in ahead
            if task.found is None
            for row in to_open(rows, bench.stride)
        )
        for task, _, rows in tasks:
            if task.found is None:
                tables = judge_rows(rows, opened, bench, done)
                for place, table in enumerate(tables):
                    job.shards.put(number, place, task.marks[place], table)
                    counts[place].add(table)
            else:
                deque(islice(done, task.found), maxlen=0)
            number += 1
    next(done, None)  # ends the display
    return Done(number, sum(counts, Counts()))


def _read_twice(tasks: Iterable[Task]) -> Iterator[tuple[Task, Iterator[Row], Iterator[Row]]]:
    """Give the rows of each piece for opening and for judging: those between the two are in memory."""
    for task in tasks:
        opening, judging = tee(task.piece.rows())
        yield task, opening, judging


def find_tasks(
    pieces: Iterable[Piece], bench: Bench, shards: Shards, counts: Sequence[Counts]
) -> Iterator[Task]:
    """Look which pieces are there already for every scorer; count what they hold."""
    for number, piece in enumerate(pieces):
        mark = f"{piece.mark()}{'/exif' * bench.exif}"
        marks = [f"{mark} {judge.dimension} {judge.fingerprint}" for judge in bench.judges]
        tables = [shards.find(number, place, own) for place, own in enumerate(marks)]
        known = [table for table in tables if table is not None]
        if len(known) == len(marks):
            for own, table in zip(counts, known, strict=True):
                own.add(table)
        yield Task(piece, marks, len(known[0]) if len(known) == len(marks) else None)


def _opener(bench: Bench, settings: ScoreSettings, survey: Survey) -> Opener:
    """Choose threads or processes: a process costs a second to start, and cannot hand over a picture cheaply."""
    plan = bench.plan()
    images = _MANY_IMAGES if survey.images is None else survey.images
    many = images >= _MANY_IMAGES and survey.size >= _MANY_BYTES
    processes = many and not plan.pictures
    return Opener(plan, workers=settings.workers, ahead=2 * bench.batch, processes=processes)


def _backend(judges: Sequence[Scorer]) -> str:
    """Name what computes the image towers: another one rounds otherwise, so a run stays with one."""
    networks = [judge for judge in judges if isinstance(judge, NetworkScorer)]
    return ", ".join(sorted({judge.eye.engine.backend for judge in networks}))


def _several(scorers: Scorer | Sequence[Scorer]) -> list[Scorer]:
    """Give the scorers as a list; one that is there twice would give every row twice."""
    judges = [scorers] if isinstance(scorers, Scorer) else list(scorers)
    seen = {(scorer.name, scorer.dimension, scorer.fingerprint) for scorer in judges}
    if not judges or len(seen) < len(judges):
        raise DataError("the same scorer was given twice" if judges else "no scorer was given")
    return judges


def label(judges: Sequence[Scorer]) -> str:
    """Say what the progress bar shows."""
    return "scoring with " + ", ".join(dict.fromkeys(scorer.name for scorer in judges))

"""The rows of one piece, scored by every scorer: one table each, a row for every row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

import numpy as np
import pyarrow as pa

from palate.data.tables import SCORES
from palate.models.pixels import Preparation
from palate.scoring.looking import Looking, Shelf, Tower, find_towers
from palate.scoring.pieces import Row
from palate.scoring.scorer import NetworkScorer, Scored, Scorer
from palate.scoring.workers import Opened, Plan

_BATCHES_PER_STRIDE = 4


@final
class Bench:
    """The scorers of a run with the towers that they share, and how images are given to them."""

    def __init__(
        self,
        judges: Sequence[Scorer],
        batch: int,
        shelf: Shelf | None = None,
        *,
        exif: bool = False,
    ) -> None:
        """Find the towers; ``batch`` images are looked at and compared at a time."""
        self.judges, self.batch, self.shelf, self.exif = judges, batch, shelf, exif
        self.towers: list[Tower] = find_towers(judges, named=shelf is not None)
        places = {tower.key: place for place, tower in enumerate(self.towers)}
        alone = len(self.towers) == 1
        # None for a scorer without a network, which gets the pictures
        self.tower_of = [
            (0 if alone else places[judge.eye.key]) if isinstance(judge, NetworkScorer) else None
            for judge in judges
        ]

    @property
    def stride(self) -> int:
        """How many rows are opened before they are compared; pictures are large, so fewer of them."""
        return self.batch * (1 if None in self.tower_of else _BATCHES_PER_STRIDE)

    def plan(self) -> Plan:
        """Say what is to be made of each image."""
        how: tuple[Preparation, ...] = tuple(tower.eye.preparation for tower in self.towers)
        cache = self.shelf.images.cache if self.shelf else None
        spaces = tuple(tower.key for tower in self.towers)
        return Plan(how, spaces, cache, self.exif, pictures=None in self.tower_of)

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """Let the scorers that read prompts keep them on the shelf, and take it away again."""
        networks = [
            judge
            for judge in self.judges
            if isinstance(judge, NetworkScorer) and judge.reads_prompts
        ]
        before = [judge.store for judge in networks]
        try:
            for judge in networks:
                judge.store = self.shelf.texts if self.shelf else judge.store
            yield
        finally:
            for judge, store in zip(networks, before, strict=True):
                judge.store = store


def to_open(rows: Iterable[Row], stride: int) -> Iterator[Row]:
    """Give the rows whose images are to be opened: each file once per stride."""
    source = iter(rows)
    while here := list(islice(source, stride)):
        yield from {row.file or id(row): row for row in here}.values()


@dataclass(slots=True)
class _Columns:
    """What one scorer says of each row."""

    value: Any
    given: Any
    kept: Any
    area: Any
    errors: list[str | None]


def judge_rows(
    rows: Iterable[Row], opened: Iterator[Opened], bench: Bench, done: Iterator[object]
) -> list[Any]:
    """Score rows, of which a few are in memory at a time; give one table per scorer.

    ``opened`` gives what :func:`to_open` asked for, in that order. ``done`` is moved on by one for each row that is
    scored. An image that could not be opened, and a score that is not finite, is a row with an error. The scores
    depend on nothing but the rows and what the shelf holds: prompts read for other rows are forgotten.
    """
    for judge in bench.judges:
        if isinstance(judge, NetworkScorer):
            judge.forget()
    store = bench.shelf.images if bench.shelf else None
    suffix = "/exif" * bench.exif
    lookings = [
        Looking(tower, place, bench.batch, store, suffix)
        for place, tower in enumerate(bench.towers)
    ]
    parts: list[list[Any]] = [[SCORES.empty_table()] for _ in bench.judges]
    source = iter(rows)
    while here := list(islice(source, bench.stride)):
        columns = [_empty(len(here)) for _ in bench.judges]
        files = _open_stride(here, opened, lookings)
        good = [row.prompt for row in here if files[row.file or id(row)].error is None]
        for judge in bench.judges:
            if isinstance(judge, NetworkScorer):
                judge.read_ahead(good)
        for first in range(0, len(here), bench.batch):
            block = here[first : first + bench.batch]
            found = [files[row.file or id(row)] for row in block]
            _judge_block(first, block, found, bench, lookings, columns)
            for _ in islice(done, len(block)):
                pass
        for looking in lookings:
            looking.forget()
        for part, judge, of in zip(parts, bench.judges, columns, strict=True):
            part.append(_table(here, judge, of))
    return [pa.concat_tables(part).combine_chunks() for part in parts]


def _open_stride(
    rows: Sequence[Row], opened: Iterator[Opened], lookings: Sequence[Looking]
) -> dict[str | int, Opened]:
    """Take what the stride's images opened as, and have every tower look at them."""
    files: dict[str | int, Opened] = {}
    for row in to_open(rows, len(rows)):
        one = next(opened)
        files[row.file or id(row)] = one
        if one.error is None:
            for looking in lookings:
                looking.add(one)
    for looking in lookings:
        looking.settle()
    return files


def _judge_block(
    start: int,
    rows: Sequence[Row],
    opened: Sequence[Opened],
    bench: Bench,
    lookings: Sequence[Looking],
    columns: Sequence[_Columns],
) -> None:
    """Compare some images with their prompts, and write the scores into the columns from ``start`` on."""
    good = [place for place, one in enumerate(opened) if one.error is None]
    prompts = [rows[place].prompt for place in good]
    keys = [opened[place].sha256 for place in good]
    sizes = [opened[place].size for place in good]
    pictures = [picture for place in good if (picture := opened[place].picture) is not None]
    for judge, tower, column in zip(bench.judges, bench.tower_of, columns, strict=True):
        for place, one in enumerate(opened):
            column.errors[start + place] = one.error
        if not good:
            continue
        if isinstance(judge, NetworkScorer) and tower is not None:
            scored = judge.judge_seen(lookings[tower].seen(keys), sizes, prompts)
        else:
            scored = judge.judge(pictures, prompts)
        _fill(column, [start + place for place in good], scored)


def _empty(count: int) -> _Columns:
    given, kept = np.full(count, -1, dtype=np.int32), np.full(count, -1, dtype=np.int32)
    return _Columns(np.full(count, np.nan), given, kept, np.full(count, np.nan), [None] * count)


def _fill(column: _Columns, places: Sequence[int], scored: Scored) -> None:
    column.value[places] = scored.values
    column.given[places], column.kept[places] = scored.tokens_given, scored.tokens_kept
    column.area[places] = scored.area_kept
    for place, value in zip(places, scored.values.tolist(), strict=True):
        if not np.isfinite(value):
            column.errors[place] = f"the score is {value}, which is not finite"


def _table(rows: Sequence[Row], judge: Scorer, columns: _Columns) -> Any:
    shared = {
        "scorer": judge.name,
        "dimension": judge.dimension,
        "unit": judge.unit,
        "fingerprint": judge.fingerprint,
    }
    made: dict[str, Any] = {
        "image": pa.array([row.image for row in rows], pa.string()),
        "prompt": pa.array([row.prompt for row in rows], pa.string()),
        "value": pa.array(columns.value, mask=~np.isfinite(columns.value)),
        "tokens_given": pa.array(columns.given, mask=columns.given < 0),
        "tokens_kept": pa.array(columns.kept, mask=columns.given < 0),
        "area_kept": pa.array(columns.area, mask=np.isnan(columns.area)),
        "error": pa.array(columns.errors, pa.string()),
    }
    made |= {name: pa.repeat(pa.scalar(value), len(rows)) for name, value in shared.items()}
    return pa.table([made[field.name] for field in SCORES], schema=SCORES)

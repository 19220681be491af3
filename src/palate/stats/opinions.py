"""Mean opinions: what people think of each image on average, with an interval.

Means are computed, never stored: they come from choices that keep the ratings they were made of.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate.data.records import Choice
from palate.data.tables import to_rows
from palate.errors import DataError

OPINIONS: Final = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("dimension", pa.string(), nullable=False),
        pa.field("mean", pa.float64(), nullable=False),
        pa.field("std", pa.float64()),
        pa.field("count", pa.int32()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
    ]
)
"""The columns of a table of mean opinions; empty where a set prints a mean and no ratings."""


@dataclass(frozen=True, slots=True)
class MeanOpinion:
    """The mean opinion of one image on one dimension, in the unit of the ratings.

    `std` is the standard deviation between people (divided by count - 1), `low` and `high` the interval.
    All three are None for a single rating. `count` is None where a set prints a mean and no ratings;
    its `std` is then the printed one.
    """

    image: str
    dimension: str
    mean: float
    std: float | None
    count: int | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class MeanOpinions:
    """Mean opinions in the order in which the images come, and what they were made of.

    `ratings` is how many ratings counted, `printed` how many means were taken as a set prints them, and
    `left_out` how many choices hold neither.
    """

    rows: tuple[MeanOpinion, ...]
    level: float
    ratings: int
    printed: int
    left_out: int

    def to_table(self) -> Any:
        """Return the rows as an Arrow table with the columns of `OPINIONS`."""
        columns = [[getattr(row, field.name) for row in self.rows] for field in OPINIONS]
        arrays = [pa.array(c, field.type) for c, field in zip(columns, OPINIONS, strict=True)]
        return pa.Table.from_arrays(arrays, schema=OPINIONS)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and the method as plain values for JSON."""
        return {
            "opinions": len(self.rows),
            "level": self.level,
            "method": "Student's t between people",
            "ratings": self.ratings,
            "printed": self.printed,
            "left_out": self.left_out,
        }


def mean_opinions(choices: Any, *, level: float = 0.95) -> MeanOpinions:
    """Mean opinion per image and dimension, from the ratings in the details of choices.

    `choices` is a table of choices whose details hold `ratings`, one number per image, as the import of
    ratings writes them; where they hold `means` (and `stds`), as a set prints them, these are taken as
    they are. A person's rating of an image counts once, in however many pairs it stands; every choice by
    an unknown person is another person's. A rating that stood alone is in no choice, and so in no mean.
    The interval is mean ± t · std / √count, with count - 1 degrees of freedom. Raises `DataError` where a
    person's two ratings of one image differ.
    """
    if not 0 < level < 1:
        raise DataError(f"an interval of level {level}, expected between 0 and 1")
    given = _Given()
    for choice in to_rows(choices, Choice):
        given.add(choice)
    counts, means, stds = _moments(given)
    half = _half_widths(counts, stds, level)
    rows = []
    for place, (image, dimension) in enumerate(given.places):
        count, mean, std = int(counts[place]), float(means[place]), float(stds[place])
        if count:
            several = count > 1
            low, high = mean - float(half[place]), mean + float(half[place])
            spread = (std, count, low, high) if several else (None, count, None, None)
            rows.append(MeanOpinion(image, dimension, mean, *spread))
        else:
            told, deviation = given.printed[place]
            rows.append(MeanOpinion(image, dimension, told, deviation, None, None, None))
    printed = sum(row.count is None for row in rows)
    return MeanOpinions(tuple(rows), level, int(counts.sum()), printed, given.left_out)


class _Given:
    """Ratings and printed means of images, one entry per image and dimension."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, str], int] = {}
        self.owner: list[int] = []
        self.values: list[float] = []
        self.printed: dict[int, tuple[float, float | None]] = {}
        self.left_out = 0
        self._told: dict[tuple[str, int], float] = {}

    def add(self, choice: Choice) -> None:
        facts = json.loads(choice.details) if choice.details else {}
        name = "ratings" if "ratings" in facts else "means"
        if name not in facts:
            self.left_out += 1
            return
        values = _numbers(choice, name, facts[name])
        stds = _deviations(choice, facts)
        for number, (image, value) in enumerate(zip(choice.images, values, strict=True)):
            key = (image, choice.dimension)
            place = self.places.setdefault(key, len(self.places))
            if name == "means":
                self._print(choice, image, place, (value, stds[number]))
            elif self._is_new(choice, image, place, value):
                self.owner.append(place)
                self.values.append(value)

    def _print(
        self, choice: Choice, image: str, place: int, told: tuple[float, float | None]
    ) -> None:
        if self.printed.setdefault(place, told) != told:
            raise DataError(
                f"choice {choice.choice!r}: the mean of {image!r} on {choice.dimension} is "
                f"{told[0]:g}, and was {self.printed[place][0]:g} before"
            )

    def _is_new(self, choice: Choice, image: str, place: int, value: float) -> bool:
        """Whether the rating did not come before, in another pair by the same person."""
        if choice.annotator is None:
            return True
        before = self._told.get((choice.annotator, place))
        if before is not None and before != value:
            raise DataError(
                f"choice {choice.choice!r}: {choice.annotator!r} rated {image!r} with {value:g} on "
                f"{choice.dimension}, and with {before:g} before"
            )
        self._told[choice.annotator, place] = value
        return before is None


def _numbers(choice: Choice, name: str, values: Any) -> list[float]:
    good = isinstance(values, list) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )
    if not good or len(values) != len(choice.images):
        raise DataError(
            f"choice {choice.choice!r}: {name} is {str(values)[:40]!r}, "
            f"expected {len(choice.images)} numbers"
        )
    return [float(value) for value in values]


def _deviations(choice: Choice, facts: Any) -> list[float | None]:
    """Return the printed standard deviations of the images; None where there is none."""
    stds = facts.get("stds")
    if stds is None:
        return [None] * len(choice.images)
    if not isinstance(stds, list) or len(stds) != len(choice.images):
        raise DataError(
            f"choice {choice.choice!r}: stds is {str(stds)[:40]!r}, "
            f"expected one for each of {len(choice.images)} images"
        )
    return [None if std is None else float(std) for std in stds]


def _moments(
    given: _Given,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Count, mean and standard deviation of each place, in two passes so that nothing cancels."""
    size = len(given.places)
    owner = np.asarray(given.owner, dtype=np.int64)
    values = np.asarray(given.values, dtype=np.float64)
    counts = np.bincount(owner, minlength=size)
    some = np.maximum(counts, 1)
    means = np.bincount(owner, weights=values, minlength=size) / some
    squares = np.bincount(owner, weights=(values - means[owner]) ** 2, minlength=size)
    stds = np.sqrt(squares / np.maximum(counts - 1, 1))
    return counts.astype(np.int64), means, stds


def _half_widths(
    counts: NDArray[np.int64], stds: NDArray[np.float64], level: float
) -> NDArray[np.float64]:
    from scipy.special import stdtrit

    several = np.maximum(counts, 2)
    widths: NDArray[np.float64] = stdtrit(several - 1, (1 + level) / 2) * stds / np.sqrt(several)
    return widths

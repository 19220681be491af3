"""How often a score finds the best image, and the worst, in its first k.

ImageReward prints Recall@k and Filter@k (371 prompts, eight images each); its authors lost the test
set (zai-org/ImageReward#78), and its code does not define them. The definition here is ours, and
not confirmed. What is printed fits a hit or a miss per prompt: all 25 published values are whole
numbers of 371 prompts. It does not say which images count as wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.accuracy import Groups, NothingDecidedError, plain_mean
from palate.stats.intervals import Average, Bootstrap, Column, Estimate
from palate.stats.two_way.estimates import share_estimate


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A Recall@k or Filter@k with its interval and its chance level.

    `ties` says that equal scores at the border are drawn at random. `left_out` counts the choices
    of k images or fewer, and those whose images the person put all alike: both would always hit.
    """

    measure: Literal["recall", "filter"]
    k: int
    estimate: Estimate
    chance: float
    left_out: int
    ties: str = "expected"

    @property
    def value(self) -> float:
        """The share of choices that hit, from 0 to 1."""
        return self.estimate.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "measure": f"{self.measure}@{self.k}",
            **self.estimate.to_dict(),
            "chance": self.chance,
            "left_out": self.left_out,
            "ties": self.ties,
        }


def recall_at(
    k: int,
    scores: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Retrieval:
    """Share of choices with an image that the person put first among the k highest scores.

    Any of several images put first is a hit. Where scores tie at the border of the k, the credit is
    the chance that a random draw of the tied ones hits: 1 - C(m - b, s) / C(m, s) with m tied, b of
    them put first, and s places left. `chance` is the same with all n images tied. Recall@1 is
    top-1 accuracy with `expected` ties. `prompts` has one label per choice, for the interval and
    the `macro` average. Raises `DataError` for k below 1.
    """
    groups = Groups(scores, ranks, offsets)
    best = groups.ranks == np.minimum.reduceat(groups.ranks, groups.starts)[groups.owner]
    return _hits("recall", k, groups.scores, best, groups, (prompts, average, bootstrap))


def filter_at(
    k: int,
    scores: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Retrieval:
    """Share of choices with an image that the person put last among the k lowest scores.

    It is `recall_at` with scores and ranks turned round: how well a score sorts out what people
    like least. Several images put last are common; `chance` knows them.
    """
    groups = Groups(scores, ranks, offsets)
    worst = groups.ranks == np.maximum.reduceat(groups.ranks, groups.starts)[groups.owner]
    return _hits("filter", k, -groups.scores, worst, groups, (prompts, average, bootstrap))


def _hits(
    measure: Literal["recall", "filter"],
    k: int,
    values: NDArray[np.float64],
    wanted: NDArray[np.bool_],
    groups: Groups,
    options: tuple[Any, Any, Any],
) -> Retrieval:
    if k < 1:
        raise DataError(f"{measure}@{k}: expected at least the first 1")
    prompts, average, bootstrap = options
    kept = (groups.sizes > k) & (_count(wanted, groups) < groups.sizes)
    if not kept.any():
        raise NothingDecidedError(
            f"{measure}@{k}: none of {len(kept)} choices has more than {k} images and a decision"
        )
    labels = None if prompts is None else np.asarray(prompts)[kept]
    credit = _hit_chance(k, values, wanted, groups)[kept]
    blank = _hit_chance(k, np.zeros(len(values)), wanted, groups)[kept]
    return Retrieval(
        measure=measure,
        k=k,
        estimate=share_estimate(credit, labels, average=average, bootstrap=bootstrap),
        chance=plain_mean(blank, labels, average=average),
        left_out=int((~kept).sum()),
    )


def _hit_chance(
    k: int, values: NDArray[np.float64], wanted: NDArray[np.bool_], groups: Groups
) -> NDArray[np.float64]:
    """Chance of every group that one of its wanted images is among its k highest values."""
    # descending within each group; the sort is by value first and by group last
    order = np.lexsort((-values, groups.owner))
    border = values[order][groups.starts + np.minimum(k, groups.sizes) - 1][groups.owner]
    above, level = values > border, values == border
    sure = _count(above & wanted, groups) > 0
    tied, good = _count(level, groups), _count(level & wanted, groups)
    places = k - _count(above, groups)
    missed = np.ones(len(tied))
    for drawn in range(int(places.max())):
        step = np.maximum(tied - good - drawn, 0) / np.maximum(tied - drawn, 1)
        missed = np.where(drawn < places, missed * step, missed)
    return np.where(sure, 1.0, 1.0 - missed)


def _count(marks: NDArray[np.bool_], groups: Groups) -> NDArray[np.int64]:
    """How many images of every group are marked."""
    return np.add.reduceat(marks.astype(np.int64), groups.starts)

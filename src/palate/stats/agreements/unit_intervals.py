"""How sure a coefficient of agreement is: resampled items, and people left out one at a time.

Every coefficient is a function of sums over items, and so are its resamples. Items that look alike
(two people said a, one said b) are one pattern: a resample draws how often each pattern comes, which
is the same as drawing items, and a thousand times faster for a million answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.agreements.units import Units
from palate.stats.intervals import Bootstrap, expanded_tail

__all__ = ["Interval", "Statistic", "interval_of"]

_BLOCK: Final = 4_000_000
_FOLDED: Final = 64

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Statistic = Callable[[Floats, Floats], Floats]
"""Values of a coefficient from sums: scalars [draws, names] and shares of values [draws, values]."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its interval; `undefined` resamples had no value and were left out."""

    value: float
    low: float
    high: float
    clusters: int
    undefined: int


def interval_of(
    units: Units,
    names: Sequence[str],
    kind: Any,
    statistic: Statistic,
    *,
    two_way: bool = False,
    bootstrap: Bootstrap | None = None,
) -> Interval:
    """Value of a statistic of sums over items, with an interval that resamples clusters of items.

    The interval is the percentile bootstrap, widened for few clusters. `two_way` stretches it around
    the value to the standard error that holds for other people too: the variance of leaving out one
    cluster at a time, plus that of leaving out one person, minus that of leaving out one answer, which
    both contain; and never less than either. Bounds are not a number for a single cluster, or where
    leaving one person out leaves nothing to compare.
    """
    bootstrap = bootstrap or Bootstrap()
    if two_way and not units.known:
        raise DataError("an interval that holds for other people needs to know who answered")
    scalars, sums = units.scalars(names), units.table(kind)
    value = float(statistic(*units.totals(names, kind))[0])
    folded, weights = _folded(units.cluster, scalars, sums)
    total = int(weights.sum())
    if total < 2 or math.isnan(value):
        return Interval(value, math.nan, math.nan, total, 0)
    drawn = np.concatenate(
        [
            statistic(*_split(draws @ folded, len(names)))
            for draws in _draws(weights, total, bootstrap)
        ]
    )
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return Interval(value, math.nan, math.nan, total, len(drawn))
    tail = expanded_tail(total, bootstrap.level)
    low, high = (float(bound) for bound in np.quantile(defined, [tail, 1 - tail]))
    if two_way:
        by_cluster = _jackknife_clusters(folded, weights, len(names), statistic, value)
        low, high = _stretched(
            units, (names, kind, statistic), (value, low, high), by_cluster, bootstrap
        )
    return Interval(value, low, high, total, len(drawn) - len(defined))


def _folded(cluster: Numbers, scalars: Floats, sums: Any) -> tuple[Floats | Any, Numbers]:
    """Sums per cluster, and where there are few columns those that differ with their numbers."""
    from scipy.sparse import csr_array, hstack

    count = int(cluster.max()) + 1
    columns = scalars.shape[1] + sums.shape[1]
    rows = np.arange(len(cluster))
    fold = csr_array((np.ones(len(cluster)), (cluster, rows)), shape=(count, len(cluster)))
    if columns > _FOLDED:
        return fold @ hstack([csr_array(scalars), sums], format="csr"), np.ones(count, np.int64)
    dense = np.concatenate([fold @ scalars, (fold @ sums).toarray()], axis=1)
    # rounded, so that the order in which equal sums were added makes no two patterns of one
    rounded = np.round(dense, 9)
    _, places, counts = np.unique(rounded, axis=0, return_index=True, return_counts=True)
    return dense[places], counts.astype(np.int64)


def _split(sums: Any, count: int) -> tuple[Floats, Floats]:
    dense = sums if isinstance(sums, np.ndarray) else sums.toarray()
    return dense[:, :count], dense[:, count:]


def _draws(weights: Numbers, total: int, bootstrap: Bootstrap) -> Iterator[Floats]:
    """How often every pattern comes among `total` clusters drawn with replacement, in blocks."""
    rng = np.random.default_rng(bootstrap.seed)
    few = len(weights) < total / 2
    step = max(1, _BLOCK // total) if not few else max(1, _BLOCK // len(weights))
    owner = np.repeat(np.arange(len(weights)), weights)
    for start in range(0, bootstrap.resamples, step):
        size = min(step, bootstrap.resamples - start)
        if few:
            yield rng.multinomial(total, weights / total, size=size).astype(np.float64)
            continue
        drawn = owner[rng.integers(0, total, size=(size, total))]
        drawn += np.arange(size)[:, None] * len(weights)
        counts = np.bincount(drawn.ravel(), minlength=size * len(weights))
        yield counts.reshape(size, len(weights)).astype(np.float64)


def _jackknife_clusters(
    folded: Any, weights: Numbers, count: int, statistic: Statistic, value: float
) -> float:
    total = int(weights.sum())
    whole = weights.astype(np.float64) @ folded
    step = max(1, _BLOCK // folded.shape[1])
    squares = 0.0
    for start in range(0, len(weights), step):
        part = slice(start, start + step)
        rows = folded[part] if isinstance(folded, np.ndarray) else folded[part].toarray()
        left = statistic(*_split(whole - rows, count))
        squares += float((weights[part] * (left - value) ** 2).sum())
    return squares * (total - 1) / total


def _stretched(
    units: Units,
    measure: tuple[Sequence[str], Literal["none", "count", "share"], Statistic],
    bounds: tuple[float, float, float],
    by_cluster: float,
    bootstrap: Bootstrap,
) -> tuple[float, float]:
    """Bounds around the value, stretched to the standard error of two ways of clustering."""
    from scipy.special import stdtrit

    names, kind, statistic = measure
    value, low, high = bounds
    whole = units.totals(names, kind)
    variances = []
    for groups in (units.person, np.arange(len(units.item))):
        found = [
            statistic(whole[0] + change, whole[1] + sums)
            for change, sums in units.changes(names, kind, groups)
        ]
        left = np.concatenate(found)
        variances.append(float(((left - value) ** 2).sum()) * (len(left) - 1) / len(left))
    by_person, by_answer = variances
    both = by_cluster + by_person - by_answer
    variance = math.nan if math.isnan(both) else max(both, by_cluster, by_person)
    clusters = int(units.cluster.max()) + 1
    tail = (1 - bootstrap.level) / 2
    quantiles = [
        -float(stdtrit(size - 1, tail)) for size in (min(clusters, units.people), clusters)
    ]
    if by_cluster > 0:
        stretch = math.sqrt(variance / by_cluster) * quantiles[0] / quantiles[1]
        low, high = value + stretch * (low - value), value + stretch * (high - value)
    else:
        low, high = (value + sign * quantiles[0] * math.sqrt(variance) for sign in (-1, 1))
    return max(low, -1.0), min(high, 1.0)

"""How sure a mean is: intervals by resampling whole prompts.

Answers about one prompt are not independent, so the unit that is drawn again is the cluster
(usually the prompt) and never the row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.codes import dense_codes
from palate.data.position import wilson
from palate.errors import DataError
from palate.stats.numbers import finite

__all__ = [
    "Average",
    "Bootstrap",
    "Column",
    "Difference",
    "Estimate",
    "cluster_codes",
    "expanded_tail",
    "mean_estimate",
    "paired",
    "paired_difference",
    "person_codes",
    "wilson",
]

Column = NDArray[Any] | Sequence[Any]
"""One value per row: a NumPy array or a list."""

Average = Literal["micro", "macro"]
RESAMPLED: Final = "bootstrap over clusters"
_MOST_RESAMPLES: Final = 1_000_000
_BLOCK: Final = 4_000_000
_MANY: Final = 20_000
_KINDS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made: their level, the number of resamples and the seed."""

    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that give no interval."""
        if not 0 < self.level < 1:
            raise DataError(f"an interval of level {self.level}, expected between 0 and 1")
        refuse_resamples(self.resamples)
        if self.seed < 0:
            raise DataError(f"a seed of {self.seed}, expected 0 or more")


def refuse_resamples(count: int) -> None:
    """Refuse resamples that are too few for an interval, or so many that they would take hours."""
    if not 100 <= count <= _MOST_RESAMPLES:
        raise DataError(f"{count:,} resamples, expected 100 to {_MOST_RESAMPLES:,} for an interval")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval, and how both were made.

    `low` and `high` are not a number where there is only one cluster. `count` is the number of
    values, `clusters` the number of independent units, `people` that of the people whom the interval
    allows for, 0 where it goes by clusters alone. `method` says how the interval was made.
    """

    value: float
    low: float
    high: float
    count: int
    clusters: int
    average: Average
    bootstrap: Bootstrap
    people: int = 0
    method: str = RESAMPLED

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; an undefined bound is None."""
        drawn = self.method == RESAMPLED
        return {
            "value": finite(self.value),
            "low": finite(self.low),
            "high": finite(self.high),
            "count": self.count,
            "clusters": self.clusters,
            "average": self.average,
            "level": self.bootstrap.level,
            "people": self.people,
            "method": self.method,
            "resamples": self.bootstrap.resamples if drawn else None,
            "seed": self.bootstrap.seed if drawn else None,
        }


def mean_estimate(
    values: Column,
    clusters: Column | None = None,
    *,
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
    drawn: bool = True,
) -> Estimate:
    """Mean of values with an interval that resamples clusters.

    `values` has one number per row and `clusters` one label per row (None: every row is its own).
    `micro` averages all rows; `macro` averages within each cluster first and then the clusters.
    The interval is the percentile bootstrap, widened for few clusters as Hesterberg (2015, "What
    teachers should know about the bootstrap", section 5.1) describes. The order of the rows does
    not matter. Without `drawn` the bounds are not a number, for those who put others in their place. Raises
    `DataError` for no rows, or for values that are no numbers.
    """
    bootstrap = bootstrap or Bootstrap()
    rows = np.asarray(values, dtype=np.float64)
    if not len(rows):
        raise DataError("there is nothing to average: 0 rows")
    if not np.isfinite(rows).all():
        raise DataError("a value to average is not a finite number")
    codes = cluster_codes(clusters, len(rows))
    sums: Any = np.bincount(codes, weights=rows)
    counts: Any = np.bincount(codes).astype(np.float64)
    if average == "macro":
        sums, counts = sums / counts, np.ones(len(counts))
    low, high = _percentiles(sums, counts, bootstrap) if drawn else (math.nan, math.nan)
    return Estimate(
        value=float(sums.sum() / counts.sum()),
        low=low,
        high=high,
        count=len(rows),
        clusters=len(sums),
        average=average,
        bootstrap=bootstrap,
    )


def cluster_codes(clusters: Column | None, count: int) -> NDArray[np.int64]:
    """Number the labels of clusters from 0 in sorted order; None gives every row its own."""
    if clusters is None:
        return np.arange(count, dtype=np.int64)
    labels = np.asarray(clusters)
    if labels.shape != (count,):
        raise DataError(f"{count} values but clusters of shape {labels.shape}")
    return _numbered(labels)[1]


def person_codes(raters: Column | None, count: int) -> tuple[NDArray[np.int64], list[Any]]:
    """Number people from 0, and every unknown one as another after them; and the labels of the known.

    Unknown is None, an empty text, not a number, or a number below 0.
    """
    if raters is None:
        return np.arange(count, dtype=np.int64), []
    labels = np.asarray(raters)
    if labels.shape != (count,):
        raise DataError(f"{count} values but people of shape {labels.shape}")
    if labels.dtype.kind in "iuf":
        named = labels >= 0
    else:
        # `x == x` is false for a number that is none
        named = np.array([x is not None and x != "" and x == x for x in labels.tolist()], bool)  # noqa: PLR0124
    codes = np.empty(count, np.int64)
    known, codes[named] = _numbered(labels[named])
    codes[~named] = len(known) + np.arange(int((~named).sum()))
    return codes, known


def _numbered(labels: NDArray[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Number labels from 0 in sorted order; as `np.unique`, without sorting a million of them."""
    if labels.dtype.kind in "iu" and len(labels):
        codes = dense_codes(labels)
        known = np.empty(int(codes.max()) + 1, labels.dtype)
        known[codes] = labels
        return known.tolist(), codes
    if labels.dtype.kind in "OU":
        names = labels.tolist()
        different = sorted(set(names))
        places = {name: place for place, name in enumerate(different)}
        return different, np.fromiter(map(places.__getitem__, names), np.int64, len(names))
    found, codes = np.unique(labels, return_inverse=True)
    return found.tolist(), codes.astype(np.int64)


def _percentiles(
    sums: NDArray[np.float64], counts: NDArray[np.float64], bootstrap: Bootstrap
) -> tuple[float, float]:
    total = len(sums)
    if total < 2:
        return math.nan, math.nan
    means = _means_of_kinds(sums, counts, bootstrap) if total > _MANY else None
    if means is None:
        means = np.concatenate(
            [sums[d].sum(axis=1) / counts[d].sum(axis=1) for d in _draws(total, bootstrap)]
        )
    tail = expanded_tail(total, bootstrap.level)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _means_of_kinds(
    sums: NDArray[np.float64], counts: NDArray[np.float64], bootstrap: Bootstrap
) -> NDArray[np.float64] | None:
    """Means of resamples of many clusters of few kinds; None where there are many kinds.

    How often each kind of cluster is drawn is multinomial, which is the same as drawing the clusters one
    by one, and a thousand times quicker.
    """
    # a sum and a count as one number, so that equal pairs are found without sorting rows
    kinds, numbers = np.unique(sums + 1j * counts, return_counts=True)
    if len(kinds) > _KINDS:
        return None
    rng = np.random.default_rng(bootstrap.seed)
    drawn = rng.multinomial(len(sums), numbers / len(sums), size=bootstrap.resamples)
    means: NDArray[np.float64] = (drawn @ kinds.real) / (drawn @ kinds.imag)
    return means


def _draws(total: int, bootstrap: Bootstrap) -> Any:
    rng = np.random.default_rng(bootstrap.seed)
    left = bootstrap.resamples
    block = max(1, _BLOCK // total)
    while left > 0:
        yield rng.integers(0, total, size=(min(block, left), total))
        left -= block


def expanded_tail(total: int, level: float) -> float:
    """Tail probability whose normal quantile is the t quantile of `total` clusters."""
    from scipy.special import ndtr, stdtrit

    quantile = stdtrit(total - 1, (1 - level) / 2)
    return float(ndtr(quantile * math.sqrt(total / (total - 1))))


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of a, mean of b, and mean of a - b over pairs with its interval."""

    mean_a: float
    mean_b: float
    estimate: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"mean_a": self.mean_a, "mean_b": self.mean_b, "a_minus_b": self.estimate.to_dict()}


def paired_difference(
    a: Column,
    b: Column,
    clusters: Column | None = None,
    *,
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Difference:
    """Difference a - b of paired values, with an interval that resamples clusters.

    An interval that excludes zero means that a and b differ by more than the choice of prompts
    explains. `a[i]` and `b[i]` belong together.
    """
    left, right = paired(a, b)
    options = {"average": average, "bootstrap": bootstrap}
    difference = mean_estimate(left - right, clusters, **options)  # type: ignore[arg-type]
    codes = cluster_codes(clusters, len(left))
    return Difference(_mean(left, codes, average), _mean(right, codes, average), difference)


def paired(a: Column, b: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two columns that belong together, row by row. Raises `DataError` where they differ in length."""
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise DataError(f"pairs of {left.shape} and {right.shape} values do not match")
    return left, right


def _mean(values: NDArray[np.float64], codes: NDArray[np.int64], average: Average) -> float:
    if average == "micro":
        return float(values.mean())
    return float((np.bincount(codes, weights=values) / np.bincount(codes)).mean())

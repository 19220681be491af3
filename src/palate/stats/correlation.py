"""How well a score orders images as people do: within each choice or prompt, and over all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.duels import pair_index
from palate.errors import DataError
from palate.stats.intervals import (
    Average,
    Bootstrap,
    Column,
    Estimate,
    cluster_codes,
)
from palate.stats.two_way.estimates import signed_estimate

__all__ = [
    "Correlation",
    "Measure",
    "OverallCorrelation",
    "correlation_by_prompt",
    "kendall",
    "overall_correlation",
]

Measure = Literal["kendall", "spearman", "pearson"]
Floats = NDArray[np.float64]
_NAMES: Final = {"kendall": "Kendall tau-b", "spearman": "Spearman rho", "pearson": "Pearson r"}


@dataclass(frozen=True, slots=True)
class Correlation:
    """A mean rank correlation with its interval; `left_out` choices have none."""

    measure: str
    estimate: Estimate
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"measure": self.measure, **self.estimate.to_dict(), "left_out": self.left_out}


def kendall(
    scores: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
    people: Column | None = None,
) -> Correlation:
    """Mean of Kendall's tau-b between scores and answers over the choices.

    1 is the person's order, -1 the reverse (Kendall 1945, ties in the denominator). `scores` and
    `ranks` are flat and `offsets` cuts them into choices; higher scores and lower ranks are
    better. Choices whose ranks or scores are all equal have no tau and are left out. `prompts` and
    `people` label the clusters of the interval, which is that of `signed_estimate`.
    """
    values, places = np.asarray(scores, dtype=np.float64), np.asarray(ranks)
    bounds = np.asarray(offsets, dtype=np.int64)
    if values.shape != places.shape or bounds[-1] != len(values):
        raise DataError(f"{values.shape} scores, {places.shape} ranks and the offsets do not match")
    if np.isnan(values).any():
        raise DataError("a score is not a number")
    tau = _tau_of_groups(values, -places.astype(np.float64), bounds)
    return _mean_of(tau, (prompts, people), "kendall", average, bootstrap)


def correlation_by_prompt(
    scores: Column,
    targets: Column,
    prompts: Column,
    *,
    measure: Measure = "kendall",
    bootstrap: Bootstrap | None = None,
) -> Correlation:
    """Mean over prompts of the correlation of scores and targets within each prompt.

    One entry per image: its score, its target (a mean opinion, another scorer's score, -rank; higher is
    better in both) and its prompt. Every prompt counts alike, and the interval resamples prompts. Ties
    are as in `overall_correlation`. Prompts of one image, or whose scores or targets are all equal, have
    no order: they are left out and counted. Raises `DataError` where none is left.
    """
    values, wanted = _two_columns(scores, targets)
    codes = cluster_codes(prompts, len(values))
    order = np.lexsort((wanted, values, codes))
    values, wanted, codes = values[order], wanted[order], codes[order]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    if measure == "kendall":
        found = _tau_of_groups(values, wanted, bounds)
    else:
        if measure == "spearman":
            values, wanted = _middle_ranks(values, codes), _middle_ranks(wanted, codes)
        found = _pearson(_moments(values, wanted, codes))
    return _mean_of(found, (None, None), measure, "micro", bootstrap)


@dataclass(frozen=True, slots=True)
class OverallCorrelation:
    """A correlation over all images, with an interval by a jackknife over prompts.

    `value` is not a number (None in JSON) where all scores or all targets are equal; so are the bounds
    for a single prompt.
    """

    measure: str
    value: float
    low: float
    high: float
    count: int
    clusters: int
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not a number is None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {
            "measure": self.measure,
            **{name: x if math.isfinite(x) else None for name, x in numbers.items()},
            "count": self.count,
            "clusters": self.clusters,
            "level": self.level,
            "method": "jackknife over clusters",
        }


def overall_correlation(
    scores: Column,
    targets: Column,
    prompts: Column | None = None,
    *,
    measure: Measure = "kendall",
    level: float = 0.95,
) -> OverallCorrelation:
    """Correlation of scores and targets over all images, across prompts, from -1 to 1.

    `kendall` is tau-b: (C - D) / sqrt((n0 - n1)(n0 - n2)) over all pairs, where n1 and n2 are the pairs
    tied in the scores and in the targets (Kendall 1945). `spearman` is the Pearson correlation of
    middle ranks. It mixes prompts, so prompts that are easier for everybody raise it: read it next to
    `correlation_by_prompt`. The interval is Student's t with the jackknife that leaves out one prompt at
    a time (None: one image), cut at -1 and 1; for Spearman it keeps the ranks among all. A million
    images take seconds.
    """
    values, wanted = _two_columns(scores, targets)
    if not 0 < level < 1:
        raise DataError(f"an interval of level {level}, expected between 0 and 1")
    codes = cluster_codes(prompts, len(values))
    order = np.lexsort((wanted, values, codes))
    values, wanted, codes = values[order], wanted[order], codes[order]
    statistic: Callable[[Floats], Floats] = _tau
    if measure == "kendall":
        whole, without = _pairs_without(values, wanted, codes)
    else:
        everywhere = np.zeros(len(values), np.int64)
        if measure == "spearman":
            values, wanted = _middle_ranks(values, everywhere), _middle_ranks(wanted, everywhere)
        parts = _raw_moments(values - values.mean(), wanted - wanted.mean(), codes)
        whole, statistic = parts.sum(axis=1, keepdims=True), _pearson_of_sums
        without = whole - parts
    value = float(statistic(whole)[0])
    low, high = _jackknifed(value, statistic(without), level)
    return OverallCorrelation(
        _NAMES[measure], value, low, high, len(values), without.shape[1], level
    )


def _two_columns(first: Column, second: Column) -> tuple[Floats, Floats]:
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise DataError(f"{left.shape} scores and {right.shape} targets do not match, or are none")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise DataError("a score or a target is not a finite number")
    return left, right


def _mean_of(
    found: Floats,
    clusters: tuple[Column | None, Column | None],
    measure: Measure,
    average: Average,
    bootstrap: Bootstrap | None,
) -> Correlation:
    kept = ~np.isnan(found)
    if not kept.any():
        raise DataError(f"none of {len(kept)} choices has an order to correlate with")
    labels = [None if column is None else np.asarray(column)[kept] for column in clusters]
    estimate = signed_estimate(found[kept], *labels, average=average, bootstrap=bootstrap)
    return Correlation(_NAMES[measure], estimate, int((~kept).sum()))


def _tau_of_groups(values: Floats, wanted: Floats, bounds: NDArray[np.int64]) -> Floats:
    """Tau-b within every group of neighbours; not a number where there is no order."""
    return _tau(_group_pairs(values, wanted, bounds))


def _group_pairs(values: Floats, wanted: Floats, bounds: NDArray[np.int64]) -> Floats:
    """Per group: concordant less discordant pairs, and pairs apart in each of the two columns."""
    sizes = np.diff(bounds)
    group, first, second = pair_index(sizes)
    left, right = bounds[group] + first, bounds[group] + second
    signs = np.sign(values[left] - values[right]), np.sign(wanted[left] - wanted[right])
    columns = (signs[0] * signs[1], signs[0] != 0, signs[1] != 0)
    sums = [np.bincount(group, weights=one, minlength=len(sizes)) for one in columns]
    return np.stack(sums).astype(np.float64)


def _tau(pairs: Floats) -> Floats:
    agree, first, second = pairs
    with np.errstate(divide="ignore", invalid="ignore"):
        found = agree / np.sqrt(first * second)
        return np.where((first > 0) & (second > 0), found, np.nan)


def _pairs_without(
    values: Floats, wanted: Floats, codes: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """The sums of `_group_pairs` over all pairs, and without each cluster (sorted by cluster)."""
    own = np.stack([_concordance(values, wanted), _apart(values), _apart(wanted)])
    whole = own.sum(axis=1, keepdims=True) / 2
    sizes = np.bincount(codes)
    if len(sizes) == len(values):
        return whole, whole - own
    taken = np.stack([np.bincount(codes, weights=one) for one in own])
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    return whole, whole - taken + _group_pairs(values, wanted, bounds)


def _concordance(values: Floats, wanted: Floats) -> Floats:
    """With how many others each image is in the same order in both columns, less the reverse."""
    left = np.unique(values, return_inverse=True)[1].astype(np.int64)
    right = np.unique(wanted, return_inverse=True)[1].astype(np.int64)
    both = _both_smaller(left, right)
    everywhere = np.zeros(len(left), np.int64)
    less_left, like_left = _smaller_and_equal(left, everywhere)
    less_right, like_right = _smaller_and_equal(right, everywhere)
    # equal in one column: how many of these are smaller, or equal, in the other
    less_left_tied, alike = _smaller_and_equal(left, right)
    less_right_tied, _ = _smaller_and_equal(right, left)
    smaller_larger = less_left - both - less_left_tied
    larger_smaller = less_right - both - less_right_tied
    larger_left = len(left) - less_left - like_left
    larger = larger_left - larger_smaller - (like_right - alike - less_left_tied)
    return np.asarray(both + larger - smaller_larger - larger_smaller, dtype=np.float64)


def _smaller_and_equal(
    values: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of its group are smaller than each value, and how many equal, itself among them."""
    width = int(values.max()) + 1
    _, which, counts = np.unique(groups * width + values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    begin = np.concatenate([[0], np.cumsum(np.bincount(groups))])[groups]
    return ends[which] - counts[which] - begin, counts[which]


def _apart(values: Floats) -> Floats:
    """How many others have another value."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (len(values) - counts[codes]).astype(np.float64)


def _both_smaller(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many others are smaller in both columns, for each: a merge sort, all blocks at a time.

    Ordered by `first` (ties: the larger `second` before), everybody smaller in both stands before. The
    places are then listed by `second` (ties: the later place before) and parted by the bits of their
    place, the highest first: at each bit, an entry of the upper half counts those of the lower half of
    its block that are listed before it.
    """
    count = len(first)
    by_first = np.lexsort((-second, first))
    ordered = second[by_first]
    # 32 bits, where they do, keep twice as many places in the cache
    kind: Any = np.int32 if count < 2**30 else np.int64
    listed: Any = np.lexsort((-np.arange(count), ordered)).astype(kind)
    here, smaller = np.arange(count, dtype=kind), np.zeros(count, kind)
    for bit in reversed(range(max(1, (count - 1).bit_length()))):
        upper = (listed >> bit) & 1 == 1
        starts = (listed >> (bit + 1)) << (bit + 1)
        # entries of the lower half so far, in the whole list and then in the block
        lower = np.cumsum(~upper, dtype=kind)
        before = lower - lower[starts] + ~upper[starts]
        smaller[listed[upper]] += before[upper]
        middle = np.minimum(starts + kind(1 << bit), kind(count))
        place = np.where(upper, middle + here - starts - before, starts + before - 1)
        parted = np.empty_like(listed)
        parted[place] = listed
        listed = parted
    found = np.empty(count, np.int64)
    found[by_first] = smaller
    return found


def _middle_ranks(values: Floats, codes: NDArray[np.int64]) -> Floats:
    """Rank of every value among those of its group, from 1; equal values share the middle rank."""
    order = np.lexsort((values, codes))
    group, ordered = codes[order], values[order]
    new = (np.diff(group, prepend=-1) != 0) | (np.diff(ordered, prepend=np.nan) != 0)
    run = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(values)))
    begin = np.searchsorted(group, group)
    ranks = np.empty(len(values))
    ranks[order] = starts[run] - begin + (lengths[run] + 1) / 2
    return ranks


def _raw_moments(values: Floats, wanted: Floats, codes: NDArray[np.int64]) -> Floats:
    """Per cluster: number, sums, sums of squares and of products."""
    ones = np.ones(len(values))
    columns = (ones, values, wanted, values**2, wanted**2, values * wanted)
    return np.stack([np.bincount(codes, weights=column) for column in columns])


def _moments(values: Floats, wanted: Floats, codes: NDArray[np.int64]) -> Floats:
    """Per group: sums of squares and products of distances from the group's means."""
    counts = np.bincount(codes)
    centred = [
        column - (np.bincount(codes, weights=column) / counts)[codes] for column in (values, wanted)
    ]
    # what rounding leaves of a constant column is no spread
    centred = [
        np.where(np.abs(one) <= 1e-13 * np.abs(column), 0.0, one)
        for one, column in zip(centred, (values, wanted), strict=True)
    ]
    left, right = centred
    columns = (left**2, right**2, left * right)
    return np.stack([np.bincount(codes, weights=column) for column in columns])


def _pearson(moments: Floats) -> Floats:
    first, second, product = moments
    with np.errstate(divide="ignore", invalid="ignore"):
        found = product / np.sqrt(first * second)
    return np.where((first > 0) & (second > 0), np.clip(found, -1, 1), np.nan)


def _pearson_of_sums(sums: Floats) -> Floats:
    count, left, right, lefts, rights, products = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        spreads = lefts - left**2 / count, rights - right**2 / count
        flat = [
            np.where(one <= 1e-12 * total, 0.0, one)
            for one, total in zip(spreads, (lefts, rights), strict=True)
        ]
        return _pearson(np.stack([*flat, products - left * right / count]))


def _jackknifed(value: float, left: Floats, level: float) -> tuple[float, float]:
    """Interval of Student's t from the values without each cluster."""
    from scipy.special import stdtrit

    count = len(left)
    if count < 2 or math.isnan(value) or np.isnan(left).any():
        return math.nan, math.nan
    error = math.sqrt(float(((left - value) ** 2).sum()) * (count - 1) / count)
    half = float(stdtrit(count - 1, (1 + level) / 2)) * error
    return max(-1.0, value - half), min(1.0, value + half)

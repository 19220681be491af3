"""How far probabilities can be believed: reliability curves, calibration errors and the Brier score.

A probability of 0.7 is calibrated if what it is about happens in 70 % of such cases. Rows about one prompt
are not independent, so that every interval allows for clusters.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.intervals import Column, cluster_codes

Floats = NDArray[np.float64]
Bins = Literal["count", "width"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval; the bounds are None where there is only one cluster."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of nearly the same probability: the mean that was said, and what happened, with its interval.

    The interval is Wilson's, for as many independent rows as the clusters are worth, with the t quantile.
    """

    said: float
    happened: Interval
    lowest: float
    highest: float
    count: int
    clusters: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability curve and its errors.

    `error` is the expected calibration error (Naeini et al. 2015): the mean of |said - happened| over bins,
    by their number of rows. It is above 0 by chance even for perfect probabilities; `error_if_calibrated` is
    what chance alone would give, by the clusters. `squared_error` is the mean of the squared gaps less their
    variance (Bröcker 2012; Kumar et al. 2019), which is 0 on average for perfect probabilities and so can be
    below. Both are None where a bin has a single cluster.
    """

    bins: tuple[Bin, ...]
    error: float
    error_if_calibrated: float | None
    squared_error: float | None
    by: Bins
    level: float
    count: int
    clusters: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def reliability(
    probabilities: Column,
    outcomes: Column,
    clusters: Column | None = None,
    *,
    bins: int = 10,
    by: Bins = "count",
    level: float = 0.95,
) -> Reliability:
    """Compare probabilities with what happened, bin by bin.

    `outcomes` are from 0 to 1: a tie is one half. `count` makes bins of about as many rows each, `width` bins
    of equal width from 0 to 1. Equal probabilities are always in one bin, so that the order of the rows does
    not matter; bins without rows do not exist. For images of choices give every image's share and whether it
    was put first: both sides of a duel are then in, and swapping them changes nothing.
    """
    said, happened = _checked(probabilities, outcomes)
    codes = cluster_codes(clusters, len(said))
    place = (
        _by_count(said, bins) if by == "count" else np.minimum((said * bins).astype(int), bins - 1)
    )
    place = (np.cumsum(np.bincount(place) > 0) - 1)[place]
    counts = np.bincount(place)
    means = [np.bincount(place, weights=column) / counts for column in (said, happened)]
    gap = means[1] - means[0]
    members, variance = _cluster_variance(happened - said - gap[place], place, codes, counts)
    noise = _cluster_variance(happened - means[1][place], place, codes, counts)[1]
    weight = counts / len(said)
    known = bool((members > 1).all())
    # the mean of |x| for a normal x around 0 is its deviation times √(2 / π)
    chance = float((weight * np.sqrt(variance)).sum() * math.sqrt(2 / math.pi)) if known else None
    return Reliability(
        bins=tuple(
            Bin(
                said=float(means[0][k]),
                happened=_wilson(float(means[1][k]), float(noise[k]), int(members[k]), level),
                lowest=float(said[place == k].min()),
                highest=float(said[place == k].max()),
                count=int(counts[k]),
                clusters=int(members[k]),
            )
            for k in range(len(counts))
        ),
        error=float((weight * np.abs(gap)).sum()),
        error_if_calibrated=chance,
        squared_error=float((weight * (gap**2 - variance)).sum()) if known else None,
        by=by,
        level=level,
        count=len(said),
        clusters=int((np.bincount(codes) > 0).sum()),
    )


def brier(
    probabilities: Column, outcomes: Column, clusters: Column | None = None, *, level: float = 0.95
) -> Interval:
    """Mean squared difference between a probability and what happened (Brier 1950); lower is better.

    0 is perfect, and always saying one half gives 0.25 where there are no ties. Rows are events: for choices
    give the share of every image, so that a duel counts as it does by one side alone. Brier's own sum over
    the images of a choice is this mean times the number of images.
    """
    said, happened = _checked(probabilities, outcomes)
    return cluster_mean((said - happened) ** 2, cluster_codes(clusters, len(said)), level)


def cluster_mean(values: Floats, codes: NDArray[np.int64], level: float = 0.95) -> Interval:
    """Mean of rows with the t interval of its linearised cluster variance, G / (G - 1) for G clusters.

    `codes` numbers the cluster of every row. Quicker than a bootstrap, and the same for many clusters.
    """
    from scipy.special import stdtrit

    mean = float(values.mean())
    everything = np.zeros(len(values), dtype=np.int64)
    counts = np.array([len(values)])
    members, variance = _cluster_variance(values - mean, everything, codes, counts)
    total = int(members[0])
    if total < 2:
        return Interval(mean, None, None)
    half = float(stdtrit(total - 1, (1 + level) / 2)) * math.sqrt(float(variance[0]))
    return Interval(mean, mean - half, mean + half)


def _checked(probabilities: Column, outcomes: Column) -> tuple[Floats, Floats]:
    said = np.asarray(probabilities, dtype=np.float64)
    happened = np.asarray(outcomes, dtype=np.float64)
    if said.shape != happened.shape or said.ndim != 1 or not len(said):
        raise DataError(f"{said.shape} probabilities do not match {happened.shape} outcomes")
    for name, column in (("a probability", said), ("an outcome", happened)):
        if not ((column >= 0) & (column <= 1)).all():
            raise DataError(f"{name} is not between 0 and 1")
    return said, happened


def _by_count(said: Floats, bins: int) -> NDArray[np.int64]:
    """Bin of every row by the middle of its place in the order; equal values share one."""
    _, where, counts = np.unique(said, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    found: NDArray[np.int64] = np.floor(bins * middle / len(said)).astype(np.int64)[where]
    return found


def _cluster_variance(
    residuals: Floats,
    place: NDArray[Any],
    codes: NDArray[np.int64],
    counts: NDArray[Any],
) -> tuple[NDArray[np.int64], Floats]:
    """Number of clusters in each bin, and the variance of the bin's mean; 0 for a single cluster."""
    total = int(codes.max()) + 1
    where = place * total + codes
    if len(counts) * total <= 8 * len(where):  # a table of all cells is quicker than sorting
        cells = np.flatnonzero(np.bincount(where))
        sums = np.bincount(where, weights=residuals)[cells]
    else:
        cells, where = np.unique(where, return_inverse=True)
        sums = np.bincount(where, weights=residuals)
    owner = cells // total
    members = np.bincount(owner, minlength=len(counts))
    squares = np.bincount(owner, weights=sums**2, minlength=len(counts))
    factor = np.where(members > 1, members / np.maximum(members - 1, 1), 0)
    return members.astype(np.int64), squares / counts.astype(np.float64) ** 2 * factor


def _wilson(share: float, variance: float, clusters: int, level: float) -> Interval:
    """Wilson's interval for as many rows as give the variance; a share of 0 or 1 has one row a cluster."""
    from scipy.special import stdtrit

    if clusters < 2:
        return Interval(share, None, None)
    size = share * (1 - share) / variance if variance > 0 and 0 < share < 1 else float(clusters)
    square = float(stdtrit(clusters - 1, (1 + level) / 2)) ** 2
    middle = (share + square / (2 * size)) / (1 + square / size)
    spread = math.sqrt(square * (share * (1 - share) / size + square / (4 * size**2)))
    half = spread / (1 + square / size)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))

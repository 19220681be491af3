"""Where an image stands among the images of its prompt: computed from scores, never stored with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from palate.scoring.units import softmax_factor

Floats = NDArray[np.float64]
_AT_ONCE = 65_536
_GROUP = ("prompt", "scorer", "dimension", "fingerprint")


@dataclass(frozen=True, slots=True)
class Standing:
    """One entry per row of a table of scores; NaN (0 for ``rank``) where a row has no value.

    ``images`` counts the scored images of the same prompt and scorer. ``rank`` is 1 for the best; equal scores share
    the better rank. ``percentile`` is the share of the other images of the group that score lower, ties counting half,
    times 100; NaN for an image that is alone. ``share`` is the softmax over the group, which adds up to 1: how often
    people would pick the image, as the scorer's paper reads its scores. It is NaN for units without that reading.
    """

    images: NDArray[np.int32]
    rank: NDArray[np.int32]
    percentile: Floats
    share: Floats


def standing(scores: Any) -> Standing:
    """Compare each score with the others of the same prompt, scorer and dimension.

    Scores of different prompts do not compare, so nothing here goes beyond a prompt.
    """
    values = scores["value"].to_numpy(zero_copy_only=False).astype(np.float64)
    units = scores["unit"].combine_chunks().dictionary_encode()
    factors = [factor_of(unit) for unit in units.dictionary.to_pylist()]
    groups = np.zeros(len(values), dtype=np.int64)
    for name in _GROUP:
        column = scores[name].combine_chunks().dictionary_encode()
        pairs = groups * (len(column.dictionary) + 1) + column.indices.to_numpy()
        groups = np.unique(pairs, return_inverse=True)[1]
    codes = units.indices.to_numpy().astype(np.uint8)
    return stand(groups.astype(np.uint64), values, codes, factors)


def stand(
    groups: NDArray[np.uint64],
    values: Float[NDArray[Any], " rows"],
    units: UInt8[NDArray[Any], " rows"],
    factors: Sequence[float],
) -> Standing:
    """Compare the values of each group; ``factors`` go before the softmax, by unit (see :func:`factor_of`).

    A million rows take a second and about 60 bytes each: they are sorted by group and value, where those below a row,
    its equals and its group are runs, and then gone through some whole groups at a time.
    """
    count = len(values)
    images, rank = np.zeros(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    found = Standing(images, rank, np.full(count, np.nan), np.full(count, np.nan))
    order = np.lexsort((values, groups))
    order = order[np.isfinite(values[order])]
    start, size = 0, _AT_ONCE
    while start < len(order):
        places = order[start : start + size]
        group = groups[places]
        whole = len(places)
        if start + whole < len(order):  # the last group may go on
            whole = int(np.searchsorted(group == group[-1], v=True))
        if whole:
            places = places[:whole]
            times = np.asarray(factors)[units[places]]
            _stand_sorted(places, group[:whole], values[places], times, found)
        start, size = start + whole, _AT_ONCE if whole else 2 * size
    return found


def _stand_sorted(
    places: NDArray[np.int64],
    group: NDArray[np.uint64],
    value: Floats,
    factor: Floats,
    out: Standing,
) -> None:
    """Write the standing of whole groups, which come sorted by group and value, to their places."""
    new = np.r_[True, group[1:] != group[:-1]]
    first, size = _runs(new)
    start, ties = _runs(new | np.r_[True, value[1:] != value[:-1]])
    below = start - first
    out.images[places], out.rank[places] = size, size - below - ties + 1
    with np.errstate(invalid="ignore"):  # an image that is alone has no percentile: 0 / 0
        out.percentile[places] = 100 * (below + (ties - 1) / 2) / (size - 1)
    powers = np.exp(factor * (value - value[first + size - 1]))
    sums = np.add.reduceat(powers, np.flatnonzero(new))
    out.share[places] = powers / np.repeat(sums, size[new])


def _runs(new: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give for each place where its run starts and how long it is."""
    starts = np.flatnonzero(new)
    lengths = np.diff(np.r_[starts, len(new)])
    return np.repeat(starts, lengths), np.repeat(lengths, lengths)


def factor_of(unit: str) -> float:
    """Give what a score is multiplied by before the softmax; NaN, and no share, where that means nothing."""
    factor = softmax_factor(unit)
    return np.nan if factor is None else factor

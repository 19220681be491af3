"""Where an image stands among the images of its prompt: computed from scores, never stored with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.scoring.units import softmax_factor

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Standing:
    """One entry per row of a table of scores; NaN (0 for ``rank``) where a row has no value.

    ``images`` counts the scored images of the same prompt and scorer. ``rank`` is 1 for the best; equal scores share
    the better rank. ``percentile`` is the share of the other images of the group that score lower, ties counting half,
    times 100; NaN for an image that is alone. ``share`` is the softmax over the group, which adds up to 1: how often
    people would pick the image, as the scorer's paper reads its scores. It is NaN for units without that reading.
    """

    images: NDArray[np.int64]
    rank: NDArray[np.int64]
    percentile: Floats
    share: Floats


def standing(scores: Any) -> Standing:
    """Compare each score with the others of the same prompt, scorer and dimension.

    Scores of different prompts do not compare, so nothing here goes beyond a prompt.
    """
    values = scores["value"].to_numpy(zero_copy_only=False).astype(np.float64)
    units = scores["unit"].to_pylist()
    columns = ("prompt", "scorer", "dimension", "fingerprint")
    keys = list(zip(*(scores[name].to_pylist() for name in columns), strict=True))
    groups: dict[Any, list[int]] = {}
    for place, key in enumerate(keys):
        if np.isfinite(values[place]):
            groups.setdefault(key, []).append(place)
    count = len(values)
    images, rank = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    percentile, share = np.full(count, np.nan), np.full(count, np.nan)
    for places in groups.values():
        here = values[places]
        images[places] = len(here)
        ordered = np.sort(here)
        below = np.searchsorted(ordered, here, side="left")
        above = len(here) - np.searchsorted(ordered, here, side="right")
        rank[places] = above + 1
        if len(here) > 1:
            ties = len(here) - below - above - 1
            percentile[places] = 100 * (below + ties / 2) / (len(here) - 1)
        share[places] = _softmax(here, softmax_factor(units[places[0]]))
    return Standing(images, rank, percentile, share)


def _softmax(values: Floats, factor: float | None) -> Floats:
    if factor is None:
        return np.full(len(values), np.nan)
    powers = np.exp(factor * (values - values.max()))
    return np.asarray(powers / powers.sum())

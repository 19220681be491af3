"""Find images that look nearly the same by 64 bits each.

The hash is that of Zauner ("Implementation and Benchmarking of Perceptual Image Hash Functions",
2010) with two changes. Grey, 32 × 32 pixels, the discrete cosine transform, and one bit for each of
64 low frequencies stay. **Which frequencies**: the 64 nearest to the constant one, the constant one
left out, and no square block: the lowest move least when an image is scaled or compressed.
**Which cut**: 0 and no median, so that a bit does not depend on the other bits; brightness and
contrast leave the sign of a frequency as it is. The cut is really 1, three times the noise that
rounding greys to 8 bits makes: every second frequency of a symmetric picture is 0, and its sign would
be a coin toss.

An image without structure (all black, all white) has no hash: every such image would be near every
other. A mirrored image is not near: half of the horizontal frequencies change their sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from palate.errors import DataError

BITS: Final = 64
NEAR: Final = 3
"""Images whose hashes differ in at most this many bits are near."""

_SIDE: Final = 32
_FLAT: Final = 2.0  # standard deviation of the greys, of 255
_CUT: Final = 1.0
_BANDS: Final = 4


def _frequencies() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the 64 lowest frequencies, without the constant one."""
    rows, columns = np.indices((_SIDE, _SIDE)).reshape(2, -1)
    order = np.lexsort((columns, rows, rows**2 + columns**2))[1 : BITS + 1]
    return rows[order].astype(np.int64), columns[order].astype(np.int64)


_ROWS, _COLUMNS = _frequencies()
_WEIGHTS: Final = np.uint64(1) << np.arange(BITS, dtype=np.uint64)


def perceptual_hash(image: PIL.Image.Image) -> int | None:
    """Hash a picture into 64 bits, as a number; None for one without structure.

    >>> perceptual_hash(PIL.Image.new("RGB", (8, 8), "black")) is None
    True
    """
    small = image.convert("L").resize((_SIDE, _SIDE), PIL.Image.Resampling.LANCZOS)
    return hash_greys(np.asarray(small, dtype=np.float64))


def hash_greys(greys: NDArray[np.float64]) -> int | None:
    """Hash 32 × 32 greys from 0 to 255 into 64 bits; None where they hardly differ."""
    from scipy.fft import dctn

    if greys.std() < _FLAT:
        return None
    bits = dctn(greys, norm="ortho")[_ROWS, _COLUMNS] > _CUT
    return int((bits * _WEIGHTS).sum(dtype=np.uint64))


def near_pairs(
    hashes: NDArray[np.uint64],
    distance: int = NEAR,
    others: NDArray[np.uint64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find every pair of hashes that differ in at most `distance` bits.

    Returns the places of the pairs, one a row (the lower first, sorted), and their distances. With
    `others` the pairs are between the two sets. Exact, and without comparing all pairs: of 64 bits
    in four bands of 16, a pair that differs in three bits has an equal band (multi-index hashing,
    Norouzi, Punjani and Fleet 2012). A larger distance takes more and narrower bands. Equal hashes
    are pairs too: where there may be many, give every hash once.
    """
    if not 0 <= distance < BITS // 2:
        raise DataError(f"a distance of {distance} bits is not between 0 and {BITS // 2 - 1}")
    count = max(_BANDS, distance + 1)
    edges = np.linspace(0, BITS, count + 1).astype(np.int64)
    masks = [_mask(low, high) for low, high in pairwise(edges.tolist())]
    pairs, distances = [], []
    for number, mask in enumerate(masks):
        for left, right in _same_band(hashes, others, mask):
            differ = hashes[left] ^ (hashes if others is None else others)[right]
            far = np.bitwise_count(differ).astype(np.int64)
            keep = far <= distance
            # a pair with several equal bands is taken at the first of them
            for earlier in masks[:number]:
                keep &= (differ & earlier) != 0
            pairs.append(np.stack([left[keep], right[keep]], axis=1))
            distances.append(far[keep])
    if not pairs:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    found, far = np.concatenate(pairs), np.concatenate(distances)
    if others is None:
        found = np.sort(found, axis=1)
    order = np.lexsort((found[:, 1], found[:, 0]))
    return found[order], far[order]


def _mask(low: int, high: int) -> np.uint64:
    return np.uint64((1 << high) - (1 << low))


def _same_band(
    hashes: NDArray[np.uint64], others: NDArray[np.uint64] | None, mask: np.uint64
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of places whose hashes are equal under the mask, in rounds of at most one per hash."""
    band = hashes & mask
    order = np.argsort(band, kind="stable")
    ordered = band[order]
    if others is None:
        partners, low = order, np.arange(1, len(order) + 1)
        high = np.searchsorted(ordered, ordered, side="right")
    else:
        other = others & mask
        partners = np.argsort(other, kind="stable")
        low = np.searchsorted(other[partners], ordered, side="left")
        high = np.searchsorted(other[partners], ordered, side="right")
    while len(order):
        open_ = low < high
        order, low, high = order[open_], low[open_], high[open_]
        if len(order):
            yield order, partners[low]
        low = low + 1

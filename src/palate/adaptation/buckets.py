"""Shapes of about one area, so that pictures that are not square lose little at their edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

RATIOS: Final = ((1, 1), (4, 5), (3, 4), (2, 3), (9, 16), (1, 2))
"""Short to long side of the shapes; each lies and stands."""


@runtime_checkable
class HasRatio(Protocol):
    """A picture that knows its shape."""

    def ratio(self) -> float:
        """Give width / height."""


def bucket_sizes(side: int, step: int) -> list[tuple[int, int]]:
    """List shapes (height, width) with about the area of a square of this side, the square first.

    Every side is a multiple of ``step``; shapes that this makes equal come once.

    >>> bucket_sizes(512, 64)[:4]
    [(512, 512), (448, 576), (576, 448), (448, 640)]
    """
    found = []
    for short, long in RATIOS:
        low = max(step, round(side * math.sqrt(short / long) / step) * step)
        high = max(step, round(side * math.sqrt(long / short) / step) * step)
        found += [(low, high), (high, low)]
    return list(dict.fromkeys(found))


def nearest_shapes(
    files: Sequence[HasRatio], sizes: Sequence[tuple[int, int]]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Give for each picture which shape is nearest to its own, by the logarithm of width / height."""
    if len(sizes) == 1:
        return np.zeros(len(files), dtype=np.int64)
    shapes = np.log([width / height for height, width in sizes])
    own = np.log([file.ratio() for file in files])
    nearest: np.ndarray[Any, np.dtype[np.int64]] = np.abs(own[:, None] - shapes).argmin(axis=1)
    return nearest.astype(np.int64)

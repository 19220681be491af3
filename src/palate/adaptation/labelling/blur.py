"""Two tests for pictures without an edge: the one that HPS published, and one that looks both ways.

Neither measures blur in the photographer's sense: both find pictures whose neighbouring pixels
never differ by 10 levels of 255, which is what a flat or very soft picture does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

LIMIT: Final = 10.0
"""Levels of 255 between neighbours; below it everywhere, a picture counts as blurry."""


def is_blurry_published(pixels: Pixels) -> bool:
    """Say whether a picture is blurry by HPS's released test (`process_diffusion_db.py`).

    The largest signed difference ``left - right`` between horizontal neighbours, over all rows and
    channels, is below 10. The code evaluates this twice and never looks at vertical neighbours, and
    a picture that only gets brighter to the right counts as blurry: kept as published.
    ``pixels``: height, width, 3 in 0 to 255.
    """
    values = pixels.astype(np.float64)
    return bool((values[:, :-1] - values[:, 1:]).max(initial=-np.inf) < LIMIT)


def is_blurry_both_ways(pixels: Pixels) -> bool:
    """Say whether a picture is blurry by the corrected test.

    The largest absolute difference between neighbours, horizontal and vertical, is below 10: a flip
    or a quarter turn of the picture changes nothing. ``pixels``: height, width, 3 in 0 to 255.
    """
    values = pixels.astype(np.float64)
    across = np.abs(np.diff(values, axis=1)).max(initial=0)
    down = np.abs(np.diff(values, axis=0)).max(initial=0)
    return bool(max(across, down) < LIMIT)


BLUR_TESTS: Final[dict[str, Callable[[Pixels], bool]]] = {
    "published": is_blurry_published,
    "both-ways": is_blurry_both_ways,
}
"""Blur tests by the name that a recipe uses."""

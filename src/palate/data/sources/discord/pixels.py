"""Cut collages into their images, and find the image that an upscale came from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from palate.data.images import decode_image

GRIDS: Final = {2: (1, 2), 3: (1, 3), 4: (2, 2), 6: (2, 3), 8: (2, 4), 9: (3, 3)}
"""Rows and columns of a collage of so many images, read row by row."""

_SIDE: Final = 16
# Mean differences of two 16 × 16 thumbnails, of 255. Upscales of one image differ by 1 to 6, two images
# of one prompt by 15 and more (measured on the synthetic channels of the tests).
_NEAR: Final = 12.0
_MARGIN: Final = 1.5

Thumb = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Match:
    """The best match of an image: its place, its difference, and how many times worse the second is."""

    place: int
    difference: float
    margin: float

    @property
    def sure(self) -> bool:
        """Whether the match is close, and clearly closer than the second."""
        return self.difference <= _NEAR and self.margin >= _MARGIN


def layout(images: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of a collage of so many images; None for a number without a grid.

    Two or three images stand side by side, or below each other where that makes them squarer.
    """
    grid = GRIDS.get(images)
    if grid is None:
        return None
    rows, columns = grid
    width, height = size

    def stretched(across: int, down: int) -> float:
        ratio = (width / across) / (height / down)
        return max(ratio, 1 / ratio)

    if rows != columns and stretched(rows, columns) < stretched(columns, rows):
        return columns, rows
    return rows, columns


def cut(data: bytes, name: str, images: int, max_pixels: int) -> list[PIL.Image.Image] | None:
    """Cut a collage into its images, row by row; None where it has no grid of so many images."""
    whole = decode_image(data, name, max_pixels=max_pixels)
    found = layout(images, whole.size)
    if found is None:
        return None
    rows, columns = found
    width, height = whole.width // columns, whole.height // rows
    if not width or not height:
        return None
    boxes = [(c * width, r * height) for r in range(rows) for c in range(columns)]
    return [whole.crop((x, y, x + width, y + height)) for x, y in boxes]


def png(image: PIL.Image.Image) -> bytes:
    """Encode an image as PNG, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def thumb(image: PIL.Image.Image) -> Thumb:
    """Shrink an image to 16 × 16 RGB by averaging; values from 0 to 255."""
    small: Any = image.resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def best_match(image: Thumb, candidates: list[Thumb]) -> Match | None:
    """Return the candidate that is most like an image; None if there is none."""
    if not candidates:
        return None
    differences = np.array([np.abs(image - other).mean() for other in candidates])
    order = np.argsort(differences, kind="stable")
    best = float(differences[order[0]])
    second = float(differences[order[1]]) if len(order) > 1 else float("inf")
    return Match(int(order[0]), best, second / best if best else float("inf"))

"""What can be measured of an image besides its beauty: size, shape, brightness, sharpness and the like."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from palate.data.images import open_image
from palate.data.tables import image_fault, image_path
from palate.errors import ImageError
from palate.runs import track

Floats = NDArray[np.float64]

FROM_TABLE: Final = {
    "area": "width × height, in doublings",
    "shape": "width ÷ height, in doublings: above 0 is wide, below is tall",
    "elongation": "longer ÷ shorter side, in doublings: 0 is square",
}
FROM_FILES: Final = {
    "file size": "bytes of the file, in doublings",
    "brightness": "mean grey value, from 0 to 1",
    "contrast": "standard deviation of grey values, from 0 to 0.5",
    "saturation": "mean of (largest - smallest) ÷ largest of red, green and blue, from 0 to 1",
    "sharpness": "mean difference of neighbouring grey values, in doublings",
    "JPEG quality": "quality of the quantisation tables, from 1 to 100; JPEG files only",
}

SIDE: Final = 512
"""Brightness, contrast, saturation and sharpness are measured on at most so many pixels a side."""

# The luminance table of the JPEG standard, ITU-T T.81, table K.1
_LUMINANCE: Final = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)


@dataclass(frozen=True)
class Measured:
    """Covariates of the rows of a table of images; not a number where one is not known.

    `faults` says of up to five files why they could not be measured, `unreadable` counts them all.
    """

    columns: Mapping[str, Floats]
    unreadable: int
    faults: tuple[str, ...]


def table_covariates(images: Any) -> dict[str, Floats]:
    """Area, shape and elongation of every row of a table of images, from its recorded width and height."""
    width, height = (
        np.asarray(images.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)
        for name in ("width", "height")
    )
    shape = np.log2(width / height)
    return {"area": np.log2(width * height), "shape": shape, "elongation": np.abs(shape)}


def file_covariates(images: Any, folder: Path | str, workers: int | None = None) -> Measured:
    """Measure the file of every row of a table of images, in threads.

    `folder` is where the paths of the table start. A file that does not open leaves its row without numbers,
    and is counted and named.
    """
    rows = images.select(["image", "path"]).to_pylist()
    found = np.full((len(rows), len(FROM_FILES)), np.nan)
    faults = []
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(partial(_measured, Path(folder)), rows)
        for number, (values, fault) in enumerate(track(results, "measuring", len(rows))):
            found[number] = values
            if fault is not None:
                faults.append(fault)
    columns = {name: found[:, place] for place, name in enumerate(FROM_FILES)}
    return Measured(columns, len(faults), tuple(faults[:5]))


def measure(picture: PIL.Image.Image) -> dict[str, float]:
    """Brightness, contrast, saturation and sharpness of an RGB picture.

    A picture above `SIDE` pixels is made smaller first, so that sharpness is that of the picture as seen.
    """
    if max(picture.size) > SIDE:
        picture = picture.copy()
        picture.thumbnail((SIDE, SIDE), PIL.Image.Resampling.BOX)
    pixels = np.asarray(picture, dtype=np.float32) / 255
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    top = pixels.max(axis=2)
    spread = top - pixels.min(axis=2)
    steps = [np.abs(np.diff(grey, axis=axis)) for axis in (0, 1)]
    count = sum(step.size for step in steps)
    edges = sum(float(step.sum()) for step in steps) / max(count, 1)
    found = {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "saturation": float((spread / np.maximum(top, 1 / 255)).mean()),
        # one step of 1/255 in a thousand neighbours is as even as a picture can be told to be
        "sharpness": math.log2(max(edges, 1e-3 / 255)),
    }
    # rounding noise must not pass for a difference between two even pictures
    return {name: round(value, 6) for name, value in found.items()}


def jpeg_quality(path: Path | str) -> float | None:
    """Return the quality that a JPEG file was saved with, from 1 to 100; None for other formats.

    It is the quality of the libjpeg scale whose luminance table has the nearest sum; other programs make
    other tables, for which it is an estimate.
    """
    try:
        with PIL.Image.open(path, formats=("JPEG",)) as file:
            tables: Any = getattr(file, "quantization", {})
    except (OSError, SyntaxError, ValueError):
        return None
    if 0 not in tables:
        return None
    return float(1 + np.abs(_table_sums() - sum(tables[0])).argmin())


def _table_sums() -> NDArray[np.int64]:
    """Sum of the luminance table at each quality from 1 to 100, as libjpeg scales it."""
    qualities = np.arange(1, 101)
    factors = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    tables = (np.outer(factors, np.array(_LUMINANCE)) + 50) // 100
    sums: NDArray[np.int64] = np.clip(tables, 1, 255).sum(axis=1)
    return sums


def _measured(folder: Path, row: Mapping[str, Any]) -> tuple[list[float], str | None]:
    try:
        path = image_path(row, folder)
        picture = open_image(path)
    except ImageError as fault:
        return [math.nan] * len(FROM_FILES), image_fault(fault, row, folder)
    quality = jpeg_quality(path)
    values = {
        "file size": math.log2(path.stat().st_size),
        "JPEG quality": math.nan if quality is None else quality,
        **measure(picture),
    }
    return [values[name] for name in FROM_FILES], None

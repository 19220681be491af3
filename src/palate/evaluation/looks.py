"""What a network sees of every image of a table, by any extractor.

An extractor is a callable from pictures to features, such as `palate.models.inception.load_inception(path)`, the eye
of a scorer (`eye_look`), or `colour_histogram`, which needs no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from palate.data.images import open_image
from palate.data.tables import image_fault, image_path
from palate.errors import DataError, ImageError

Floats = NDArray[np.float64]
Extractor = Callable[[Sequence[PIL.Image.Image]], Any]
"""From pictures to features (images × dims), or to a pair of features and class probabilities."""


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What an extractor saw: row i of `features` (and of `probabilities`) belongs to image `keys[i]`.

    `faults` says of images without a row why there is none.
    """

    keys: tuple[str, ...]
    features: NDArray[Any]
    probabilities: NDArray[Any] | None
    faults: Mapping[str, str]


def look_at(
    images: Any,
    folder: Path,
    extractor: Extractor,
    *,
    only: Iterable[str] | None = None,
    batch: int = 32,
) -> Looks:
    """Let an extractor look at the images of a table, in the order of their keys.

    `only` names the keys to look at, all by default. A file that cannot be opened becomes a fault. Raises
    `DataError` for an extractor that does not give one row of finite numbers per image.
    """
    wanted = None if only is None else set(only)
    rows = sorted(
        (
            row
            for row in images.select(["image", "path"]).to_pylist()
            if wanted is None or row["image"] in wanted
        ),
        key=lambda row: str(row["image"]),
    )
    keys, faults, found = [], {}, []
    source = iter(rows)
    while part := list(islice(source, batch)):
        seen, pictures = [], []
        for row in part:
            try:
                pictures.append(open_image(image_path(row, folder)))
                seen.append(str(row["image"]))
            except ImageError as error:
                faults[str(row["image"])] = image_fault(error, row, folder)
        if pictures:
            found.append(_rows(extractor(pictures), len(pictures)))
            keys += seen
    if not found:
        raise DataError(f"none of {len(rows)} images could be looked at")
    features = np.concatenate([pair[0] for pair in found])
    chances = [pair[1] for pair in found if pair[1] is not None]
    return Looks(tuple(keys), features, np.concatenate(chances) if chances else None, faults)


def _rows(given: Any, count: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
    features, chances = given if isinstance(given, tuple) else (given, None)
    for name, rows in (("features", features), ("probabilities", chances)):
        if rows is None:
            continue
        if np.ndim(rows) != 2 or len(rows) != count or not np.isfinite(rows).all():
            raise DataError(
                f"an extractor gave {name} of shape {np.shape(rows)} for {count} images,"
                " expected one row of finite numbers each"
            )
    return np.asarray(features), None if chances is None else np.asarray(chances)


def colour_histogram(images: Sequence[PIL.Image.Image], bins: int = 4) -> tuple[Floats, Floats]:
    """Look at colours alone: the shares of bins³ colours, as features and as chances of classes.

    It is a cheap extractor that needs no weights. It knows nothing of what an image shows.
    """
    found = np.zeros((len(images), bins**3))
    for row, image in enumerate(images):
        levels = np.asarray(image.convert("RGB"), dtype=np.int64) * bins // 256
        cells = (levels[..., 0] * bins + levels[..., 1]) * bins + levels[..., 2]
        found[row] = np.bincount(cells.ravel(), minlength=bins**3) / cells.size
    return found, found


def eye_look(eye: Any) -> Extractor:
    """Make an extractor of a scorer's eye (`scorer.eye`): the features of its image tower, without classes."""
    return lambda images: eye.see(list(images)).float().cpu().numpy()

"""What an audit says about images without opening them: sizes, shapes, and marks of unsafe content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from palate.data.audit.columns import Columns, Numbers, detail_values, names
from palate.data.audit.findings import Finding

MARKS: Final = ("image_nsfw", "prompt_nsfw", "nsfw", "blurred")
"""Details that say how unsafe an image or prompt is, from 0 to 1; above 0.5 counts."""

TINY: Final = 64
_TOP: Final = 8
_SHAPE: Final = 0.02


@dataclass(frozen=True)
class Size:
    """How many images have this width and height in pixels."""

    width: int
    height: int
    images: int


@dataclass(frozen=True)
class Sizes:
    """Sizes of images as recorded at the import: the most frequent ones, and the shorter sides."""

    images: int
    unknown: int
    distinct: int
    shapes: int
    shortest: int
    median_shorter: float
    largest: int
    top: tuple[Size, ...]


@dataclass(frozen=True)
class Marked:
    """How many rows of a table carry a mark, and on how many it is above 0.5."""

    table: str
    key: str
    rows: int
    above: int


def size_facts(columns: Columns) -> tuple[Sizes | None, list[Finding]]:
    """Count sizes and shapes; find tiny images, and choices between images of several sizes."""
    table = columns.dataset.images
    width, height = (
        pc.fill_null(table.column(name), 0).to_numpy().astype(np.int64)
        for name in ("width", "height")
    )
    known = np.flatnonzero((width > 0) & (height > 0))
    if not len(known):
        return None, []
    packed, counts = np.unique((width[known] << 32) + height[known], return_counts=True)
    sizes = np.stack([packed >> 32, packed & 0xFFFFFFFF])
    order = np.argsort(-counts, kind="stable")[:_TOP]
    shorter = np.minimum(width, height)[known]
    facts = Sizes(
        images=len(table),
        unknown=len(table) - len(known),
        distinct=len(counts),
        shapes=len(np.unique(_shape(sizes[0], sizes[1]))),
        shortest=int(shorter.min()),
        median_shorter=float(np.median(shorter)),
        largest=int(np.maximum(width, height).max()),
        top=tuple(Size(*map(int, (*sizes[:, k], counts[k]))) for k in order),
    )
    return facts, [
        *_tiny(columns, known, shorter, facts.median_shorter),
        *_several(columns, width, height),
    ]


def _shape(width: Numbers, height: Numbers) -> Numbers:
    """Width by height on a scale where one step is 2 %."""
    steps: Numbers = np.round(np.log(width / height) / np.log1p(_SHAPE)).astype(np.int64)
    return steps


def _tiny(columns: Columns, known: Numbers, shorter: Numbers, median: float) -> Iterator[Finding]:
    """Images that are small, and small beside the others: thumbnails that slipped in."""
    tiny = known[(shorter < TINY) & (shorter < median / 2)]
    if len(tiny):
        message = (
            f"images are below {TINY} pixels and half of the usual shorter side ({median:g} pixels)"
        )
        examples = names(columns.dataset.images.column("image"), tiny[:5])
        yield Finding.counted("warning", "tiny images", len(tiny), examples, message)


def _several(columns: Columns, width: Numbers, height: Numbers) -> Iterator[Finding]:
    """Choices between images of several sizes: the size may decide, and not the picture."""
    if not len(columns.starts) or not len(width):
        return
    rows = columns.row_of_image[columns.image]
    known = (rows >= 0) & (width[rows] > 0) & (height[rows] > 0)
    whole = np.minimum.reduceat(known, columns.starts)
    size = np.where(known, (width[rows] << 32) + height[rows], 0)
    mixed = whole & _differs(size, columns.starts)
    if not mixed.any():
        return
    shape = np.zeros(len(rows), np.int64)
    shape[known] = _shape(width[rows[known]], height[rows[known]])
    shapes = int((mixed & _differs(shape, columns.starts)).sum())
    first = columns.choice_names(np.flatnonzero(mixed)[:5])
    message = f"choices are between images of several sizes, {shapes} of several shapes"
    yield Finding.counted("note", "several sizes in a choice", int(mixed.sum()), first, message)


def _differs(values: Numbers, starts: Numbers) -> Any:
    return np.minimum.reduceat(values, starts) != np.maximum.reduceat(values, starts)


def mark_facts(columns: Columns) -> tuple[tuple[Marked, ...], list[Finding]]:
    """Count marks of unsafe content in the details of images and choices."""
    facts, found = [], []
    for name, table, key in (
        ("images", columns.dataset.images, "image"),
        ("choices", columns.dataset.choices, "choice"),
    ):
        counts = {mark: [0, 0] for mark in MARKS}
        above: dict[int, None] = {}
        for row, mark, value in detail_values(table.column("details"), MARKS):
            amount = _amount(value)
            if amount is None:
                continue
            counts[mark][0] += 1
            if amount > 0.5:
                counts[mark][1] += 1
                above.setdefault(row)
        facts += [Marked(name, mark, *counts[mark]) for mark in MARKS if counts[mark][0]]
        if above:
            first = names(table.column(key), list(above)[:5])
            message = f"of {len(table)} {name} are marked as unsafe"
            found.append(Finding.counted("note", "unsafe marks", len(above), first, message))
    return tuple(facts), found


def _amount(value: Any) -> float | None:
    """The largest number of a mark; lists hold one for each image."""
    if isinstance(value, list):
        amounts = [amount for item in value if (amount := _amount(item)) is not None]
        return max(amounts, default=None)
    return float(value) if isinstance(value, bool | int | float) else None

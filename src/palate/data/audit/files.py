"""What an audit says about image files: missing, unreadable, changed, twice, blank, nearly equal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from palate.data.audit.columns import Columns, Numbers, grouped, names, numbered
from palate.data.audit.findings import Finding, Level, Picture, Strip
from palate.data.audit.phash import perceptual_hash
from palate.data.images import hash_image, open_image
from palate.errors import ImageError
from palate.runs import track

_SIDE: Final = 16
_BATCH: Final = 256
_BLANK: Final = 2.0
_EXAMPLES: Final = 4


@dataclass(frozen=True)
class FileSettings:
    """The part of the audit's settings that is about files."""

    require_images: bool
    decode: bool
    max_pixels: int


@dataclass(frozen=True, eq=False)
class Files:
    """What was seen of every image, by its number in the columns.

    `content` numbers the contents by `hashes`, the SHA-256 (-1: unknown), `look` holds the perceptual
    hash where `looked` is true, and `thumbnails` those of the images that opened, at `thumbnail`
    (-1: none). `missing` and `blank` are numbers of images, `changed` keys, `unreadable` sentences.
    """

    content: Numbers
    hashes: list[str]
    look: NDArray[np.uint64]
    looked: NDArray[np.bool_]
    thumbnail: Numbers
    thumbnails: NDArray[np.uint8]
    missing: Numbers
    unreadable: list[str]
    changed: list[str]
    blank: list[int]


@dataclass(frozen=True)
class _Seen:
    """One file: its content, thumbnail and perceptual hash, or what is wrong with it."""

    content: str | None = None
    thumbnail: NDArray[np.uint8] | None = None
    look: int | None = None
    fault: str | None = None
    missing: bool = False


def look_at_files(columns: Columns, settings: FileSettings) -> Files:
    """Open every image file of a data set, several at a time."""
    table = columns.dataset.images
    count = len(columns.images)
    known, contents = _recorded(columns)
    content, place = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    content[columns.image_rows] = known
    look, looked = np.zeros(count, np.uint64), np.zeros(count, np.bool_)
    unreadable: list[str] = []
    changed: list[str] = []
    blank: list[int] = []
    thumbnails: list[NDArray[np.uint8]] = []
    found = np.zeros(len(table), np.bool_)
    for row, seen in _seen(columns, settings):
        if seen.missing:
            continue
        found[row] = True
        number = int(columns.image_rows[row])
        if seen.fault is not None:
            unreadable.append(seen.fault)
            continue
        assert seen.content is not None
        now = contents.setdefault(seen.content, len(contents))
        if known[row] >= 0 and now != known[row]:
            changed.append(table.column("image")[row].as_py())
        content[number] = now
        if seen.thumbnail is not None:
            place[number] = len(thumbnails)
            thumbnails.append(seen.thumbnail)
            if seen.thumbnail.std(axis=0).max() < _BLANK:
                blank.append(number)
        if seen.look is not None:
            look[number], looked[number] = seen.look, True
    return Files(
        content=content,
        hashes=list(contents),
        look=look,
        looked=looked,
        thumbnail=place,
        thumbnails=np.array(thumbnails, np.uint8).reshape(-1, _SIDE * _SIDE, 3),
        missing=columns.image_rows[~found],
        unreadable=unreadable,
        changed=changed,
        blank=blank,
    )


def _recorded(columns: Columns) -> tuple[Numbers, dict[str, int]]:
    """Number of the recorded content of every row, -1 where there is none, and the contents."""
    distinct, (known,) = numbered([columns.dataset.images.column("sha256")])
    return known, {text: number for number, text in enumerate(distinct.to_pylist())}


def _seen(columns: Columns, settings: FileSettings) -> Iterator[tuple[int, _Seen]]:
    """Look at files in threads, for decoding lets go of the interpreter; in the order of the rows."""
    folder, column = columns.dataset.folder, columns.dataset.images.column("path")
    rows = np.flatnonzero(column.is_valid().to_numpy())
    see = partial(_see, folder=folder, settings=settings)

    def look(pool: ThreadPoolExecutor) -> Iterator[tuple[int, _Seen]]:
        for begin in range(0, len(rows), _BATCH):
            part = rows[begin : begin + _BATCH]
            yield from zip(part.tolist(), pool.map(see, names(column, part)), strict=True)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from track(look(pool), "looking at images", total=len(rows))


def _see(name: str, folder: Path, settings: FileSettings) -> _Seen:
    path = folder / name
    if not path.exists():
        return _Seen(missing=True)
    try:
        content = hash_image(path)
        if not settings.decode:
            return _Seen(content)
        image = open_image(path, max_pixels=settings.max_pixels)
    except ImageError as fault:
        return _Seen(fault=str(fault))
    return _Seen(content, _small(image), perceptual_hash(image))


def thumbnail(path: Path, max_pixels: int) -> NDArray[np.float32]:
    """Shrink an image to 16 × 16 RGB by averaging; values from 0 to 255."""
    small = _small(open_image(path, max_pixels=max_pixels))
    return small.reshape(_SIDE, _SIDE, 3).astype(np.float32)


def _small(image: PIL.Image.Image) -> NDArray[np.uint8]:
    small = image.resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8).reshape(-1, 3)


def file_findings(
    columns: Columns, files: Files, settings: FileSettings
) -> tuple[list[Finding], list[Strip]]:
    """Find faults of image files, and show them."""
    found: list[Finding] = []
    if len(files.missing):
        level: Level = "error" if settings.require_images else "note"
        message = f"of {len(columns.image_rows)} images have no file here"
        told = names(columns.images, files.missing[:5])
        found.append(Finding.counted(level, "missing files", len(files.missing), told, message))
    if files.unreadable:
        message = "image files do not open"
        found.append(Finding.of("error", "unreadable files", files.unreadable, message))
    if files.changed:
        message = "image files are not what they were when they were imported"
        found.append(Finding.of("error", "changed files", files.changed, message))
    strips: list[Strip] = []
    if files.blank:
        message = "images show one even colour"
        blank = names(columns.images, files.blank)
        found.append(Finding.of("warning", "blank images", blank, message))
        strips.append(strip(columns, "blank images", "", files.blank[:_EXAMPLES]))
    copies = _copies(files)
    if copies:
        message = "contents are shared by several images"
        told = [" = ".join(names(columns.images, same)) for same in copies[:5]]
        found.append(Finding.counted("warning", "duplicate images", len(copies), told, message))
        strips += [strip(columns, "duplicate images", "", c[:_EXAMPLES]) for c in copies[:3]]
    return found, strips


def _copies(files: Files) -> list[list[int]]:
    known = np.flatnonzero(files.content >= 0)
    order, starts, lengths = grouped(files.content[known])
    again = lengths > 1
    return [
        known[order[a : a + n]].tolist()
        for a, n in zip(starts[again].tolist(), lengths[again].tolist(), strict=True)
    ]


def strip(columns: Columns, kind: str, title: str, images: Sequence[int]) -> Strip:
    """Show these images, by their numbers, as a case of a finding."""
    return Strip(kind, title, pictures(columns, images))


def pictures(columns: Columns, images: Sequence[int]) -> tuple[Picture, ...]:
    """Names and files of images, by their numbers."""
    table, folder, rows = columns.dataset.images, columns.dataset.folder, columns.row_of_image
    found = []
    for number, label in zip(images, names(columns.images, images), strict=True):
        row = int(rows[number])
        path = table.column("path")[row].as_py() if row >= 0 else None
        found.append(Picture(label, None if path is None else folder / path))
    return tuple(found)

"""What an audit says about image files: missing, unreadable, changed, twice, nearly equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from palate.data.findings import Finding
from palate.data.images import hash_image, open_image
from palate.data.records import Image
from palate.errors import ImageError
from palate.runs import track

_SIDE: Final = 16


@dataclass(frozen=True)
class FileSettings:
    """The part of the audit's settings that is about files."""

    require_images: bool
    decode: bool
    near: float
    max_pixels: int


@dataclass(frozen=True)
class _Files:
    """What was seen of every image: its content hash and thumbnail, or what is wrong with it."""

    hashes: dict[str, str]
    thumbnails: dict[str, NDArray[np.float32]]
    missing: list[str]
    unreadable: list[str]
    changed: list[str]


def file_findings(
    images: Sequence[Image],
    groups: Mapping[str, tuple[str, ...]],
    folder: Path,
    settings: FileSettings,
) -> list[Finding]:
    """Find faults of image files. `groups` are the images that are compared with each other."""
    files = _look(images, folder, settings)
    found = []
    if files.missing:
        level = "error" if settings.require_images else "note"
        message = f"of {len(images)} images have no file here"
        found.append(Finding.of(level, "missing files", files.missing, message))  # type: ignore[arg-type]
    if files.unreadable:
        message = "image files do not open"
        found.append(Finding.of("error", "unreadable files", files.unreadable, message))
    if files.changed:
        message = "image files are not what they were when they were imported"
        found.append(Finding.of("error", "changed files", files.changed, message))
    copies = _copies(files.hashes)
    if copies:
        message = "contents are shared by several images"
        found.append(Finding.of("warning", "duplicate images", copies, message))
    found += _equal_groups(groups, files, settings.near)
    return found


def _look(images: Sequence[Image], folder: Path, settings: FileSettings) -> _Files:
    files = _Files({}, {}, [], [], [])
    for row in track(images, "looking at images", total=len(images)):
        path = None if row.path is None else folder / row.path
        if row.sha256 is not None:
            files.hashes[row.image] = row.sha256
        if path is None or not path.exists():
            files.missing.append(row.image)
            continue
        try:
            content = hash_image(path)
            if settings.decode:
                files.thumbnails[row.image] = thumbnail(path, settings.max_pixels)
        except ImageError as fault:
            files.unreadable.append(str(fault))
            continue
        if row.sha256 is not None and content != row.sha256:
            files.changed.append(row.image)
        files.hashes[row.image] = content
    return files


def thumbnail(path: Path, max_pixels: int) -> NDArray[np.float32]:
    """Shrink an image to 16 × 16 RGB by averaging; values from 0 to 255."""
    image = open_image(path, max_pixels=max_pixels)
    small = image.resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def _copies(hashes: Mapping[str, str]) -> list[str]:
    by_content: dict[str, list[str]] = {}
    for key, content in hashes.items():
        by_content.setdefault(content, []).append(key)
    return [" = ".join(keys) for keys in by_content.values() if len(keys) > 1]


def _equal_groups(
    groups: Mapping[str, tuple[str, ...]], files: _Files, near: float
) -> Iterator[Finding]:
    """Groups with two images that people cannot tell apart, and groups with nothing else."""
    constant, partly = [], []
    for name, keys in groups.items():
        pairs = list(combinations(dict.fromkeys(keys), 2))
        equal = [pair for pair in pairs if _equal(*pair, files, near)]
        if pairs and len(equal) == len(pairs):
            constant.append(name)
        elif equal:
            partly.append(f"{name}: {equal[0][0]} = {equal[0][1]}")
    if constant:
        message = "groups hold nothing but identical or nearly equal images"
        yield Finding.of("warning", "constant groups", constant, message)
    if partly:
        message = "groups hold two identical or nearly equal images"
        yield Finding.of("warning", "equal images in a group", partly, message)


def _equal(a: str, b: str, files: _Files, near: float) -> bool:
    if a in files.hashes and files.hashes[a] == files.hashes.get(b):
        return True
    if a not in files.thumbnails or b not in files.thumbnails:
        return False
    return bool(np.abs(files.thumbnails[a] - files.thumbnails[b]).mean() < near)

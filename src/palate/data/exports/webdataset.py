"""Write images and choices as WebDataset tars, which trainers stream.

An image is two or three files of one name: `NAME.jpg` (the bytes as they are, the ending by their
content), `NAME.json` (what the table of images says) and `NAME.txt` (the prompt). All choices are the
last file of the last tar, `__palate__/choices.jsonl`, one a line. Times, owners and rights are the
same in every tar, so two exports of one data set are equal byte for byte.
"""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, Final

from palate.data.exports.common import (
    ExportSettings,
    Places,
    checked_bytes,
    content_suffix,
    locate,
    of_dimension,
    safe_name,
    write_export,
)
from palate.data.records import Choice, Image
from palate.data.tables import Dataset, to_rows
from palate.errors import DataError, SettingsError
from palate.runs import track

CHOICES_MEMBER: Final = "__palate__/choices.jsonl"
"""The file of the last tar that holds all choices."""

_OF_IMAGE: Final = ("image", "prompt", "generator", "seed", "settings", "details")
_IN_MEMORY: Final = 64 << 20


@dataclass(frozen=True)
class WebDatasetSettings(ExportSettings):
    """How tars are written: a new one begins before `images_per_tar` or `megabytes_per_tar` is passed.

    Images lie inside the tars, so `images` only says whether they come along.
    """

    images_per_tar: int = 10_000
    megabytes_per_tar: int = 1000

    def __post_init__(self) -> None:
        """Refuse tars that can hold nothing."""
        for name in ("images_per_tar", "megabytes_per_tar"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")


def export_webdataset(
    dataset: Dataset,
    out: Path,
    settings: WebDatasetSettings | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write all images, and all choices or those of one dimension, as tars; return the counts.

    Names hold no dots or slashes, at which tools would cut them; the key of an image is in its JSON.
    Raises `DataError` for image files that are missing (unless images are left out), that do not open
    or that have changed since they were imported.
    """
    settings = settings or WebDatasetSettings()
    choices = dataset.choices
    if len(choices) or settings.dimension is not None:
        choices = of_dimension(dataset, settings.dimension, "a WebDataset", several=True)
    if not len(choices) + len(dataset.images):
        raise DataError(f"{dataset.folder}: holds neither an image nor a choice to export")
    files = locate(dataset, dataset.images.column("image").to_pylist(), settings.images)

    def write(places: Places) -> dict[str, Any]:
        with _Tars(places, settings) as tars:
            rows = track(to_rows(dataset.images, Image), "packing images", len(dataset.images))
            for number, row in enumerate(rows):
                tars.add_image(_members(row, number, files.get(row.image)))
            tars.add_choices(choices)
            counts = {"tars": tars.count, "images": tars.images, "choices": len(choices)}
        if not files and tars.images:
            counts["images_without_files"] = tars.images
        return counts

    return write_export("webdataset", dataset, out, settings, write, overwrite=overwrite)


def _members(row: Image, number: int, file: Path | None) -> dict[str, bytes]:
    """The files of one image by name, in the order of their names."""
    facts = {name: getattr(row, name) for name in _OF_IMAGE}
    told = json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()
    name = safe_name(row.image, number)
    members = {f"{name}.json": told, f"{name}.txt": row.prompt.encode()}
    if file is not None:
        data = checked_bytes(row.image, file, row.sha256)
        members[f"{name}{content_suffix(data, file.name)}"] = data
    return dict(sorted(members.items()))


class _Tars:
    """Tars that are written one after the other, each until it is full."""

    def __init__(self, places: Places, settings: WebDatasetSettings) -> None:
        self.count = 0
        self.images = 0
        self._places = places
        self._settings = settings
        self._stack = ExitStack()
        self._tar: tarfile.TarFile | None = None
        self._held = 0
        self._bytes = 0

    def __enter__(self) -> _Tars:  # noqa: PYI034 - beartype checks no Self here
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add_image(self, members: dict[str, bytes]) -> None:
        """Add the files of one image, in a new tar if this one would be too full."""
        size = sum(len(data) + tarfile.BLOCKSIZE for data in members.values())
        full = self._held >= self._settings.images_per_tar
        full = full or self._bytes + size > self._settings.megabytes_per_tar * 1_000_000
        if self._tar is None or (full and self._held):
            self._next()
        for name, data in members.items():
            self._add(name, io.BytesIO(data), len(data))
        self._held += 1
        self._bytes += size
        self.images += 1

    def add_choices(self, choices: Any) -> None:
        """Add the choices as the last file of the last tar."""
        if not len(choices):
            return
        if self._tar is None:
            self._next()
        with SpooledTemporaryFile(_IN_MEMORY, dir=str(self._places.out)) as lines:
            for choice in to_rows(choices, Choice):
                line = json.dumps(asdict(choice), ensure_ascii=False)
                lines.write(f"{line}\n".encode())
            size = lines.tell()
            lines.seek(0)
            self._add(CHOICES_MEMBER, lines, size)

    def _next(self) -> None:
        self._stack.close()
        path = self._places.path(f"data-{self.count:06}.tar")
        # this form holds files of any size, and no time or name that differs between machines
        self._tar = self._stack.enter_context(
            tarfile.open(path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - closed by the stack
        )
        self.count += 1
        self._held = self._bytes = 0

    def _add(self, name: str, content: Any, size: int) -> None:
        assert self._tar is not None
        facts = tarfile.TarInfo(name)
        facts.size, facts.mode = size, 0o644
        self._tar.addfile(facts, content)

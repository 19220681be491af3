"""Images that keep a generator as it is: from a data set, a folder with captions, or JSON Lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from palate.adaptation.labelling.align_sd import read_captions
from palate.data.images import probe_image
from palate.data.records import Image
from palate.data.sources.folder import FolderSettings, read_folder
from palate.data.tables import read_table, to_table
from palate.errors import DataError, ImageError

_LISTS: Final = ("metadata.jsonl", "regularization_images.jsonl")


@dataclass(frozen=True, slots=True, eq=False)
class Regularisation:
    """An images table whose every image becomes a regularisation row."""

    images: Any
    folder: Path
    """Where the table lies: its paths are relative to it."""
    origin: str
    """What it was read from: a data set, a captioned folder or a list of captions."""
    written: bool
    """Whether the table is a file already; else `label` writes it beside the labels."""


def regularisation_input(path: Path) -> Path:
    """The file or folder whose content tells one set of regularisation images from another.

    Raises:
        DataError: nothing has this name.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist, expected regularisation images")
    table = path / "images.parquet"
    return table if table.is_file() else path


def read_regularisation(path: Path) -> Regularisation:
    """Read regularisation images from whatever has images and captions.

    A data set (its folder or ``images.parquet``) is used where it lies. A folder with captions is
    read as `palate data import folder` reads it (a prompts file, or a text file beside each image),
    or by a list ``metadata.jsonl`` as Hugging Face's imagefolder has it. A list of ``file_name`` and
    ``caption`` may also be named itself: align_sd's ``regularization_images.jsonl``.

    Raises:
        DataError: nothing of that, an image without a caption or file, or a bad line, by its number.
    """
    place = regularisation_input(path)
    if place.suffix.lower() == ".parquet":
        return Regularisation(read_table(place, "images"), place.parent, "data set", written=True)
    lists = [place / name for name in _LISTS if (place / name).is_file()]
    if place.is_file() or lists:
        listed = place if place.is_file() else lists[0]
        return Regularisation(_listed(listed), listed.parent, "list of captions", written=False)
    images = read_folder(place, settings=FolderSettings(decode=False)).images
    # two folders may both hold 0.jpg, and a key stands for one picture
    keys = [f"{place.resolve().name}/{key}" for key in images["image"].to_pylist()]
    images = images.set_column(0, images.schema.field("image"), pa.array(keys, pa.string()))
    return Regularisation(images, place, "captioned folder", written=False)


def _listed(path: Path) -> Any:
    """The images of a list of captions; their keys are their names after that of the folder."""
    base = path.resolve().parent
    rows = []
    for line, one in read_captions(path):
        file = base / one.file_name
        try:
            facts = probe_image(file, decode=False)
        except ImageError as fault:
            raise DataError(f"{path}, line {line}: {fault}") from None
        rows.append(
            Image(
                f"{base.name}/{one.file_name.lstrip('/')}",
                one.caption,
                path=file.resolve().as_posix(),
                sha256=facts.sha256,
                width=facts.width,
                height=facts.height,
            )
        )
    if not rows:
        raise DataError(f"{path}: holds no image with a caption")
    return to_table(rows, "images")

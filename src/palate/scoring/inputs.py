"""What the verb ``score`` is pointed at: files, a folder, a manifest, a table of images or a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from palate.data.records import Image
from palate.data.sources.common import find_images
from palate.data.tables import load_dataset, read_table, to_table
from palate.errors import DataError
from palate.scoring.manifests import MANIFESTS, Manifest, survey_manifest
from palate.scoring.pieces import Row, Source, Survey, Surveyor, local_file
from palate.scoring.prompts import GivenPrompts, prompt_of, read_prompts

_PROMPT_FILES = ("prompts.csv", "prompts.jsonl", "prompts.txt")
_AT_ONCE = 1024


@dataclass(frozen=True)
class Gathered:
    """The rows to be scored, what one look at all of them told, and the folder that relative paths start from."""

    source: Source
    survey: Survey
    folder: Path

    @cached_property
    def images(self) -> Any:
        """The rows as a table of images, in memory: for a gallery, and for inputs that are small."""
        if isinstance(self.source, ImageTable):
            return self.source.table
        rows = (
            Image(image=row.image, prompt=row.prompt, path=_absolute(row.file))
            for row in self.source.rows()
        )
        return to_table(rows, "images")


def _absolute(file: str | None) -> str | None:
    return None if file is None else Path(file).resolve().as_posix()


def gather_images(
    paths: Sequence[Path],
    *,
    prompt: str | None = None,
    prompts: Path | None = None,
    need_prompts: bool = True,
) -> Gathered:
    """Find the images at some paths and their prompts.

    A path is an image file, a folder of images, a manifest (CSV, JSON Lines or Parquet with the
    columns ``image`` and ``prompt``; images lie relative to it), a table ``images.parquet``, or a data
    set folder with such a table; a manifest, table or data set stands alone. Its prompts hold unless
    ``prompt`` or ``prompts`` is given. Other images take ``prompt``, or their line in the file
    ``prompts`` (CSV or JSON Lines with ``image`` and ``prompt``, or text with ``image<TAB>prompt``), or
    that of such a file called prompts.* in the folder, or a text file of the same name beside them;
    without any of these the prompt is empty if ``need_prompts`` is false. No image is opened.

    Raises DataError where a path or a prompt is missing.
    """
    if prompt is not None and prompts is not None:
        raise DataError("prompts come from one text or from a file; give --prompt or --prompts")
    given = GivenPrompts(prompts, read_prompts(prompts)) if prompts is not None else None
    if prompt is None and given is None and not need_prompts and not any(map(_is_table, paths)):
        prompt = ""
    alone = [path for path in paths if _is_table(path) or path.suffix.lower() in MANIFESTS]
    if alone and len(paths) > 1:
        raise DataError(f"{alone[0]}: a table of images is scored alone, found {len(paths)} paths")
    if alone and not _is_table(alone[0]):
        manifest, survey = survey_manifest(Manifest(alone[0], prompt, given, need_prompts))
        return Gathered(manifest, survey, alone[0].parent)
    if alone:
        return _from_table(alone[0], prompt, given)
    found = to_table((row for path in paths for row in _from_path(path, prompt, given)), "images")
    if not len(found):
        raise DataError("no image was given")
    gathered = survey_table(found, Path())
    _refuse_twice(found, gathered.survey)
    return gathered


def _is_table(path: Path) -> bool:
    """Tell a table of images, or the folder of one, from images and from a manifest."""
    if path.suffix == ".parquet" and path.is_file():
        try:
            return "sha256" in pq.read_schema(path).names
        except (pa.ArrowInvalid, OSError):
            return True  # the table's reader says what is wrong with it
    return path.suffix == ".parquet" or (path / "images.parquet").is_file()


@final
@dataclass(frozen=True)
class ImageTable(Source):
    """The rows of a table of images; its paths start from ``folder``."""

    table: Any
    folder: Path

    def rows(self) -> Iterator[Row]:
        """Give the rows, a thousand taken from the table at a time."""
        folder = self.folder.absolute()
        columns = self.table.select(["image", "prompt", "path"])
        for batch in columns.to_batches(max_chunksize=_AT_ONCE):
            for image, prompt, path in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                yield Row(image, prompt, None if path is None else local_file(folder, path))


def _from_table(path: Path, prompt: str | None, given: GivenPrompts | None) -> Gathered:
    """Read a table of images, with other prompts if some are given."""
    if path.is_dir():
        images, folder = load_dataset(path).images, path
    else:
        images, folder = read_table(path, "images"), path.parent
    if prompt is not None or given is not None:
        keys = images["image"].to_pylist()
        texts = [prompt_of([key], prompt, given) for key in keys]
        place = images.schema.get_field_index("prompt")
        images = images.set_column(place, images.schema.field(place), [texts])
    if not len(images):
        raise DataError(f"{path}: holds no images")
    return survey_table(images, folder)


def survey_table(images: Any, folder: Path) -> Gathered:
    """Take a table of images as it is."""
    source = ImageTable(images, folder)
    return Gathered(source, Surveyor(source.rows()).settle(), folder)


def _from_path(path: Path, prompt: str | None, given: GivenPrompts | None) -> Iterator[Image]:
    """Give the images of one file or folder."""
    if path.is_dir():
        files, base = find_images(path), path
        if not files:
            raise DataError(f"{path}: holds no image file (PNG, JPEG, WebP, GIF, BMP, TIFF, …)")
    elif path.exists():
        files, base = [path], path.parent
    else:
        raise DataError(f"{path}: no such file or folder")
    if prompt is None and given is None:
        beside = [base / name for name in _PROMPT_FILES if (base / name).is_file()]
        if len(beside) > 1:
            raise DataError(
                f"{base}: holds {beside[0].name} and {beside[1].name}; say which by --prompts"
            )
        if beside:
            given = GivenPrompts(beside[0], read_prompts(beside[0]))
    for image in files:
        inside = image.relative_to(base).as_posix()
        yield Image(
            image=inside if path.is_dir() else path.as_posix(),
            prompt=prompt_of([str(image), inside, image.name], prompt, given, image),
            path=image.resolve().as_posix(),
        )


def _refuse_twice(images: Any, survey: Survey) -> None:
    """Refuse two images with one name, which the table could not tell apart."""
    if survey.images < survey.rows:
        counts = images["image"].value_counts()
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        if len(twice):
            raise DataError(f"image '{twice[0].as_py()}' was given twice")


def hash_table(table: Any) -> str:
    """Hash the content of a table, however it came about."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()

"""What the verb ``score`` is pointed at: files, a folder, a manifest, a table of images or a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, final

import pyarrow as pa
import pyarrow.compute as pc

from palate.data.images import SUFFIXES
from palate.data.records import Image
from palate.data.sources.common import find_images
from palate.data.tables import load_dataset, read_table, to_table
from palate.data.urls import (
    copy_here,
    find_below,
    is_url,
    look_at_url,
    read_url,
    told_by,
    url_below,
)
from palate.errors import DataError
from palate.scoring.image_columns import survey_columns
from palate.scoring.manifests import MANIFESTS, Manifest, survey_manifest
from palate.scoring.packed import Asking, PackedSource, find_packed, packed_kind, schema_of
from palate.scoring.pieces import Row, Source, Survey, Surveyor, file_below
from palate.scoring.prompts import GivenPrompts, prompt_of, read_prompts
from palate.scoring.tars import survey_tars

_PROMPT_FILES = ("prompts.csv", "prompts.jsonl", "prompts.txt")
_AT_ONCE = 1024


@dataclass(frozen=True)
class Gathered:
    """The rows to be scored, what one look at them told, and the folder that relative paths start from."""

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

    def refuse_gallery(self) -> None:
        """Refuse to draw images that are no files here."""
        if isinstance(self.source, PackedSource):
            raise DataError(f"{self.source.files[0].place}: a gallery is made of image files")
        first = next(self.source.rows()).file
        if is_url(first):
            raise DataError(f"{first}: a gallery is made of image files on this machine")


def _absolute(file: str | None) -> str | None:
    return file if file is None or is_url(file) else Path(file).resolve().as_posix()


def gather_images(
    paths: Sequence[Path | str],
    *,
    prompt: str | None = None,
    prompts: Path | None = None,
    need_prompts: bool = True,
) -> Gathered:
    """Find the images at some paths, or URLs as texts, and their prompts.

    A path is an image file, a folder of images, a manifest (CSV, JSON Lines or Parquet with the
    columns ``image`` and ``prompt``; images lie relative to it), a table ``images.parquet``, or a data
    set folder with such a table; a manifest, table or data set stands alone. Or it is a WebDataset tar or a Parquet
    file with the images inside, a pattern such as ``a-{000..012}.tar``, or a folder of them. Its prompts hold unless
    ``prompt`` or ``prompts`` is given. Other images take ``prompt``, or their line in the file
    ``prompts`` (CSV or JSON Lines with ``image`` and ``prompt``, or text with ``image<TAB>prompt``), or
    that of such a file called prompts.* in the folder, or a text file of the same name beside them;
    without any of these the prompt is empty if ``need_prompts`` is false. No image is opened.

    Raises DataError where a path or a prompt is missing.
    """
    if prompt is not None and prompts is not None:
        raise DataError("prompts come from one text or from a file; give --prompt or --prompts")
    given = GivenPrompts(prompts, read_prompts(prompts)) if prompts is not None else None
    if kind := packed_kind(paths):
        survey = survey_tars if kind == ".tar" else survey_columns
        source, found = survey(find_packed(paths, kind), Asking(prompt, given, need_prompts))
        return Gathered(source, found, Path())
    if prompt is None and given is None and not need_prompts and not any(map(_is_table, paths)):
        prompt = ""
    alone = [path for path in paths if _is_table(path) or _ending(path) in MANIFESTS]
    if alone and len(paths) > 1:
        raise DataError(f"{alone[0]}: a table of images is scored alone, found {len(paths)} paths")
    if alone and not _is_table(alone[0]):
        return _from_manifest(alone[0], prompt, given, need_prompts=need_prompts)
    if alone:
        return _from_table(alone[0], prompt, given)
    rows = (
        row
        for path in paths
        for row in (
            _from_url(path, prompt, given)
            if isinstance(path, str)
            else _from_path(path, prompt, given)
        )
    )
    images = to_table(rows, "images")
    if not len(images):
        raise DataError("no image was given")
    gathered = survey_table(images, Path())
    _refuse_twice(images, gathered.survey)
    return gathered


def _ending(place: Path | str) -> str:
    return PurePosixPath(place).suffix.lower()


def _is_table(path: Path | str) -> bool:
    """Tell a table of images, or the folder of one, from images and from a manifest."""
    if _ending(path) == ".parquet" and (isinstance(path, str) or path.is_file()):
        schema = schema_of(path)
        return schema is None or "sha256" in schema.names  # the table's reader says what is wrong
    if isinstance(path, str):
        return not _ending(path) and look_at_url(url_below(path, "images.parquet")) is not None
    return path.suffix == ".parquet" or (path / "images.parquet").is_file()


@final
@dataclass(frozen=True)
class ImageTable(Source):
    """The rows of a table of images; its paths start from ``folder``."""

    table: Any
    folder: Path | str

    def rows(self) -> Iterator[Row]:
        """Give the rows, a thousand taken from the table at a time."""
        folder = self.folder if isinstance(self.folder, str) else str(self.folder.absolute())
        columns = self.table.select(["image", "prompt", "path"])
        for batch in columns.to_batches(max_chunksize=_AT_ONCE):
            for image, prompt, path in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                yield Row(image, prompt, None if path is None else file_below(folder, path))


def _from_manifest(
    path: Path | str, prompt: str | None, given: GivenPrompts | None, *, need_prompts: bool
) -> Gathered:
    """Go over a manifest; of one behind a URL a copy is made."""
    url = path if isinstance(path, str) else None
    file = copy_here(path) if isinstance(path, str) else path
    manifest, survey = survey_manifest(Manifest(file, prompt, given, need_prompts, url=url))
    return Gathered(manifest, survey, Path() if url else file.parent)


def _from_table(path: Path | str, prompt: str | None, given: GivenPrompts | None) -> Gathered:
    """Read a table of images, with other prompts if some are given."""
    folder: Path | str
    if isinstance(path, str):
        file = path if _ending(path) else url_below(path, "images.parquet")
        copy, folder = copy_here(file), file.rpartition("/")[0]
        with told_by(file, copy):
            images = read_table(copy, "images")
    elif path.is_dir():
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


def survey_table(images: Any, folder: Path | str) -> Gathered:
    """Take a table of images as it is; its paths start from a folder, which may be a URL."""
    source = ImageTable(images, folder)
    near = Path() if isinstance(folder, str) else folder
    return Gathered(source, Surveyor(source.rows()).settle(), near)


def _from_url(url: str, prompt: str | None, given: GivenPrompts | None) -> Iterator[Image]:
    """Give the images of one file or folder behind a URL; prompts may lie beside them as text files."""
    alone = look_at_url(url) is not None
    files = [url] if alone else [file.url for file in find_below(url)]
    base = url.rpartition("/")[0] if alone else url.rstrip("/")
    texts = set(files)
    images = [file for file in files if _ending(file) in SUFFIXES or alone]
    if not images:
        raise DataError(f"{url}: does not exist, or holds no image, tar or Parquet file")
    for file in images:
        inside = file.removeprefix(f"{base}/")
        beside = f"{file.removesuffix(PurePosixPath(file).suffix)}.txt"
        if (
            prompt is None
            and given is None
            and (beside in texts or (alone and look_at_url(beside)))
        ):
            own: str | None = read_url(beside).decode("utf-8-sig", "replace").strip()
        else:
            own = prompt
        names = [inside, inside.rpartition("/")[2]]
        text = own if own is not None else prompt_of(names, prompt, given)
        yield Image(image=url if alone else inside, prompt=text, path=file)


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
    if survey.images != survey.rows:
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

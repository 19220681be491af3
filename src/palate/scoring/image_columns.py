"""Parquet files with the images inside, as Hugging Face and others write them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.urls import faults_of_urls, is_url
from palate.errors import DataError
from palate.scoring.packed import Asking, PackedFile, PackedSource, image_column, mark_of
from palate.scoring.pieces import Hashes, Piece, Row, Survey, hash_text, repeated

_PROMPT = ("prompt", "caption", "text")
_KEY = ("__key__", "key", "image_id", "path")
_AT_ONCE = 32
_LOOK_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of image bytes, prompt and key, and how many rows each row group has."""

    image: str
    prompt: str | None
    key: str | None
    groups: tuple[int, ...]


@final
@dataclass(frozen=True)
class ImageColumns(PackedSource):
    """Images in the rows of Parquet files."""

    files: tuple[PackedFile, ...]
    asking: Asking
    columns: tuple[Columns, ...]

    def pieces(self, size: int) -> Iterator[Piece]:
        """Give runs of whole row groups."""
        asked = self.asking.digest()
        for file, columns in zip(self.files, self.columns, strict=True):
            row = 0
            for first, last in _runs(columns.groups, size):
                count = sum(columns.groups[first:last])
                name = f"{file.place}, rows {row + 1} to {row + count}"
                yield ColumnPiece(name, file, self.asking, asked, columns, (first, last), row)
                row += count


@final
@dataclass(frozen=True, slots=True)
class ColumnPiece(Piece):
    """Some row groups of a Parquet file, the first row of which is the file's row ``first`` from 0."""

    name: str
    file: PackedFile
    asking: Asking
    asked: str
    columns: Columns
    groups: tuple[int, int]
    first: int

    def rows(self) -> Iterator[Row]:
        """Read images and prompts, a few at a time."""
        own = self.columns.prompt if self.asking.own else None
        wanted = [name for name in (self.columns.image, own, self.columns.key) if name]
        number = self.first
        with _opened(self.file) as table:
            groups = range(*self.groups)
            for batch in table.iter_batches(_AT_ONCE, row_groups=groups, columns=wanted):
                images = batch.column(0)
                if pa.types.is_struct(images.type):
                    images = images.field("bytes")
                texts = _texts(batch, own)
                keys = _texts(batch, self.columns.key)
                for data, text, key in zip(images, texts, keys, strict=True):
                    yield self._row(number, data.as_py(), text, key)
                    number += 1

    def mark(self) -> str:
        """Hash the file's name, size and time or ETag, and which part it is."""
        return mark_of(self.file, self.asked, *self.groups)

    def _row(self, number: int, data: bytes | None, text: str | None, key: str | None) -> Row:
        prompt = self.asking.of(self.file, key or str(number), text)
        name = key or f"{self.file.name}/{number}"
        fault = f"{self.file.name}.parquet has no image in row {number}" if data is None else None
        return Row(name, prompt, data=data, fault=fault)


def survey_columns(files: tuple[PackedFile, ...], asking: Asking) -> tuple[ImageColumns, Survey]:
    """Look at what the ends of Parquet files say of columns and rows, and at keys; several at once.

    Raises DataError for a file without the columns, and for a key that is empty or there twice.
    """
    with ThreadPoolExecutor(_LOOK_AT_ONCE) as pool:
        columns = tuple(pool.map(lambda file: _columns(file, asking), files))
        found = [one for one in zip(files, columns, strict=True) if one[1].key]
        _refuse_twice(found, list(pool.map(lambda one: _key_hashes(*one), found)))
    source = ImageColumns(files, asking, columns)
    rows = sum(sum(of.groups) for of in columns)
    if rows == 0:
        raise DataError(f"{files[0].place}: holds no image")
    return source, source.survey(rows)


def _columns(file: PackedFile, asking: Asking) -> Columns:
    with _opened(file) as table:
        schema, facts = table.schema_arrow, table.metadata
        groups = tuple(facts.row_group(n).num_rows for n in range(facts.num_row_groups))
    image = image_column(schema)
    prompt = next((name for name in _PROMPT if name in schema.names), None)
    told = ", ".join(schema.names)
    if image is None:
        raise DataError(
            f"{file.place}: has no column 'image' with the bytes of images; there are {told}"
        )
    if prompt is None and asking.own and asking.need:
        raise DataError(f"{file.place}: has no column 'prompt'; there are {told}")
    if prompt is not None and not _is_text(schema.field(prompt).type) and asking.own:
        raise DataError(
            f"{file.place}: the column '{prompt}' is {schema.field(prompt).type}, expected texts"
        )
    key = next((n for n in _KEY if n in schema.names and _is_text(schema.field(n).type)), None)
    return Columns(image, prompt, key, groups)


def _texts(batch: Any, name: str | None) -> list[str | None]:
    return batch[name].to_pylist() if name else [None] * len(batch)


def _keys(file: PackedFile, columns: Columns) -> Iterator[str]:
    number = 0
    with _opened(file) as table:
        for batch in table.iter_batches(columns=[columns.key]):
            for key in batch.column(0).to_pylist():
                if not key:
                    raise DataError(f"{file.place}: row {number} has no {columns.key}")
                yield key
                number += 1


def _key_hashes(file: PackedFile, columns: Columns) -> Hashes:
    return np.fromiter((hash_text(key) for key in _keys(file, columns)), np.uint64)


def _refuse_twice(found: Sequence[tuple[PackedFile, Columns]], hashes: Sequence[Hashes]) -> None:
    """Name the first key that is there twice, by a second look where two hashes are the same."""
    places = repeated(np.concatenate(hashes)) if hashes else ()
    wanted, seen = set(map(int, places)), set()
    all_keys = ((file, key) for file, columns in found for key in _keys(file, columns))
    for place, (file, key) in enumerate(all_keys if wanted else ()):
        if place in wanted and key in seen:
            raise DataError(f"{file.place}: image '{key}' is there twice")
        if place in wanted:
            seen.add(key)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _runs(groups: tuple[int, ...], size: int) -> Iterator[tuple[int, int]]:
    """Put row groups together until they have the size: first and last, the last left out."""
    first, rows = 0, 0
    for place, count in enumerate(groups):
        if rows and rows + count > size:
            yield first, place
            first, rows = place, 0
        rows += count
    if rows:
        yield first, len(groups)


@contextlib.contextmanager
def _opened(file: PackedFile) -> Iterator[Any]:
    """Open a Parquet file, and tell what is wrong with it while it is read."""
    far = is_url(file.place)
    try:
        with (
            faults_of_urls(file.place),
            file.open() as stream,
            pq.ParquetFile(stream, buffer_size=0 if far else 2**20, pre_buffer=far) as table,
        ):
            yield table
    except pa.ArrowException as error:
        raise DataError(
            f"{file.place}: not a readable Parquet file ({' '.join(str(error).split())})"
        ) from error

"""Read, write and convert the four tables, and open a data set.

Rows are for people (`palate.data.records`), columns are for machines (Arrow, Parquet). A data
set is a folder with `images.parquet`, `choices.parquet` or both, and `images/` for files that
Palate itself wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from palate.data.checks import check_table, fit_schema, list_lengths
from palate.data.codes import all_among
from palate.data.duels import Duels, duels
from palate.data.records import Choice, Image, Label, Record, Score
from palate.data.schemas import CHOICES, IMAGES, LABELS, RECORDS, SCHEMAS, SCORES, Kind, kind_of
from palate.errors import DataError, ImageError
from palate.runs import atomic_path

__all__ = [
    "CHOICES",
    "IMAGES",
    "LABELS",
    "SCHEMAS",
    "SCORES",
    "Dataset",
    "Duels",
    "Kind",
    "check_references",
    "duels",
    "image_path",
    "kind_of",
    "load_dataset",
    "read_table",
    "relocate_images",
    "save_dataset",
    "stored_path",
    "to_rows",
    "to_table",
    "write_table",
]

_BATCH: Final = 50_000
R = TypeVar("R", Image, Choice, Score, Label)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images and choices of one folder; a missing table is an empty one."""

    images: Any
    choices: Any
    folder: Path


def to_table(rows: Iterable[Record], kind: Kind | type[Record]) -> Any:
    """Turn records into an Arrow table of that kind; no rows give an empty table."""
    name = kind_of(kind)
    schema, record = SCHEMAS[name], RECORDS[name]
    source = iter(rows)
    batches = []
    while batch := list(islice(source, _BATCH)):
        for row in batch:
            if not isinstance(row, record):
                raise DataError(
                    f"a {type(row).__name__} among the {name}, expected {record.__name__}"
                )
        columns = [[getattr(row, field.name) for row in batch] for field in schema]
        arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)


@overload
def to_rows(table: Any, kind: type[R]) -> Iterator[R]: ...
@overload
def to_rows(table: Any, kind: Kind | None = None) -> Iterator[Any]: ...
def to_rows(table: Any, kind: Any = None) -> Iterator[Any]:
    """Turn an Arrow table into records, one at a time.

    Pass the record class (`to_rows(table, Choice)`) to tell the type checker what comes.
    """
    name = kind_of(table if kind is None else kind)
    record: Any = RECORDS[name]
    names = [field.name for field in fields(record)]
    for batch in table.select(names).to_batches(max_chunksize=_BATCH):
        columns = [column.to_pylist() for column in batch.columns]
        for values in zip(*columns, strict=True):
            yield record(*(tuple(v) if isinstance(v, list) else v for v in values))


def read_table(path: Path | str, kind: Kind | type[Record] | Any, *, unique: bool = True) -> Any:
    """Read a Parquet file of one kind and check every row.

    Raises `DataError` with one sentence that names the file and the row. `unique=False` lets
    keys repeat, for the audit.
    """
    path = Path(path)
    name = kind_of(kind)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path}: {what}, expected a Parquet file of {name}")
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError, EOFError) as fault:
        if isinstance(fault, PermissionError):
            raise DataError(f"{path}: may not be read") from None
        raise DataError(f"{path}: is no Parquet file, or a damaged one") from None
    table = fit_schema(table, name, str(path))
    check_table(table, name, str(path), unique=unique)
    return table


def write_table(table: Any, path: Path | str) -> None:
    """Check a table and write it as Parquet (zstd), whole or not at all."""
    path = Path(path)
    kind = kind_of(table)
    table = fit_schema(table, kind, path.name)
    check_table(table, kind, path.name)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def load_dataset(folder: Path | str, *, strict: bool = True) -> Dataset:
    """Open a data set folder and check its tables, and that choices name known images.

    `strict=False` lets keys repeat and images be unknown, for the audit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {what}, expected the folder of a data set")
    kinds: tuple[Kind, ...] = ("images", "choices")
    paths = {kind: folder / f"{kind}.parquet" for kind in kinds}
    if not any(path.exists() for path in paths.values()):
        raise DataError(f"{folder}: holds neither images.parquet nor choices.parquet")

    def opened(kind: Kind) -> Any:
        there = paths[kind].exists()
        return (
            read_table(paths[kind], kind, unique=strict) if there else SCHEMAS[kind].empty_table()
        )

    # reading and checking leave Python alone, so that two threads take half the time of one
    with ThreadPoolExecutor(len(kinds)) as pool:
        images, choices = pool.map(opened, kinds)
    dataset = Dataset(images, choices, folder)
    if strict and paths["images"].exists():
        check_references(dataset)
    return dataset


def save_dataset(folder: Path | str, images: Any, choices: Any) -> Dataset:
    """Write the tables of a data set; all appear or none. An empty table is no file.

    Raises `DataError` where both are empty or a choice names an unknown image.
    """
    folder = Path(folder)
    dataset = Dataset(images, choices, folder)
    if len(images):
        check_references(dataset)
    wanted: dict[Kind, Any] = {"images": images, "choices": choices}
    if not any(len(table) for table in wanted.values()):
        raise DataError(f"{folder}: there is neither an image nor a choice to write")
    for kind, table in wanted.items():
        check_table(fit_schema(table, kind, f"{kind}.parquet"), kind, f"{kind}.parquet")
    with ExitStack() as stack:
        for kind, table in wanted.items():
            if len(table):
                temporary = stack.enter_context(atomic_path(folder / f"{kind}.parquet"))
                pq.write_table(table, temporary, compression="zstd")
    for kind, table in wanted.items():
        if not len(table):
            (folder / f"{kind}.parquet").unlink(missing_ok=True)
    return dataset


def check_references(dataset: Dataset) -> None:
    """Raise `DataError` where a choice names an image that the images table lacks."""
    column = dataset.choices.column("images")
    flat, known = pc.list_flatten(column), dataset.images.column("image")
    if all_among(flat, known):
        return
    unknown = pc.invert(pc.is_in(flat, value_set=known.combine_chunks()))
    count = pc.sum(unknown).as_py()
    place = pc.index(unknown, value=True).as_py()
    row = int(np.searchsorted(np.cumsum(list_lengths(column)), place, side="right"))
    raise DataError(
        f"{dataset.folder / 'choices.parquet'}, row {row}: image {flat[place].as_py()!r} is not in "
        f"images.parquet ({count} such places in all)"
    )


def image_path(row: Image | Mapping[str, Any], folder: Path | str) -> Path:
    """Return where the file of an image is; `folder` is that of the table.

    Raises `ImageError` where the table records no file.
    """
    key, path = (row.image, row.path) if isinstance(row, Image) else (row["image"], row["path"])
    if path is None:
        raise ImageError(f"image {key!r} has no file in the table of images")
    return Path(folder) / path


def image_fault(error: ImageError, row: Mapping[str, Any], folder: Path | str) -> str:
    """Say what is wrong with an image's file by the name of the file alone.

    Tables and pages are given away, and should not tell where files lie on this machine.
    """
    if row["path"] is None:
        return str(error)
    path = image_path(row, folder)
    return str(error).replace(str(path), path.name)


def stored_path(path: Path | str, folder: Path | str) -> str:
    """Return a path as the table stores it: relative if inside the folder, else absolute.

    Separators are `/` on every system.
    """
    whole = Path(path).resolve()
    base = Path(folder).resolve()
    return (whole.relative_to(base) if whole.is_relative_to(base) else whole).as_posix()


def relocate_images(images: Any, old: Path | str, new: Path | str) -> Any:
    """Return a table of images whose paths are right for another folder."""
    paths = [
        None if path is None else stored_path(Path(old) / path, new)
        for path in images.column("path").to_pylist()
    ]
    place = images.schema.get_field_index("path")
    return images.set_column(place, images.schema.field("path"), pa.array(paths, pa.string()))

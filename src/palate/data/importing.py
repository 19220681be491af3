"""Write what a source gives as a data set, row by row, with a run record of what was read and left out.

Rows go to temporary files that take their names at the end, so both tables appear or neither. What
stays in memory is a number per key.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq

from palate.data.images import describe_bytes, probe_image
from palate.data.records import Choice, Image
from palate.data.schemas import SCHEMAS, Kind
from palate.data.sources.common import Found, Imported, Report, Row, Source, hash_listing
from palate.data.tables import to_rows, to_table
from palate.errors import DataError, ImageError
from palate.runs import atomic_path, fresh_run, hash_text, sweep, track, write_atomic

_IMAGES_AT_ONCE: Final = 512
_A_THREAD: Final = 8
_BYTES_AT_ONCE: Final = 256 << 20
_ROWS_AT_ONCE: Final = 20_000
_THREADS: Final = 8
_SUFFIX: Final = {"JPEG": ".jpg", "TIFF": ".tif"}


def write_import(
    source: Source, out: Path, *, overwrite: bool = False, keep: Sequence[Path] = ()
) -> dict[str, Any]:
    """Write the tables of a source to a folder and return the counts.

    Image files stay where they are; the table names them, relative to `out` where they are inside
    it. Images that lie inside other files are written to `out/images`, unless the settings say no.
    `overwrite` replaces a former data set once the new one is whole. `keep` are further files and
    folders that must not lie inside `out`. Raises `DataError` for bad rows (unless allowed), keys that
    come twice, and choices between images that the source lacks; then nothing is written.
    """
    inputs: dict[str, Path | str] = dict(source.inputs)
    for given in inputs.values():
        if isinstance(given, Path) and not given.exists():
            raise DataError(f"{given}: does not exist")
    read = [*keep, *([] if source.folder is None else [source.folder])]
    if any(path.resolve().is_relative_to(out.resolve()) for path in read):
        raise DataError(f"{out}: holds files that are imported; choose another --out")
    if source.folder is not None and "images" not in inputs:
        inputs["images"] = f"image files with the listing {hash_listing(source.folder, out)}"
    verb = f"data import {source.name}"
    with fresh_run(verb, out, source.settings, inputs, overwrite=overwrite) as run:
        if not run.finished:
            with _Files(run.out) as files:
                result = _pump(source, files.add, run.out)
                files.check(source.report().faults.source)
            run.finish(result, files=files.written())
        return run.result


def collect(source: Source) -> Imported:
    """Read a source into two tables in memory; paths of images are absolute, and none is written."""
    memory = _Memory([], [])
    report = _pump(source, memory.add, None)
    images, choices = to_table(memory.images, "images"), to_table(memory.choices, "choices")
    return Imported(images, choices, report)


_Add: TypeAlias = Callable[[Kind, list[Any]], None]


@dataclass(frozen=True)
class _Memory:
    """Rows kept in lists."""

    images: list[Image]
    choices: list[Choice]

    def add(self, kind: Kind, rows: list[Any]) -> None:
        (self.images if kind == "images" else self.choices).extend(rows)


def _pump(source: Source, add: _Add, out: Path | None) -> dict[str, Any]:
    """Read all rows of a source one after the other; give the report."""
    report = source.report()
    prompts: set[int] = set()
    numbers = {"images": 0, "choices": 0}
    waiting: list[Found] = []
    answers: list[Choice] = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS)) as pool:

        def flush() -> None:
            rows = _described(waiting, source, report, out, pool)
            add("images", rows)
            add("choices", answers)
            numbers["images"] += len(rows)
            numbers["choices"] += len(answers)
            waiting.clear()
            answers.clear()

        held = 0
        rows: Iterable[Row] = track(source.rows(report), f"reading {source.name}")
        for row in rows:
            prompts.add(hash(row.prompt if isinstance(row, Choice) else row.image.prompt))
            if isinstance(row, Choice):
                answers.append(row)
            else:
                waiting.append(row)
                held += len(row.data or b"")
            many = len(waiting) >= _IMAGES_AT_ONCE or len(answers) >= _ROWS_AT_ONCE
            if many or held >= _BYTES_AT_ONCE:
                flush()
                held = 0
        flush()
    _settle(source, report, numbers["images"], numbers["choices"])
    return {**numbers, "prompts": len(prompts), **report.to_dict()}


def _settle(source: Source, report: Report, images: int, choices: int) -> None:
    report.faults.settle()
    if report.missing and source.rules.missing_images == "fail":
        raise DataError(
            f"{source.folder or report.faults.source}: {report.missing:,} of {images:,} images are not there: "
            + ", ".join(map(repr, report.missing_first))
            + (", …" if report.missing > len(report.missing_first) else "")
        )
    if not images + choices:
        raise DataError(f"{report.faults.source}: holds no record that can be used{report.told()}")


def _described(
    found: Sequence[Found],
    source: Source,
    report: Report,
    out: Path | None,
    pool: ThreadPoolExecutor,
) -> list[Image]:
    """Fill in path, hash and size of the images that are there, several at a time."""
    rows = []
    # handing one image over to a thread costs as much as finding out that it has no file
    some = [list(found[start : start + _A_THREAD]) for start in range(0, len(found), _A_THREAD)]
    told = pool.map(lambda few: [(one, _describe(one, source, out)) for one in few], some)
    for one, described in chain.from_iterable(told):
        if isinstance(described, ImageError):
            # allowed faults leave the row without its file: the person's answer stays true
            report.faults.add(f"image {one.image.image!r}", str(described))
        elif described is None:
            report.miss(one.image.image)
        rows.append(described if isinstance(described, Image) else one.image)
    return rows


def _describe(found: Found, source: Source, out: Path | None) -> Image | ImageError | None:
    """The row with its file, what is wrong with the file, or None where there is none."""
    settings, row = source.rules, found.image
    try:
        if found.data is not None:
            facts, kind = describe_bytes(
                found.data, row.image, max_pixels=settings.max_pixels, decode=settings.decode
            )
            path = None
            if out is not None and settings.extract:
                path = _extracted(out, row.image, facts.sha256, kind, found.data)
        elif found.file is None:
            return row
        elif not found.file.exists():
            return None
        else:
            facts = probe_image(found.file, max_pixels=settings.max_pixels, decode=settings.decode)
            path = found.file.resolve().as_posix()
    except ImageError as fault:
        return fault
    except OSError as fault:  # such as a name that is too long for the file system
        if out is not None and fault.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            raise
        return ImageError(f"{row.image}: could not be read: {fault.strerror}")
    return replace(row, path=path, sha256=facts.sha256, width=facts.width, height=facts.height)


def _extracted(out: Path, key: str, content: str, kind: str, data: bytes) -> str:
    """Write an image that lay inside another file, and give its path below the data set."""
    stem = quote(key.rsplit("/", 1)[-1], safe=" ()+,=@")[:80]
    suffix = _SUFFIX.get(kind, f".{kind.lower()}")
    name = f"images/{content[:2]}/{stem.removesuffix(suffix)}-{content[2:10]}{suffix}"
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.is_file() and path.stat().st_size == len(data)):
        write_atomic(path, data)
    return name


class _Files:
    """Two Parquet files that are written as rows come, and take their names together at the end."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._stack = ExitStack()
        self._writers: dict[Kind, Any] = {}
        self._temporary: dict[Kind, Path] = {}
        self._keys: dict[Kind, array[int]] = {"images": array("q"), "choices": array("q")}
        self._shown = array("q")
        self._rows: dict[Kind, list[Any]] = {"images": [], "choices": []}

    def __enter__(self) -> _Files:  # noqa: PYI034 - beartype checks no Self here
        for kind in self._keys:
            sweep(self.out / f"{kind}.parquet")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self._writers.values():
            writer.close()
        self._stack.__exit__(kind, fault, trace)
        if fault is None:
            for table in self._keys.keys() - self._writers.keys():
                (self.out / f"{table}.parquet").unlink(missing_ok=True)

    def add(self, kind: Kind, rows: list[Any]) -> None:
        """Write rows, and keep what tells their keys apart."""
        if not rows:
            return
        if kind == "images":
            self._keys[kind].extend(hash(row.image) for row in rows)
        else:
            self._keys[kind].extend(hash(row.choice) for row in rows)
            self._shown.extend(hash(key) for row in rows for key in row.images)
        self._rows[kind].extend(rows)
        if len(self._rows[kind]) >= _ROWS_AT_ONCE:
            self._write(kind)

    def _write(self, kind: Kind) -> None:
        """Write what waits as one group of rows."""
        rows = self._rows[kind]
        if not rows:
            return
        if kind not in self._writers:
            path = self._stack.enter_context(atomic_path(self.out / f"{kind}.parquet"))
            self._temporary[kind] = path
            schema = SCHEMAS[kind]
            self._writers[kind] = pq.ParquetWriter(path, schema, compression="zstd")
        self._writers[kind].write_table(to_table(rows, kind))
        rows.clear()

    def check(self, name: str) -> None:
        """Raise `DataError` where a key came twice, or a choice names an image that did not come."""
        for kind in self._rows:
            self._write(kind)
        for writer in self._writers.values():
            writer.close()
        for kind, keys in self._keys.items():
            again = _repeated(_numbers(keys))
            if len(again) and (key := self._twice(kind, again)) is not None:
                raise DataError(f"{name}: {kind[:-1]} {key!r} comes twice")
        if "images" not in self._writers:
            return
        unknown = np.setdiff1d(_numbers(self._shown), _numbers(self._keys["images"]))
        if len(unknown):
            choice, key = next(self._naming(unknown))
            raise DataError(f"{name}: choice {choice!r} names the image {key!r}, which never comes")

    def _twice(self, kind: Kind, numbers: Any) -> str | None:
        """The first key that stands there twice, among those with these numbers."""
        wanted, seen = set(numbers.tolist()), set()
        for batch in self._batches(kind, [kind[:-1]]):
            for key in batch.column(0).to_pylist():
                if hash(key) not in wanted:
                    continue
                if key in seen:
                    return str(key)
                seen.add(key)
        return None

    def _naming(self, numbers: Any) -> Iterator[tuple[str, str]]:
        wanted = set(numbers.tolist())
        for batch in self._batches("choices", ["choice", "images"]):
            for choice, images in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                for key in images:
                    if hash(key) in wanted:
                        yield choice, key

    def _batches(self, kind: Kind, columns: list[str]) -> Iterator[Any]:
        with pq.ParquetFile(self._temporary[kind]) as file:
            yield from file.iter_batches(columns=columns)

    def written(self) -> list[Path]:
        """The tables that were written."""
        return [
            self.out / f"{kind}.parquet" for kind in ("images", "choices") if kind in self._writers
        ]


def _numbers(keys: array[int]) -> Any:
    return np.frombuffer(keys, dtype=np.int64)


def _repeated(numbers: Any) -> Any:
    ordered = np.sort(numbers)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def imported_source(
    name: str,
    settings: object,
    inputs: Mapping[str, Path | str],
    imported: Imported,
    folder: Path,
) -> Source:
    """Return a source of tables that were read already, for small sources that need all rows at once."""
    hashes = [content or "" for content in imported.images.column("sha256").to_pylist()]
    contents = f"{len(hashes)} images with the contents {hash_text(*hashes)}"

    def rows(report: Report) -> Iterator[Row]:
        report.counts |= imported.report
        for image in to_rows(imported.images, Image):
            yield Found(image)
        yield from to_rows(imported.choices, Choice)

    return Source(name, settings, {**inputs, "images": contents}, rows, folder)

"""Read the rows of Parquet files a few at a time, with the row named where a file is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from palate.data.sources.common import Report
from palate.data.sources.texts import require_columns
from palate.errors import DataError
from palate.runs import hash_text

PICTURES: Final = ("jpg_0", "jpg_1")
"""Columns of plain bytes that are pictures; other columns of bytes are not read."""

_FEW: Final = 64
_MANY: Final = 10_000
_AT_ONCE: Final = 1 << 20


def parquet_files(path: Path) -> list[Path]:
    """List the Parquet files of a path: itself, or those below the folder, in the order of their names."""
    if not path.exists():
        raise DataError(f"{path}: does not exist")
    if not path.is_dir():
        return [path]
    found = [
        one
        for one in path.rglob("*.parquet")
        if one.is_file() and not any(part[0] == "." for part in one.relative_to(path).parts)
    ]
    return sorted(found, key=Path.as_posix)


def parquet_inputs(path: Path, files: list[Path]) -> dict[str, Path | str]:
    """Tell inputs apart: one file by content, a folder by names, sizes and times of hundreds of GB."""
    if not path.is_dir():
        return {"pairs": path}
    if not files:
        raise DataError(f"{path}: holds no Parquet file")
    told = []
    for one in files:
        facts = one.stat()
        told.append(f"{one.relative_to(path).as_posix()} {facts.st_size} {facts.st_mtime_ns}")
    return {"pairs": f"{len(files):,} Parquet files with the listing {hash_text(*told)}"}


def parquet_rows(
    path: Path, needed: Iterable[str] = (), report: Report | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number (from 0) and values of every row; times are text, and few rows are read at a time.

    Raises `DataError` that names the row where the file is no whole Parquet file. Columns of bytes that
    are no pictures are not read, and counted in `report`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # read ahead, a group of rows would be in memory several times: hundreds of images
        with pq.ParquetFile(path, buffer_size=_AT_ONCE, pre_buffer=False) as file:
            schema = file.schema_arrow
            require_once(path, schema.names)
            require_columns(path, dict.fromkeys(schema.names), list(needed))
            names = [name for name in schema.names if _is_read(schema.field(name))]
            if report is not None:
                for name in sorted(set(schema.names) - set(names)):
                    report.count(f"values_of_{name}_left_out", file.metadata.num_rows)
            heavy = any(_holds_bytes(schema.field(name).type) for name in names)
            for batch in file.iter_batches(_FEW if heavy else _MANY, columns=names):
                columns = [_plain(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    yield number, dict(zip(names, values, strict=True))
                    number += 1
    except UnicodeDecodeError:
        raise DataError(f"{path}: holds a text after row {number:,} that is no UTF-8") from None
    except (pa.ArrowException, OSError) as fault:
        reason = str(fault).partition("\n")[0].rstrip(".")
        raise DataError(
            f"{path}: is no whole Parquet file, it breaks off before row {number:,} ({reason})"
        ) from None


def require_once(path: Path, header: list[str]) -> None:
    """Raise `DataError` where a header has a column twice: one would hide the other."""
    if len(set(header)) != len(header):
        raise DataError(f"{path}: a column stands in the header twice: {', '.join(header)}")


def _is_read(column: Any) -> bool:
    """Whether a column is read: all but bytes with a name that is not that of a picture."""
    import pyarrow as pa

    plain = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    return not plain or column.name in PICTURES


def _holds_bytes(kind: Any) -> bool:
    return "binary" in str(kind)


def _plain(column: Any) -> list[Any]:
    """Values as Python has them, but times as text, as Python would lose their nanoseconds."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        # without its zone the value is UTC, and no table of zones is needed
        column = column.cast(pa.timestamp(column.type.unit)).cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def picture_bytes(value: Any) -> bytes | None:
    """Return the bytes of a picture in a Parquet file: plain, or an object with `bytes`; None if empty."""
    data = value.get("bytes") if isinstance(value, dict) else value
    return data if isinstance(data, bytes) and data else None

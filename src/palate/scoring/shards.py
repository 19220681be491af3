"""Finished pieces on disk: a Parquet file for each piece and scorer, found again by the next attempt."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.checks import check_table
from palate.data.tables import SCORES
from palate.data.urls import find_below, read_url, url_below, write_url
from palate.errors import DataError
from palate.runs import atomic_path

_MARK = b"piece"
_AT_ONCE = 16


class Shards:
    """The tables of finished pieces, in a folder, or in memory if there is none.

    A file is taken for what it is asked for if it carries the same mark, which says which rows, which images and which
    scorer. One that is damaged or holds an error is made again: it is only a copy, and the image may be there by now.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        """Name the folder, a path or a URL; it is made with its first file."""
        self.folder = folder
        self._held: dict[tuple[int, int], Any] = {}
        self._there: set[str] | None = None

    def find(self, piece: int, scorer: int, mark: str) -> Any | None:
        """Give the table of a piece if it is there, whole, without errors, and has this mark."""
        if self.folder is None or not self._is_there(piece, scorer):
            return None
        try:
            with self._file(piece, scorer) as file:
                table = file.read() if file.schema_arrow.metadata[_MARK] == mark.encode() else None
            if table is None or table["error"].null_count < len(table):
                return None
            table = table.cast(SCORES)
            check_table(table, "scores", _name(piece, scorer))
        except (DataError, pa.ArrowException, OSError, KeyError, TypeError):
            return None
        return table

    def put(self, piece: int, scorer: int, mark: str, table: Any) -> None:
        """Keep a table, on disk whole or not at all."""
        if self.folder is None:
            self._held[piece, scorer] = table
            return
        name = _name(piece, scorer)
        check_table(table, "scores", name)
        marked = table.replace_schema_metadata({**SCORES.metadata, _MARK: mark.encode()})
        if isinstance(self.folder, str):
            sink = pa.BufferOutputStream()
            pq.write_table(marked, sink, compression="zstd")
            write_url(url_below(self.folder, name), sink.getvalue().to_pybytes())
            return
        with atomic_path(self.folder / name) as temporary:
            pq.write_table(marked, temporary, compression="zstd")

    def read(self, piece: int, scorer: int) -> Any:
        """Give a table that was put."""
        if self.folder is None:
            return self._held[piece, scorer]
        with self._file(piece, scorer) as file:
            return file.read().cast(SCORES)

    def tables(self, pieces: int, scorers: int) -> Iterator[Any]:
        """Give all tables, those of one scorer after those of another; from behind a URL some at once."""
        places = ((piece, scorer) for scorer in range(scorers) for piece in range(pieces))
        if not isinstance(self.folder, str):
            for piece, scorer in places:
                yield self.read(piece, scorer)
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := list(islice(places, _AT_ONCE)):
                yield from pool.map(lambda place: self.read(*place), some)

    def _is_there(self, piece: int, scorer: int) -> bool:
        """Look for a file; a folder behind a URL is listed once, since what comes later is not asked for."""
        name = _name(piece, scorer)
        if isinstance(self.folder, Path):
            return (self.folder / name).is_file()
        if self._there is None:
            found = find_below(str(self.folder))
            self._there = {file.url.rpartition("/")[2] for file in found}
        return name in self._there

    def _file(self, piece: int, scorer: int) -> Any:
        """Open a file, to be closed by its reader."""
        name = _name(piece, scorer)
        if isinstance(self.folder, Path):
            return pq.ParquetFile(self.folder / name)
        data = read_url(url_below(str(self.folder), name))
        return pq.ParquetFile(pa.BufferReader(data))


def _name(piece: int, scorer: int) -> str:
    """Name the file of a piece and a scorer, both from 0."""
    return f"{piece:06d}-{scorer}.parquet"

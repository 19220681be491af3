"""Finished pieces on disk: a Parquet file for each piece and scorer, found again by the next attempt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.checks import check_table
from palate.data.tables import SCORES, read_table
from palate.errors import DataError
from palate.runs import atomic_path

_MARK = b"piece"


class Shards:
    """The tables of finished pieces, in a folder, or in memory if there is none.

    A file is taken for what it is asked for if it carries the same mark, which says which rows, which images and which
    scorer. One that is damaged or holds an error is made again: it is only a copy, and the image may be there by now.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Name the folder; it is made with its first file."""
        self.folder = folder
        self._held: dict[tuple[int, int], Any] = {}

    def path(self, piece: int, scorer: int) -> Path:
        """Name the file of a piece (from 0) and a scorer (from 0)."""
        assert self.folder is not None, "tables in memory have no file"
        return self.folder / f"{piece:06d}-{scorer}.parquet"

    def find(self, piece: int, scorer: int, mark: str) -> Any | None:
        """Give the table of a piece if it is there, whole, without errors, and has this mark."""
        if self.folder is None or not self.path(piece, scorer).is_file():
            return None
        try:
            found = (pq.read_schema(self.path(piece, scorer)).metadata or {}).get(_MARK)
            table = (
                read_table(self.path(piece, scorer), "scores") if found == mark.encode() else None
            )
        except (DataError, pa.ArrowException, OSError):
            return None
        return table if table is not None and table["error"].null_count == len(table) else None

    def put(self, piece: int, scorer: int, mark: str, table: Any) -> None:
        """Keep a table, on disk whole or not at all."""
        if self.folder is None:
            self._held[piece, scorer] = table
            return
        path = self.path(piece, scorer)
        check_table(table, "scores", path.name)
        marked = table.replace_schema_metadata({**SCORES.metadata, _MARK: mark.encode()})
        with atomic_path(path) as temporary:
            pq.write_table(marked, temporary, compression="zstd")

    def tables(self, pieces: int, scorers: int) -> Iterator[Any]:
        """Give all tables, those of one scorer after those of another."""
        for scorer in range(scorers):
            for piece in range(pieces):
                if self.folder is None:
                    yield self._held[piece, scorer]
                else:
                    yield pq.read_table(self.path(piece, scorer)).cast(SCORES)

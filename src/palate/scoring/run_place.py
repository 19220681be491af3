"""Where a run of ``score`` lies: its folder with record and shards, and its table; here or behind a URL."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from palate.data.urls import is_url, look_at_url, read_url, remove_url, told_by, write_url
from palate.errors import RunError
from palate.runs import RECORD
from palate.scoring.output import is_score_file
from palate.scoring.shards import Shards


@dataclass(frozen=True, slots=True)
class RunPlace:
    """``folder`` holds the run's record and ``table`` is written; both are copies if there are URLs of them."""

    folder: Path
    table: Path
    shards: Shards
    folder_url: str | None = None
    table_url: str | None = None

    @property
    def name(self) -> str:
        """What a user calls the table."""
        return self.table_url or str(self.table)

    @property
    def files(self) -> list[Path]:
        """What the run is finished with, for its record."""
        return [] if self.table_url else [self.table.resolve()]

    def publish(self) -> None:
        """Put the table where it belongs."""
        if self.table_url:
            write_url(self.table_url, self.table)

    def keep_record(self) -> None:
        """Put the record where it belongs."""
        if self.folder_url and (self.folder / RECORD).exists():
            write_url(f"{self.folder_url}/{RECORD}", (self.folder / RECORD).read_bytes())

    def forget_shards(self) -> None:
        """Remove the finished pieces, which the table holds."""
        if self.folder_url:
            remove_url(f"{self.folder_url}/shards")
        else:
            shutil.rmtree(self.folder / "shards", ignore_errors=True)


@contextlib.contextmanager
def run_place(out: Path | str, *, overwrite: bool) -> Iterator[RunPlace]:
    """Give the place of a run that writes to a file, a folder or a URL.

    Of a run behind a URL the record is copied here and put back when the run stops, whatever the reason, so that any
    machine goes on with it. Two machines that do the same run at once write the same files, but nobody keeps two
    different runs apart.

    Raises RunError for a table that is there and was not written by a run.
    """
    if isinstance(out, str) and is_url(out):
        with tempfile.TemporaryDirectory(prefix="palate-") as copies:
            yield from _behind_url(out, Path(copies) / "run", overwrite=overwrite)
        return
    path = Path(out)
    folder, table = (path, path / "scores.parquet") if not is_score_file(path) else _beside(path)
    if folder is not path and path.exists() and not folder.exists() and not overwrite:
        raise RunError(f"{out}: exists already; choose another --out, or --overwrite")
    yield RunPlace(folder, table, Shards(folder / "shards"))


def _beside(table: Path) -> tuple[Path, Path]:
    beside = table.stem if table.suffix.lower() == ".parquet" else table.name
    return table.with_name(f"{beside}.run"), table


def _behind_url(out: str, copy: Path, *, overwrite: bool) -> Iterator[RunPlace]:
    scheme, _, inside = out.rstrip("/").partition("://")
    path = PurePosixPath(inside)
    alone = is_score_file(Path(inside))
    folder, table = _beside(Path(path)) if alone else (Path(path), Path(path) / "scores.parquet")
    folder_url, table_url = f"{scheme}://{folder}", f"{scheme}://{table}"
    begun = look_at_url(f"{folder_url}/{RECORD}") is not None
    there = look_at_url(table_url) is not None
    if there and not begun and not overwrite:
        raise RunError(f"{out}: exists already; choose another --out, or --overwrite")
    copy.mkdir()
    if begun and overwrite:
        remove_url(folder_url if alone else f"{folder_url}/shards")
    elif begun:
        record = read_url(f"{folder_url}/{RECORD}")
        # finished, but the table is gone: it is made again
        if there or b'"status": "finished"' not in record:
            (copy / RECORD).write_bytes(record)
    shards = Shards(f"{folder_url}/shards")
    place = RunPlace(copy, copy.parent / table.name, shards, folder_url, table_url)
    with told_by(folder_url, copy):
        try:
            yield place
        finally:
            place.keep_record()

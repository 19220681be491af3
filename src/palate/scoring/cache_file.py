"""The file of the feature cache: one SQLite database, and arrays as bytes that show when they were altered.

SQLite, because it is in the standard library, is made for several processes at once, survives being killed, and
gives one transaction for a whole batch. diskcache is SQLite too, with one transaction per value, values as pickles and
large ones as files of their own; lmdb maps a file of a size that has to be chosen beforehand, needs a compiled package,
and knows nothing of age. Neither earns a dependency.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError

Arrays = tuple[NDArray[np.generic], ...]
Database = sqlite3.Connection

# the layout is in the name: two layouts never meet in one file
FILE = "features-1.sqlite"
WAIT = 20.0  # seconds for the lock of another process
DTYPES = ("float32", "float16", "int32", "int64", "bool", "uint8")
_APPLICATION = 0x50414C54
_KEPT_AFTER_TRIM = 0.9
_AT_ONCE = 500  # SQLite before 3.32 takes 999 variables
_DIGEST = 16
_SETTINGS = (
    # five feature vectors of 3 kB fill a page; a large value makes fewer steps
    "PRAGMA page_size = 16384",
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    # a power cut may lose the last batches, never the file
    "PRAGMA synchronous = NORMAL",
    f"PRAGMA journal_size_limit = {32 * 2**20}",
)
# values lie apart from their entries, so that looking for old ones reads no value
_TABLES = (
    f"PRAGMA application_id = {_APPLICATION}",
    "CREATE TABLE IF NOT EXISTS spaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE IF NOT EXISTS entries (
        id INTEGER PRIMARY KEY, space INTEGER NOT NULL, key TEXT NOT NULL,
        used INTEGER NOT NULL, size INTEGER NOT NULL, UNIQUE (space, key))""",
    "CREATE INDEX IF NOT EXISTS age ON entries (used)",
    "CREATE TABLE IF NOT EXISTS data (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    """CREATE TRIGGER IF NOT EXISTS gone AFTER DELETE ON entries
        BEGIN DELETE FROM data WHERE id = old.id; END""",
)


def connect(path: Path) -> Database:
    """Open a cache file, and make it if there is none; another program's database is refused."""
    db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        new = _is_new(db)
        for setting in _SETTINGS:
            db.execute(setting).fetchall()
        if new:
            with _transaction(db):
                for statement in _TABLES:
                    db.execute(statement)
    except BaseException:
        db.close()
        raise
    return db


def _is_new(db: Database) -> bool:
    """Say whether a database is empty; raises NotSupportedError for that of another program."""
    db.execute("BEGIN")  # both answers are of one moment, while another process may make the tables
    with db:
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and _number(db, "application_id") != _APPLICATION:
            raise sqlite3.NotSupportedError("not a cache of Palate")
    return not tables


def is_damage(error: Exception) -> bool:
    """Say whether an error means that the file is damaged or no cache."""
    kinds = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT}
    return isinstance(error, sqlite3.NotSupportedError) or _code(error) in kinds


def is_locked(error: Exception) -> bool:
    """Say whether an error means that another process has the file."""
    return _code(error) == sqlite3.SQLITE_BUSY


def _code(error: Exception) -> int:
    """Give SQLite's primary code of an error, without the details in the upper bits."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


@contextlib.contextmanager
def _transaction(db: Database) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    with db:
        yield


def _number(db: Database, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def select(db: Database, space: str, keys: Sequence[str]) -> list[tuple[str, int, int, object]]:
    """Give key, number, hour of last use and stored value of what is there, in any order."""
    query = (
        "SELECT key, entries.id, used, value FROM entries JOIN data ON data.id = entries.id"
        " WHERE space = (SELECT id FROM spaces WHERE name = ?) AND key IN ({})"
    )
    rows = []
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        rows += db.execute(query.format(", ".join("?" * len(some))), (space, *some)).fetchall()
    return rows


def insert(db: Database, space: str, values: Mapping[str, bytes], hour: int) -> None:
    """Store values in one transaction, each in the place of what its key had before."""
    with _transaction(db):
        db.execute("INSERT OR IGNORE INTO spaces (name) VALUES (?)", (space,))
        (number,) = db.execute("SELECT id FROM spaces WHERE name = ?", (space,)).fetchone()
        places = [(number, key) for key in values]
        db.executemany("DELETE FROM entries WHERE space = ? AND key = ?", places)
        for place, value in zip(places, values.values(), strict=True):
            row = (*place, hour, len(value))
            added = db.execute("INSERT INTO entries VALUES (NULL, ?, ?, ?, ?)", row).lastrowid
            db.execute("INSERT OR REPLACE INTO data VALUES (?, ?)", (added, value))


def note_uses(db: Database, numbers: Sequence[int], hour: int) -> None:
    """Write down that entries were used in an hour."""
    with _transaction(db):
        uses = [(hour, number) for number in numbers]
        db.executemany("UPDATE entries SET used = ? WHERE id = ?", uses)


def delete(db: Database, numbers: Sequence[int]) -> None:
    """Remove entries and their values."""
    with _transaction(db):
        db.executemany("DELETE FROM entries WHERE id = ?", [(number,) for number in numbers])


def bytes_in_use(db: Database) -> int:
    """Give the bytes of the pages that hold something."""
    return (_number(db, "page_count") - _number(db, "freelist_count")) * _number(db, "page_size")


def trim(db: Database, limit: int) -> None:
    """Where more than ``limit`` bytes are in use, remove what was used longest ago until 90 % of it are.

    It goes in steps, so that other processes get their turn. The pages are used again, and those beyond the limit are
    given back to the disk.
    """
    if bytes_in_use(db) <= limit:
        return
    query = "SELECT id, size FROM entries ORDER BY used, id LIMIT 1000"
    while (excess := bytes_in_use(db) - most_at_once(limit)) > 0:
        oldest = []
        for number, size in db.execute(query).fetchall():
            if excess > 0:
                oldest.append(number)
                excess -= size
        if not oldest:
            break
        delete(db, oldest)
    beyond = _number(db, "page_count") - limit // _number(db, "page_size")
    if beyond > 0:
        # a script, because execute stops after the first of the pages
        db.executescript(f"PRAGMA incremental_vacuum({beyond})")


def most_at_once(limit: int) -> int:
    """Give the bytes that are left after a trim; more at once would not stay."""
    return int(_KEPT_AFTER_TRIM * limit)


def describe_spaces(db: Database) -> dict[str, dict[str, int]]:
    """Give for each space its number of entries and their bytes; the time grows with the number of entries."""
    rows = db.execute(
        "SELECT name, count(*), sum(size) FROM entries JOIN spaces ON spaces.id = entries.space"
        " GROUP BY name ORDER BY name"
    )
    return {name: {"entries": count, "bytes": size} for name, count, size in rows}


def encode(space: str, key: str, arrays: Arrays) -> bytes:
    """Write arrays as a digest, the length of a header, the header (kinds and shapes), and the numbers.

    Raises DataError for an array of a kind that is not in ``DTYPES``.
    """
    for array in arrays:
        if array.dtype.name not in DTYPES:
            raise DataError(f"cannot cache an array of {array.dtype}, expected {', '.join(DTYPES)}")
    little = [array.astype(array.dtype.newbyteorder("<"), copy=False) for array in arrays]
    header = json.dumps([[array.dtype.str, array.shape] for array in little]).encode()
    parts = [len(header).to_bytes(4, "little"), header, *(array.tobytes() for array in little)]
    content = b"".join(parts)
    return _digest(space, key, content) + content


def decode(space: str, key: str, value: object) -> Arrays | None:
    """Read what :func:`encode` wrote for this space and key; None for anything else."""
    if not isinstance(value, bytes):
        return None
    content = memoryview(value)[_DIGEST:]
    if value[:_DIGEST] != _digest(space, key, content):
        return None
    start = 4 + int.from_bytes(content[:4], "little")
    arrays = []
    for kind, shape in json.loads(bytes(content[4:start])):
        dtype, count = np.dtype(kind), math.prod(shape)
        # a copy, because torch wants numbers that are aligned and may be written to
        flat = np.frombuffer(content, dtype, count, start).astype(dtype.newbyteorder("="))
        arrays.append(flat.reshape(shape))
        start += count * dtype.itemsize
    return tuple(arrays)


def _digest(space: str, key: str, content: bytes | memoryview) -> bytes:
    """Hash a value with its place, so that a value in another's place is found out too."""
    digest = hashlib.blake2b(json.dumps([space, key]).encode(), digest_size=_DIGEST)
    digest.update(content)
    return digest.digest()

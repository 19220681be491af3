"""A cache of features on disk, so that an image is decoded and looked at once, whatever is asked later."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from palate.errors import SettingsError
from palate.scoring.cache_file import (
    FILE,
    WAIT,
    Arrays,
    Database,
    bytes_in_use,
    connect,
    decode,
    delete,
    describe_spaces,
    encode,
    insert,
    is_damage,
    is_locked,
    most_at_once,
    note_uses,
    select,
    trim,
)

T = TypeVar("T")

DEFAULT_LIMIT = 10 * 10**9
_REMEMBERED_USES = 5000


def default_folder() -> Path:
    """Give the folder of the cache: $PALATE_CACHE, or ``palate`` in the user's cache folder."""
    if named := os.environ.get("PALATE_CACHE"):
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "palate"


def default_limit() -> int:
    """Give how many bytes the cache may take: $PALATE_CACHE_GB gigabytes, or 10.

    Raises SettingsError where the variable is not a number above 0.
    """
    named = os.environ.get("PALATE_CACHE_GB")
    if not named:
        return DEFAULT_LIMIT
    try:
        size = float(named)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise SettingsError(f"PALATE_CACHE_GB is '{named}', expected a number of gigabytes above 0")
    return max(1, int(size * 10**9))


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201


class FeatureCache:
    """Features kept on disk by space and key, for every process that opens the same folder.

    A space says how the features were made (tower, preparation, precision), a key of what (the hash of an image's
    content). A value is a tuple of arrays. ``hits`` and ``misses`` count what :meth:`get` found in this process.

    The file holds at most ``limit`` bytes: beyond it the values used longest ago go, until 90 % are left. When a value
    was used is known to the hour. The log beside the file (``-wal``) adds about 32 MB, or as much as the largest put.

    It is a help and never a hindrance: a value that was altered is a miss and removed, a file that is damaged or no
    cache is set aside, and where the disk is full, the folder read-only or the file locked, work goes on without it.
    Each is said once, on stderr. One object serves several threads; a pickled or forked one opens the file anew.
    """

    def __init__(self, folder: Path, limit: int, say: Callable[[str], None] = _to_stderr) -> None:
        """Name the folder and the limit in bytes; nothing is opened before it is needed."""
        self.folder, self.limit = Path(folder), limit
        self.hits = self.misses = 0
        self._say, self._said = say, False
        self._reads = self._writes = True
        self._used: set[int] = set()
        self._db: Database | None = None
        self._inode: int | None = None
        self._inherited: Database | None = None
        self._lock, self._process = Lock(), os.getpid()

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[Path, int]]:
        return FeatureCache, (self.folder, self.limit)

    def __enter__(self) -> FeatureCache:  # noqa: PYI034 - beartype cannot read Self
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """Name of the file."""
        return self.folder / FILE

    def get(self, space: str, keys: Sequence[str]) -> list[Arrays | None]:
        """Give the value of each key, in their order, or None where there is none."""
        nothing: list[tuple[str, int, int, object]] = []
        rows = self._try(lambda db: select(db, space, keys), nothing)
        found = {key: decode(space, key, value) for key, _, _, value in rows}
        values = [found.get(key) for key in keys]
        missing = sum(value is None for value in values)
        broken = [number for key, number, _, _ in rows if found[key] is None]
        hour = _hour()
        with self._own_lock():
            self.hits += len(keys) - missing
            self.misses += missing
            self._used.update(number for _, number, used, _ in rows if used != hour)
        if broken:
            self._try(lambda db: delete(db, broken), None, writes=True)
        if len(self._used) > _REMEMBERED_USES:
            self._try(self._note_uses, None, writes=True)
        return values

    def put(self, space: str, items: Mapping[str, Arrays]) -> None:
        """Keep values by their keys, all of them or none; a key that is there gets the new value.

        More than the cache may hold is not kept. Raises DataError for an array of a kind that is not in
        :data:`palate.scoring.cache_file.DTYPES`.
        """
        values = {key: encode(space, key, arrays) for key, arrays in items.items()}

        def write(db: Database) -> None:
            insert(db, space, values, _hour())
            self._note_uses(db)
            trim(db, self.limit)

        if values and sum(map(len, values.values())) <= most_at_once(self.limit):
            self._try(write, None, writes=True)

    def size(self) -> int:
        """Give the bytes that are in use, which the limit is held against; 0 where there is no cache."""
        return self._try(bytes_in_use, 0)

    def describe(self) -> dict[str, Any]:
        """Give where the cache is, its bytes in use and on disk, its limit, and what each space holds."""
        nothing: dict[str, dict[str, int]] = {}
        spaces = self._try(describe_spaces, nothing)
        files = [self.path.with_name(self.path.name + end) for end in ("", "-wal", "-shm")]
        return {
            "file": str(self.path),
            "size": self.size(),
            "on_disk": sum(file.stat().st_size for file in files if file.is_file()),
            "limit": self.limit,
            "entries": sum(space["entries"] for space in spaces.values()),
            "spaces": spaces,
        }

    def close(self) -> None:
        """Close the file; using the cache again opens it again."""
        if self._used:
            self._try(self._note_uses, None, writes=True)
        with self._own_lock():
            self._close()

    def _note_uses(self, db: Database) -> None:
        """Write down when values were used, many at a time: a read by itself writes nothing."""
        used, self._used = self._used, set()
        if used:
            note_uses(db, list(used), _hour())

    def _try(self, act: Callable[[Database], T], otherwise: T, *, writes: bool = False) -> T:
        """Act on the database; where that cannot be, say so once and give what stands for nothing."""
        with self._own_lock():
            for again in (True, False):
                if not (self._writes if writes else self._reads):
                    break
                try:
                    return act(self._open())
                except sqlite3.ProgrammingError:
                    raise
                except (sqlite3.DatabaseError, OSError) as error:
                    if not (again and is_damage(error) and self._set_aside(error)):
                        self._do_without(error, writes=writes)
        return otherwise

    def _own_lock(self) -> Lock:
        """Give the lock; a process that was forked leaves the lock and the connection to its parent."""
        if self._process != os.getpid():
            # kept, because closing it here would disturb the parent
            self._inherited, self._db = self._db, None
            self._lock, self._process = Lock(), os.getpid()
        return self._lock

    def _open(self) -> Database:
        """Open the file, or make it."""
        if self._db is None:
            self.folder.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + WAIT
        while self._db is None:
            self._inode = _inode(self.path)
            try:
                self._db = connect(self.path)
            except sqlite3.OperationalError as error:
                # two processes that make the file at once are refused without a wait
                if not is_locked(error) or time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                self._inode = _inode(self.path)
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _do_without(self, error: Exception, *, writes: bool) -> None:
        """Stop writing, or stop altogether, and say it once."""
        self._writes = False
        self._reads = self._reads and writes
        if not self._reads:
            self._close()
        if not self._said:
            self._said = True
            how = "adds nothing to the cache" if self._reads else "goes on without the cache"
            self._say(f"{self.path}: {error}; this process {how}, which changes no result")

    def _set_aside(self, error: Exception) -> bool:
        """Give a damaged or foreign file another name; say whether a new one can be begun."""
        self._close()
        if self._inode not in {None, _inode(self.path)}:
            return True  # another process was faster
        number = 1
        while (aside := self.folder / f"set-aside-{number}-{FILE}").exists():
            number += 1
        try:
            self.path.replace(aside)
            for end in ("-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        except OSError:
            return False
        self._say(f"{self.path}: {error}; it is now {aside.name}, and a new cache begins")
        return True


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _hour() -> int:
    return int(time.time() // 3600)

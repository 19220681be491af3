"""Files behind a URL, such as ``s3://bucket/name``: listed, read and written through fsspec.

A plain path never comes here, and ``file://`` is made a plain path, so local files cost nothing more.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import posixpath
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from palate.errors import DataError, MissingExtraError, PalateError, RunError

_BLOCK, _AHEAD = 8 * 2**20, 6
_STATES = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
_FOREIGN = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
)


@dataclass(frozen=True, slots=True)
class UrlFile:
    """A file behind a URL as it is now: its size in bytes and what tells it from a later one."""

    url: str
    size: int
    state: str


def is_url(place: object) -> bool:
    """Tell a URL from a path.

    >>> is_url("s3://bucket/a.tar"), is_url("a.tar"), is_url(Path("a.tar"))
    (True, False, False)
    """
    return isinstance(place, str) and "://" in place


def as_place(text: str) -> Path | str:
    """Give what a user wrote as a path, or as the URL that it is."""
    if text.startswith("file://"):
        return Path(_connect(text)[1])
    return text if is_url(text) else Path(text)


def url_below(folder: str, name: str) -> str:
    """Name a file below a folder behind a URL; a name that is a URL stands for itself.

    >>> url_below("s3://bucket/a", "../b/1.png")
    's3://bucket/b/1.png'
    """
    if is_url(name):
        return name
    scheme, _, path = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, name))}"


def look_at_url(url: str) -> UrlFile | None:
    """Look at the file of this name; None if there is none (there may be a folder)."""
    store, path = _connect(url)
    with _faults_told(url):
        try:
            facts = store.info(path)
        except FileNotFoundError:
            return None
    return _found(url, facts) if facts["type"] == "file" else None


def find_below(url: str) -> list[UrlFile]:
    """List all files below a folder behind a URL, in the order of their names."""
    store, path = _connect(url)
    with _faults_told(url):
        found = store.find(path, detail=True)
    base = url.rstrip("/")
    return [
        _found(f"{base}/{name.removeprefix(path).lstrip('/')}", found[name])
        for name in sorted(found)
    ]


def open_url(url: str) -> Any:
    """Open a file for reading bytes at any place; it reads ahead."""
    store, path = _connect(url)
    with _faults_told(url):
        return store.open(path, "rb")


def stream_url(url: str) -> Any:
    """Open a file to be read from some place on: the next blocks are fetched side by side while one is read."""
    store, path = _connect(url)
    with _faults_told(url):
        size = int(store.size(path) or 0)
    fetch = partial(store.cat_file, path)
    return io.BufferedReader(_Blocks(fetch, size))


def read_url(url: str) -> bytes:
    """Read a file whole."""
    store, path = _connect(url)
    with _faults_told(url):
        data: bytes = store.cat_file(path)
    return data


def write_url(url: str, content: bytes | Path) -> None:
    """Write a file, whole or not at all: bytes, or a local file with this content."""
    store, path = _connect(url)
    with _faults_told(url, RunError, "written"):
        if isinstance(content, Path):
            store.put_file(str(content), path)
        else:
            store.pipe_file(path, content)


def remove_url(url: str) -> None:
    """Remove a file or a folder with all that is in it; nothing happens if there is none."""
    store, path = _connect(url)
    with _faults_told(url, RunError, "removed"), contextlib.suppress(FileNotFoundError):
        store.rm(path, recursive=True)


@cache
def copy_here(url: str) -> Path:
    """Copy a file into a folder that is removed when the process ends; the same file is copied once."""
    folder = Path(tempfile.mkdtemp(prefix="palate-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / (posixpath.basename(url.rstrip("/")) or "file")
    store, path = _connect(url)
    with _faults_told(url):
        store.get_file(path, str(copy))
    return copy


@contextlib.contextmanager
def told_by(url: str | None, copy: Path) -> Iterator[None]:
    """Have errors about a copy name the URL it was made of."""
    try:
        yield
    except PalateError as error:
        if url is None or str(copy) not in str(error):
            raise
        raise type(error)(str(error).replace(str(copy), url)) from error


class _Blocks(io.RawIOBase):
    """A file of which ``_AHEAD`` blocks are fetched or being fetched."""

    def __init__(self, fetch: Callable[..., bytes], size: int) -> None:
        self._fetch, self._size, self._place = fetch, size, 0
        self._pool = ThreadPoolExecutor(_AHEAD)
        self._blocks: dict[int, Future[bytes]] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}
        self._place = starts[whence] + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        number, first = divmod(self._place, _BLOCK)
        last = -(-self._size // _BLOCK)
        for passed in [block for block in self._blocks if block < number - 1]:
            del self._blocks[passed]
        for block in range(number, min(number + _AHEAD, last)):
            if block not in self._blocks:
                start = block * _BLOCK
                end = min(start + _BLOCK, self._size)
                self._blocks[block] = self._pool.submit(self._fetch, start=start, end=end)
        if number >= last:
            return 0
        data = self._blocks[number].result()[first : first + len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()


@contextlib.contextmanager
def faults_of_urls(url: str) -> Iterator[None]:
    """Turn what a store raises while an open file is read into one sentence."""
    with _faults_told(url):
        yield


def _connect(url: str) -> tuple[Any, str]:
    """Give the store of a URL, and the file's name there."""
    from fsspec.core import url_to_fs

    scheme = url.partition("://")[0]
    try:
        with _faults_told(url):
            store, path = url_to_fs(url)
    except ImportError as error:
        if scheme in {"s3", "s3a"}:
            raise MissingExtraError(url, "s3") from None
        raise DataError(f"{url}: needs a package that is not installed ({error})") from None
    except ValueError:
        raise DataError(f"{url}: no kind of place is called '{scheme}'") from None
    return store, path


def _found(url: str, facts: dict[str, Any]) -> UrlFile:
    state = next((str(facts[name]) for name in _STATES if facts.get(name)), "")
    return UrlFile(url, int(facts["size"] or 0), state)


@contextlib.contextmanager
def _faults_told(
    url: str, kind: type[PalateError] = DataError, done: str = "read"
) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise kind(f"{url}: does not exist") from None
    except PermissionError:
        raise kind(f"{url}: may not be {done}") from None
    except _foreign() as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise kind(f"{url}: could not be {done}: {reason}") from error


def _foreign() -> tuple[type[BaseException], ...]:
    """Give the errors of the libraries that stores are reached by, as far as they are loaded."""
    loaded = [getattr(sys.modules[name], kind) for name, kind in _FOREIGN if name in sys.modules]
    return (OSError, *loaded)

"""Rows to be scored, and the pieces that they are scored, written and resumed in."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from palate.data.urls import url_below

Hashes: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Row:
    """One image with one prompt: its key, and its bytes or the file or URL that holds them.

    With neither there is nothing to open, and ``fault`` says why.
    """

    image: str
    prompt: str
    file: str | None = None
    data: bytes | None = None
    fault: str | None = None


class Piece(ABC):
    """A part of the rows, scored and written as one: small, and the same in any process."""

    name: str
    """What messages call it."""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Give the rows in their order, the same each time; images that come with them are read as it goes."""

    @abstractmethod
    def mark(self) -> str:
        """Hash what decides the rows and, as far as that is quick, the images; read before the images are."""


@final
@dataclass(frozen=True, slots=True)
class HeldPiece(Piece):
    """A piece that holds its rows; a local image that changed gives it another mark."""

    name: str
    held: tuple[Row, ...]

    def rows(self) -> Iterator[Row]:
        """Give the rows."""
        return iter(self.held)

    def mark(self) -> str:
        """Hash keys, prompts and files, with the size and time of each file."""
        digest = hashlib.sha256()
        for row in self.held:
            digest.update(hash_row(row))
            digest.update(repr(file_state(row.file)).encode())
        return digest.hexdigest()


class Source(ABC):
    """Something that gives its rows as often as it is asked, the same each time."""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Give the rows in their order, a few in memory at a time."""

    def pieces(self, size: int) -> Iterator[Piece]:
        """Cut the rows into pieces of about a size, in their order; one is in memory at a time."""
        source, first = self.rows(), 1
        while held := tuple(islice(source, size)):
            yield HeldPiece(f"rows {first} to {first + len(held) - 1}", held)
            first += len(held)


@dataclass(frozen=True, slots=True)
class Survey:
    """What one look at all rows tells, without opening an image.

    ``rows`` counts them, ``images`` and ``prompts`` the distinct ones or more, ``size`` is the bytes of all files
    together. ``digest`` tells the rows apart from any others; ``state`` their files, by size and time. The counts are
    None where only reading everything could tell, as for tars behind a URL.
    """

    rows: int | None
    images: int | None
    prompts: int | None
    size: int
    digest: str
    state: str

    def ticks(self) -> Iterator[None]:
        """Give something for each row, for ever if nobody counted them."""
        return repeat(None) if self.rows is None else repeat(None, self.rows)


class Surveyor:
    """Goes over rows one by one and keeps 24 bytes of each: hashes of the row, its image and its prompt."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._hashes = {name: array("Q") for name in ("row", "image", "prompt")}
        self._digest, self._state = hashlib.sha256(), hashlib.sha256()
        self._size = 0
        for row in rows:
            self._add(row)

    def __len__(self) -> int:
        return len(self._hashes["row"])

    def _add(self, row: Row) -> None:
        whole = hash_row(row)
        self._digest.update(whole)
        self._hashes["row"].append(int.from_bytes(whole[:8], "little"))
        self._hashes["image"].append(hash_text(row.image))
        self._hashes["prompt"].append(hash_text(row.prompt))
        size, changed = file_state(row.file)
        self._state.update(b"%d %d;" % (size, changed))
        self._size += max(size, 0)

    def hashes(self, name: str) -> Hashes:
        """Give the hashes of all rows (``row``), or of their images or prompts."""
        return np.frombuffer(self._hashes[name], dtype=np.uint64)

    def settle(self) -> Survey:
        """Sum up."""
        return Survey(
            len(self),
            len(np.unique(self.hashes("image"))),
            len(np.unique(self.hashes("prompt"))),
            self._size,
            self._digest.hexdigest(),
            self._state.hexdigest(),
        )


def hash_row(row: Row) -> bytes:
    """Hash key, prompt and file of a row."""
    digest = hashlib.blake2b(digest_size=16)
    for text in (row.image, row.prompt, row.file or ""):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.digest()


def hash_text(text: str) -> int:
    """Hash a text to 64 bits."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def file_state(file: str | None) -> tuple[int, int]:
    """Give a file's size in bytes and the time of its last change in nanoseconds; -1 where there is none."""
    if file is None:
        return -1, -1
    try:
        found = os.stat(file)  # noqa: PTH116 - a million times, so without making paths
    except (OSError, ValueError):
        return -1, -1
    return found.st_size, found.st_mtime_ns


def repeated(hashes: Hashes) -> NDArray[np.int64]:
    """Give the places of all hashes that are there more than once, in their order."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    again = np.zeros(len(hashes), dtype=bool)
    again[order[1:][same]] = again[order[:-1][same]] = True
    return np.flatnonzero(again)


def occurrences(hashes: Hashes) -> NDArray[np.uint32] | None:
    """Say for each hash how often it has come so far, from 1; None if each comes once."""
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.r_[True, hashes[order[1:]] != hashes[order[:-1]]])
    if len(starts) == len(hashes):
        return None
    lengths = np.diff(np.r_[starts, len(hashes)])
    counts = np.empty(len(hashes), dtype=np.uint32)
    counts[order] = np.arange(len(hashes)) - np.repeat(starts, lengths) + 1
    return counts


def file_below(folder: str, name: str) -> str:
    """Name a file below a folder, or behind a URL, as one text."""
    if "://" in name or "://" in folder:
        return url_below(folder, name)
    return os.path.join(folder, name)  # noqa: PTH118 - a million times

"""Images opened ahead of the network, in threads for few and in processes for many."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.util import Finalize
from pathlib import Path
from types import ModuleType
from typing import Any, final

import torch
from numpy.typing import NDArray
from PIL import Image

from palate.data.images import read_image
from palate.data.urls import is_url, read_url
from palate.errors import DataError, ImageError, RunError
from palate.models.pixels import Preparation, decode_picture, ready
from palate.scoring.cache import FeatureCache
from palate.scoring.pieces import Row

CHUNK = 8
_DIED = "the process that opened it died"
_MOST_DEAD = 3 * CHUNK


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made of each image: the preparation of each tower, unless its features are in the cache.

    ``spaces`` are the towers' names there. ``pictures`` keeps the opened image as well.
    """

    preparations: tuple[Preparation, ...]
    spaces: tuple[str, ...] = ()
    cache: FeatureCache | None = None
    exif: bool = False
    pictures: bool = False


@dataclass(slots=True)
class Opened:
    """An image's content hash and size in pixels; for each tower its features or what it will look at; or an error."""

    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    found: list[NDArray[Any] | None] = field(default_factory=list)
    ready: list[NDArray[Any] | None] = field(default_factory=list)
    picture: Image.Image | None = None
    error: str | None = None


def open_rows(rows: Sequence[Row], plan: Plan) -> list[Opened]:
    """Read each image once, and decode it unless the cache has its features for every tower."""
    if any(is_url(row.file) for row in rows):
        with ThreadPoolExecutor(len(rows)) as pool:  # a store answers late, but many at once
            contents = list(pool.map(_read, rows))
    else:
        contents = [_read(row) for row in rows]
    keys = [opened.sha256 + "/exif" * plan.exif for opened, _ in contents]
    _look_up(keys, [opened for opened, _ in contents], plan)
    for row, (opened, data) in zip(rows, contents, strict=True):
        known = all(features is not None for features in opened.found)
        if opened.error is None and (plan.pictures or not known):
            _decode(row, data, opened, plan)
    return [opened for opened, _ in contents]


def _read(row: Row) -> tuple[Opened, bytes]:
    if row.data is None and row.file is None:
        fault = row.fault or f"image {row.image!r} has no file in the table of images"
        return Opened(error=fault), b""
    try:
        data = _content(row.file) if row.data is None else row.data  # type: ignore[arg-type]
    except DataError as error:
        return Opened(error=_fault(error, row)), b""
    return Opened(hashlib.sha256(data).hexdigest()), data


def _content(file: str) -> bytes:
    return read_url(file) if is_url(file) else read_image(file)


def _look_up(keys: Sequence[str], opened: Sequence[Opened], plan: Plan) -> None:
    good = [place for place, one in enumerate(opened) if one.error is None]
    for place in good:
        opened[place].found = [None] * len(plan.preparations)
    for tower, space in enumerate(plan.spaces if plan.cache and good else ()):
        values = plan.cache.get(space, [keys[place] for place in good])  # type: ignore[union-attr]
        for place, value in zip(good, values, strict=True):
            if value is not None:
                features, size = value
                opened[place].found[tower] = features
                opened[place].size = (int(size[0]), int(size[1]))


def _decode(row: Row, data: bytes, opened: Opened, plan: Plan) -> None:
    made: dict[Preparation, NDArray[Any]] = {}
    opened.ready = [None] * len(plan.preparations)
    try:
        picture = decode_picture(data, row.file or row.image, exif=plan.exif)
        for tower, how in enumerate(plan.preparations):
            if opened.found[tower] is None:
                if how not in made:
                    made[how] = ready(picture, how)
                opened.ready[tower] = made[how]
    except ImageError as error:
        opened.error, opened.ready = _fault(error, row), []
        return
    opened.size = picture.size
    opened.picture = picture if plan.pictures else None


def _fault(error: DataError, row: Row) -> str:
    """Name a file by its name alone: tables are given away, and should not tell where files lie here."""
    here = row.file is not None and not is_url(row.file)
    return str(error).replace(row.file, Path(row.file).name) if here else str(error)  # type: ignore[arg-type]


@final
class Opener:
    """Opens rows in the background, in their order, a bounded number ahead of where they are taken.

    At most ``ahead`` images and two chunks of 8 for each worker are opened or being opened and not taken yet. An image
    that kills its process twice becomes a row with an error; nothing else is lost by it.
    """

    def __init__(self, plan: Plan, *, workers: int, ahead: int, processes: bool) -> None:
        """Start nothing yet; workers start as there is work."""
        self.plan, self.workers, self.processes = plan, workers, processes
        self._most = -(-ahead // CHUNK) + 2 * workers
        self._pool: Executor | None = None
        self._dead = 0

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def stream(self, rows: Iterable[Row]) -> Iterator[Opened]:
        """Give what each row's image opened as; each is to be taken before the next is asked for."""
        source = iter(rows)
        waiting: deque[tuple[list[Row], Future[list[Opened]]]] = deque()
        while chunk := list(islice(source, CHUNK)):
            waiting.append((chunk, self._submit(chunk)))
            if len(waiting) >= self._most:
                yield from self._take(*waiting.popleft())
        while waiting:
            yield from self._take(*waiting.popleft())

    def _submit(self, chunk: list[Row]) -> Future[list[Opened]]:
        if not self.processes:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.workers)
            return self._pool.submit(open_rows, chunk, self.plan)
        try:
            return self._to_process(chunk)
        except (
            BrokenProcessPool
        ):  # a process died since; the chunks it had are taken care of in _take
            self._pool = None
            return self._to_process(chunk)

    def _to_process(self, chunk: list[Row]) -> Future[list[Opened]]:
        if self._pool is None:
            self._pool = _processes(self.workers, self.plan)
        with _without_main():
            return self._pool.submit(_open_here, chunk)

    def _take(self, chunk: list[Row], future: Future[list[Opened]]) -> list[Opened]:
        try:
            found = future.result()
        except BrokenProcessPool:
            found = _open_alone(chunk, self.plan) or [
                (_open_alone([row], self.plan) or [Opened(error=_DIED)])[0] for row in chunk
            ]
        self._dead = self._dead + 1 if all(one.error == _DIED for one in found) else 0
        if self._dead >= _MOST_DEAD // CHUNK:
            raise RunError(
                f"the processes that open images died {_MOST_DEAD} times in a row, last at "
                f"{chunk[-1].image}; expected them to live (is there enough memory for --workers {self.workers}?)"
            )
        return found


def _open_alone(chunk: list[Row], plan: Plan) -> list[Opened] | None:
    """Open rows in a process of their own; None if it dies."""
    with _processes(1, plan) as pool:
        try:
            with _without_main():
                future = pool.submit(_open_here, chunk)
            return future.result()
        except BrokenProcessPool:
            return None


def _processes(workers: int, plan: Plan) -> ProcessPoolExecutor:
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        # torch is imported once, and the workers are its forks
        context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(workers, context, _begin, (plan,))


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not import the caller's script: they need nothing of it, and it may run when imported."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_plan: Plan | None = None


def _begin(plan: Plan) -> None:
    """Make a new process a worker: one thread, Ctrl-C left to the parent, gone when the parent is."""
    global _plan  # noqa: PLW0603 - the one thing that a worker remembers
    _plan = plan
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if plan.cache is not None:
        Finalize(None, plan.cache.close, exitpriority=1)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _open_here(rows: list[Row]) -> list[Opened]:
    assert _plan is not None, "a worker begins with its plan"
    return open_rows(rows, _plan)

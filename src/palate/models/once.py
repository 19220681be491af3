"""Several scorers can be made of one file; it is read once, and they share its tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_KEPT: ContextVar[dict[object, object] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """Within it, what is made of a file is made once; nothing is kept beyond it."""
    token = _KEPT.set({} if _KEPT.get() is None else _KEPT.get())
    try:
        yield
    finally:
        _KEPT.reset(token)


def once(what: str, path: Path, make: Callable[[], T]) -> T:
    """Give what is made of a file: the same again within :func:`reading_once`, if the file is the same."""
    kept = _KEPT.get()
    if kept is None or not path.exists():
        return make()
    state = path.stat()
    key = (what, path.resolve(), state.st_size, state.st_mtime_ns)
    if key not in kept:
        kept[key] = make()
    return kept[key]  # type: ignore[return-value]

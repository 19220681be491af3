"""Progress that people can watch and logs can hold."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Go through items and show the progress on stderr.

    A bar in a terminal; a line every few seconds elsewhere; nothing if ``PALATE_QUIET=1``.

    Args:
        items: what to go through, in order.
        label: what is being done, such as ``"scoring"``.
        total: how many there are, where ``len(items)`` does not say.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if os.environ.get("PALATE_QUIET") == "1":
        yield from items
    elif sys.stderr.isatty():
        yield from _with_bar(items, label, total)
    else:
        yield from _with_lines(items, label, total)


def _with_bar(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    from rich import progress
    from rich.console import Console

    class Rate(progress.ProgressColumn):
        """How many a second."""

        def render(self, task: progress.Task) -> str:
            speed = task.finished_speed or task.speed
            return _rate(speed) if speed else ""

    columns = [
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        Rate(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
    ]
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(items, total=total, description=label)


def _with_lines(
    items: Iterable[T], label: str, total: int | None, every: float = 10.0
) -> Iterator[T]:
    start = shown = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - shown >= every:
            shown = now
            of = f"{done} of {total}" if total is not None else str(done)
            rate = _rate(done / (now - start))
            print(f"{label}: {of}, {now - start:.0f} s, {rate}", file=sys.stderr, flush=True)  # noqa: T201
        yield item


def _rate(speed: float) -> str:
    return f"{speed:.3g}/s" if speed < 1000 else f"{speed:,.0f}/s"

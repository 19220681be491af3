"""One thing that an audit found, and the pictures that show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

Level = Literal["error", "warning", "note"]
_EXAMPLES: Final = 5


@dataclass(frozen=True)
class Finding:
    """What was found, how often, and the first cases by name."""

    level: Level
    kind: str
    count: int
    message: str
    examples: tuple[str, ...]

    @classmethod
    def of(cls, level: Level, kind: str, cases: Sequence[str], message: str) -> Finding:
        """Make a finding of all its cases; the message goes after their number."""
        return cls.counted(level, kind, len(cases), cases, message)

    @classmethod
    def counted(
        cls, level: Level, kind: str, count: int, cases: Iterable[str], message: str
    ) -> Finding:
        """Make a finding of a number and its first cases; the message goes after the number."""
        return cls(level, kind, count, f"{count} {message}", tuple(islice(cases, _EXAMPLES)))


@dataclass(frozen=True)
class Picture:
    """An image of an example; `path` is None where there is no file."""

    label: str
    path: Path | None


@dataclass(frozen=True)
class Strip:
    """Images side by side that show one case of a finding of this kind."""

    kind: str
    title: str
    pictures: tuple[Picture, ...]

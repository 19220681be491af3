"""One thing that an audit found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        return cls(level, kind, len(cases), f"{len(cases)} {message}", tuple(cases[:_EXAMPLES]))

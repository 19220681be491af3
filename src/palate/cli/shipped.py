"""Models that Palate ships, by the names that commands accept in place of a folder."""

from __future__ import annotations

from pathlib import Path

import palate


def generator_folder(named: Path) -> Path:
    """The folder of a generator: a path as it is, or the simulated world's for `miniature`."""
    if named == Path("miniature") and not named.exists():
        return Path(palate.__file__).parent / "miniature" / "weights" / "generator"
    return named

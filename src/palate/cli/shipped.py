"""Models that Palate ships, by the names that commands accept in place of a folder."""

from __future__ import annotations

from pathlib import Path

import palate


def generator_folder(named: Path) -> Path:
    """The folder of a generator: a path as it is, the simulated world's for `miniature`, or a Hub id's.

    Of an id, `owner/name` or `owner/name@revision`, what is not in the local cache is fetched, with a word.
    """
    if named.exists():
        return named
    if named == Path("miniature"):
        return Path(palate.__file__).parent / "miniature" / "weights" / "generator"
    from palate.models.hub import locate_pipeline

    return locate_pipeline(named).path

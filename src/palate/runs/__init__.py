"""Run records: what a verb was given, with which versions, and what came out.

A run is a folder with a ``run.json``. The same command again finds its run: a finished one is not
repeated, an interrupted one is resumed, and another one is refused rather than mixed in.
"""

from palate.runs.files import (
    RECORD,
    atomic_path,
    hash_file,
    hash_path,
    hash_text,
    seed_for,
    sweep,
    write_atomic,
)
from palate.runs.progress import track
from palate.runs.record import Run, fresh_run, start_run

__all__ = [
    "RECORD",
    "Run",
    "atomic_path",
    "fresh_run",
    "hash_file",
    "hash_path",
    "hash_text",
    "seed_for",
    "start_run",
    "sweep",
    "track",
    "write_atomic",
]

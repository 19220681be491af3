"""Every error that a user can meet, as one tree.

::

    PalateError
    ├── SettingsError       a setting that does not exist, or has the wrong type or value
    ├── DataError           a table, a row or a source file that is not what it should be
    │   └── ImageError      an image file that is missing, broken, too large or no image
    ├── CheckpointError     weights that do not fit, are damaged or would run code when read
    ├── RunError            a run folder that holds another run, or cannot be written
    └── MissingExtraError   a part of Palate that is not installed

The message is one sentence: what was found, what was expected, and where.
"""

from __future__ import annotations


class PalateError(Exception):
    """Something that the user can put right; its message says how."""


class SettingsError(PalateError):
    """A setting does not exist, or its type or value is wrong."""


class DataError(PalateError):
    """A table, a row or a source file is not what it should be."""


class ImageError(DataError):
    """An image file is missing, broken, too large or no image."""


class CheckpointError(PalateError):
    """Weights do not fit, are damaged, or would run code when read."""


class RunError(PalateError):
    """A run folder holds another run, or cannot be written."""


class MissingExtraError(PalateError):
    """A part of Palate that is not installed was asked for."""

    def __init__(self, what: str, extra: str) -> None:
        """Name what was asked for and the extra that brings it."""
        super().__init__(what, extra)

    def __str__(self) -> str:
        what, extra = self.args
        return f"{what} needs the extra '{extra}': pip install 'palate[{extra}]'"

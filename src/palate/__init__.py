"""Palate turns human choices between generated images into a preference score.

The score then makes better images. Every name below is imported on first use, so that
``import palate`` is quick and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palate.errors import (
        CheckpointError,
        DataError,
        ImageError,
        MissingExtraError,
        PalateError,
        RunError,
        SettingsError,
    )
    from palate.runs import hash_file, seed_for, start_run
    from palate.settings import read_settings, settings_dict

__version__ = "0.1.0"

# public name -> the module that holds it
_HOMES = {
    "CheckpointError": "palate.errors",
    "DataError": "palate.errors",
    "ImageError": "palate.errors",
    "MissingExtraError": "palate.errors",
    "PalateError": "palate.errors",
    "RunError": "palate.errors",
    "SettingsError": "palate.errors",
    "hash_file": "palate.runs",
    "read_settings": "palate.settings",
    "seed_for": "palate.runs",
    "settings_dict": "palate.settings",
    "start_run": "palate.runs",
}

__all__ = [
    "CheckpointError",
    "DataError",
    "ImageError",
    "MissingExtraError",
    "PalateError",
    "RunError",
    "SettingsError",
    "__version__",
    "hash_file",
    "read_settings",
    "seed_for",
    "settings_dict",
    "start_run",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'palate' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)

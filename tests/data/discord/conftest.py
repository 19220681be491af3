"""Make the synthetic channels importable as `palate_channels`; tests are no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent

if "palate_channels" not in sys.modules:
    _SPEC = importlib.util.spec_from_file_location(
        "palate_channels",
        _FOLDER / "channels.py",
        submodule_search_locations=[str(_FOLDER)],
    )
    assert _SPEC is not None
    assert _SPEC.loader is not None
    _MODULE = importlib.util.module_from_spec(_SPEC)
    sys.modules["palate_channels"] = _MODULE
    _SPEC.loader.exec_module(_MODULE)

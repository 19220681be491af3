"""Make the strategies of this folder importable; tests are no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).with_name("strategies.py")

if "palate_strategies" not in sys.modules:
    _SPEC = importlib.util.spec_from_file_location("palate_strategies", _PATH)
    assert _SPEC is not None
    assert _SPEC.loader is not None
    _MODULE = importlib.util.module_from_spec(_SPEC)
    sys.modules["palate_strategies"] = _MODULE
    _SPEC.loader.exec_module(_MODULE)

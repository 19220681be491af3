"""The official fixtures, for every scorer in turn."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

# tests are no package, so the cases are loaded by their place
_SPEC = importlib.util.spec_from_file_location("official", Path(__file__).with_name("official.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
sys.modules["official"] = _MODULE
_SPEC.loader.exec_module(_MODULE)


@pytest.fixture(params=list(_MODULE.OFFICIAL))
def official(request):
    """One scorer with its cases."""
    return _MODULE.official_case(request.param)

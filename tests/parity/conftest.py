"""The official fixtures, for every scorer in turn."""

from __future__ import annotations

import pytest
from official import OFFICIAL, official_case


@pytest.fixture(params=list(OFFICIAL))
def official(request):
    """One scorer with its cases."""
    return official_case(request.param)

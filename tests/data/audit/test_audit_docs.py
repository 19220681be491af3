"""The page about the audit says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from palate.data.audit.audit import AuditSettings
from palate.data.audit.images import MARKS, TINY
from palate.data.audit.page import PICTURES
from palate.data.audit.people import TIMES
from palate.data.audit.prompts import LIMITS
from palate.data.images import MAX_PIXELS


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "audit.md").read_text(encoding="utf-8")


def test_every_finding_is_explained(page: str, root: Path) -> None:
    code = "".join(path.read_text() for path in (root / "src/palate/data/audit").glob("*.py"))
    named = set(re.findall(r'"(?:error|warning|note)",\s+"([a-z -]+)"', code))
    named |= set(re.findall(r'^    "([a-z ]+)": \(\s*"(?:warning|note)"', code, re.MULTILINE))
    assert len(named) > 30
    assert sorted(name for name in named | {"missing files"} if f"| {name} |" not in page) == []


def test_numbers_on_the_page_are_those_of_the_code(page: str) -> None:
    assert AuditSettings().max_pixels == MAX_PIXELS
    assert f"differ by less than {AuditSettings().near:g} of 255" in page
    assert f"at most {AuditSettings().hash_distance} of 64 bits" in page
    assert f"below {TINY} pixels" in page
    assert f"at most {PICTURES} pictures" in page
    for encoder, limit in LIMITS.items():
        assert f"{limit} for {encoder}" in page
    for key in (*MARKS, *TIMES):
        assert f"`{key}`" in page

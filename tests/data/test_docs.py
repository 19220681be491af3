"""The page about data says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from palate.data.images import FORMATS, MAX_PIXELS
from palate.data.schemas import SCHEMAS


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", list(SCHEMAS))
def test_the_tables_on_the_page_are_the_schemas(kind: str, page: str) -> None:
    part = page.split(f"### {kind.capitalize()}\n")[1].split("###", maxsplit=1)[0]
    rows = re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \| (.*) \|$", part, re.MULTILINE)
    assert rows == [
        (field.name, "yes" if field.nullable else "no", field.metadata[b"doc"].decode())
        for field in SCHEMAS[kind]
    ]


def test_limits_on_the_page_are_those_of_the_code(page: str) -> None:
    assert f"More than {MAX_PIXELS // 1_000_000} million pixels" in page
    for name in FORMATS:
        assert name.lower() in page.lower()

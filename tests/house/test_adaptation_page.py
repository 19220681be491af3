"""docs/adaptation.md shows the figures that were kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return __import__


def test_the_figures_of_adaptation_are_those_that_were_kept(script):
    page, made = (ROOT / "docs" / "adaptation.md").read_text("utf-8"), script("adaptation_page")
    assert made.adaptation_page(page, made.kept("methods"), made.kept("adaptation")) == page


def test_every_method_is_compared_on_the_same_labels(script):
    from palate.adaptation.methods import METHODS

    found = script("adaptation_page").kept("methods")
    assert [one["method"] for one in found["methods"]] == list(METHODS)
    assert {len(one["utility_by_seed"]) for one in found["methods"]} == {found["seeds"]}
    for one in found["methods"]:
        by_seed = sum(one["utility_by_seed"]) / found["seeds"]
        assert one["utility"]["estimate"] == pytest.approx(by_seed, abs=1e-6)

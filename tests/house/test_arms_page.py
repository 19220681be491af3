"""docs/arms.md shows the figures that were kept, and its words are those of the code."""

from __future__ import annotations

import json
import sys
from typing import get_args

from palate.evaluation.arms.effects import CLEAR, Answer
from palate.evaluation.arms.measures import FEATURES, PIXELS, SIDE, STATISTICS


def test_the_figures_of_the_page_are_those_that_were_kept(root, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(root / "benchmarks"), *sys.path])
    script = __import__("arms_miniature")
    page, kept = script.PAGE.read_text("utf-8"), json.loads(script.KEPT.read_text("utf-8"))
    assert script.filled(page, kept) == page
    assert kept["found"]["verdict"]["sentence"] in page


def test_every_answer_and_measure_is_on_the_page(root):
    page = (root / "docs" / "arms.md").read_text("utf-8")
    assert [one for one in get_args(Answer) if f"| {one} |" not in page] == []
    assert [one for one in (*STATISTICS, PIXELS, FEATURES) if one not in page] == []
    assert f"{SIDE} × {SIDE} pixels" in page
    assert f"−{100 * CLEAR:g} %" in page

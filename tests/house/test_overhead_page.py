"""docs/scale.md shows the figures of the Ray engine that were kept."""

from __future__ import annotations

import json
import sys


def test_the_figures_of_the_page_are_those_that_were_kept(root, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(root / "benchmarks"), *sys.path])
    script = __import__("ray_overhead")
    page = (root / "docs" / "scale.md").read_text("utf-8")
    kept = json.loads((root / "benchmarks" / "ray-overhead.json").read_text("utf-8"))
    assert script.filled(page, kept) == page

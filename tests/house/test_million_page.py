"""The page of statistics shows what a million choices cost, as it was measured."""

from __future__ import annotations

import json


def test_the_seconds_on_the_page_are_those_that_were_kept(root):
    kept = json.loads((root / "benchmarks" / "million.json").read_text())
    page = (root / "docs" / "statistics" / "README.md").read_text()
    rows = [f"| {name} | {seconds:.1f} |" for name, seconds in kept["seconds"].items()]
    assert "\n".join(rows) in page
    assert f"{kept['peak_bytes'] / 1e9:.1f} GB" in page
    for name, one in kept["commands"].items():
        assert f"| {name} | {one['seconds']:.1f} | {one['peak_bytes'] / 1e9:.1f} |" in page

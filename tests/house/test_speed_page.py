"""docs/speed.md and docs/scale.md show the figures that were kept, and the commands of docs/speed.md run."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "speed.md"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return __import__


def test_the_figures_of_speed_are_those_that_were_kept(script):
    page, speed = PAGE.read_text("utf-8"), script("speed_page")
    memory = json.loads((ROOT / "benchmarks" / "memory.json").read_text("utf-8"))
    assert speed.filled(page, speed.every("scoring"), speed.newest("drift"), memory) == page


def test_the_figures_of_scale_are_those_that_were_kept(script):
    page, scale = (ROOT / "docs" / "scale.md").read_text("utf-8"), script("scale")
    kept = json.loads((ROOT / "benchmarks" / "scale.json").read_text("utf-8"))
    assert scale.filled(page, kept) == page


def test_the_kept_drift_holds_what_is_promised_of_trained_weights(script):
    rows = [
        row for row in script("speed_page").newest("drift")["rows"] if row["weights"] == "trained"
    ]
    assert len(rows) >= 4
    for row in rows:
        assert row["largest_cosine"] <= 2e-3
        assert row["reordered"] < 0.005


def test_the_commands_and_the_python_of_the_page_run(tmp_path, monkeypatch):
    from PIL import Image

    from palate.cli.main import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for place in range(3):
        Image.new("RGB", (40, 40), (80 * place, 90, 10)).save(tmp_path / f"pictures/{place}.png")
    (tmp_path / "pictures/prompts.txt").write_text("".join(f"{n}.png\ta fox\n" for n in range(3)))
    page = PAGE.read_text("utf-8")
    for line in "".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL)).splitlines():
        assert main(shlex.split(line)[1:]) == 0
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "speed.md", "exec"), {})

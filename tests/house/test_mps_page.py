"""docs/mps-training.md shows the figures that were kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return __import__


def test_the_figures_of_the_dimensions_are_those_that_were_kept(script):
    page, made = (
        (ROOT / "docs" / "mps-training.md").read_text("utf-8"),
        script("mps_dimensions_page"),
    )
    facts = made.kept("mps-dimensions")
    assert made.mps_page(page, facts) == page
    assert set(facts["dimensions"]) == set(script("mps_dimensions").TASTES)
    assert facts["masks"] == list(script("mps_dimensions").MASKS)


@pytest.mark.slow
def test_the_dimensions_of_the_miniature_differ_and_a_perfect_scorer_reaches_the_best(
    script, tmp_path
):
    made = script("mps_dimensions")
    world = made.World(tmp_path / "held", "spare", 20, 4)
    scales = world.scales()
    held = made.Held(world, scales)
    for name in made.TASTES:
        # the chances of one dimension say less of another
        assert held.accuracy(name, (held.world.aspects @ taste(made, name)).ravel()).mean() > 0.6
        others = [
            made.expected_accuracy(held.chances[other], held.chances[name]).mean()
            for other in made.TASTES
            if other != name
        ]
        assert max(others) < held.best(name).mean() - 0.01
    made.ask(world, scales)
    choices = made.load_dataset(world.folder).choices
    assert len(choices) == 20 * 2 * len(made.TASTES)
    assert set(choices["dimension"].to_pylist()) == set(made.TASTES)


def taste(made, name):
    import numpy as np

    return np.array(made.WEIGHTS) * np.array(made.TASTES[name])

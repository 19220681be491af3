"""docs/training.md shows the figures that were kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return __import__


def test_the_figures_of_training_are_those_that_were_kept(script):
    page, made = (ROOT / "docs" / "training.md").read_text("utf-8"), script("training_page")
    facts = [made.kept(name) for name in ("objectives", "avt", "training")]
    assert made.training_page(page, *facts) == page


def test_every_objective_finds_the_taste_of_the_simulated_people(script):
    found = script("training_page").kept("objectives")
    assert set(found["ways"]) == set(script("objectives").WAYS)
    for name, one in found["ways"].items():
        assert one["low"] > 0.5, name
        assert one["value"] <= found["best"]["high"], name


def test_answers_are_picks_or_whole_rankings(script):
    import numpy as np

    made = script("objectives")
    people = made.panel("overall", 1.0)
    chance = np.random.default_rng(0)
    aspects = chance.normal(size=(4, 4))
    assert sorted(made.answer(people, 0, aspects, chance, whole=False)) == [1, 2, 2, 2]
    assert sorted(made.answer(people, 0, aspects, chance, whole=True)) == [1, 2, 3, 4]

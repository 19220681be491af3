"""docs/mps-training.md shows the figures that were kept."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from palate.miniature.world import scenes_of
from palate.models.clip_files import load_clip
from palate.scoring.catalog import miniature_folder
from palate.training.learners.mps import MpsSettings, new_mps

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return __import__


@pytest.fixture
def read(script):
    scenes = scenes_of(["choices"], np.random.default_rng(0))[:600]
    mps = new_mps(load_clip(miniature_folder()), MpsSettings(layers=1, heads=4), 0)
    return script("mps_words").Read(mps, [scene.text for scene in scenes])


def test_the_figures_of_the_dimensions_are_those_that_were_kept(script):
    page, made = (
        (ROOT / "docs" / "mps-training.md").read_text("utf-8"),
        script("mps_dimensions_page"),
    )
    facts = made.kept("mps-dimensions")
    assert made.mps_page(page, facts) == page
    assert set(facts["dimensions"]) == set(script("mps_dimensions").TASTES)
    assert list(facts["masks"]) == list(script("mps_dimensions").MASKS)


def test_masks_that_are_the_same_are_told_apart_as_by_a_coin_and_unlike_ones_always(script):
    told_apart = script("mps_words").told_apart
    prompts = torch.randn(90, 8, generator=torch.Generator().manual_seed(0))
    assert told_apart([prompts, prompts]).sum() == pytest.approx(1)
    assert told_apart([prompts, prompts + 100]).tolist() == [1, 1]


def test_the_words_that_were_found_have_masks_that_can_be_told_apart_better_than_plain_ones(
    script, read
):
    words, dimensions = script("mps_words"), script("mps_dimensions")
    named = [
        words.told_apart([read.means(text, words.MASK) for text in conditions.values()]).mean()
        for conditions in (dimensions.CONDITIONS, dimensions.PLAIN)
    ]
    assert named[0] > 0.9
    assert named[1] < 0.8
    for name, text in dimensions.CONDITIONS.items():
        assert set(text.split()) <= set(" ".join(words.VOCABULARY[name]).split())


def test_a_search_ends_with_words_that_are_told_apart_as_well_as_it_says(script, read):
    words = script("mps_words")
    first, before = words.search(read, 0, 0)
    found, best = words.search(read, 40, 0)
    assert best.mean() > before.mean()
    assert found != first
    again = words.told_apart([read.means(text, words.MASK) for text in found.values()])
    assert again.tolist() == best.tolist()


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
    return np.array(made.WEIGHTS) * np.array(made.TASTES[name])

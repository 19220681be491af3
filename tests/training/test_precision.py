"""Towers in 16 bits learn as in 32; weights, cosines, loss and result stay in 32."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from palate.models.clip_files import load_clip
from palate.models.siglip_files import load_siglip
from palate.models.tiny import tiny_clip
from palate.models.tiny_siglip import tiny_siglip
from palate.training.batches import read_groups
from palate.training.learners.make import learner_of
from palate.training.settings import TrainSettings
from palate.training.stores import Shelf
from palate.training.train import train

# bfloat16 has 8 bits of mantissa: a number is off by up to 2^-9 of itself, 0.2 %
NEAR = 0.02


def settings(**changes):
    values = {"steps": 30, "batch": 12, "image_layers": 3, "text_layers": 2, "warmup_steps": 5}
    values |= {"learning_rate": 1e-3, "evaluate_every": 10, "log_every": 1}
    return TrainSettings(**(values | changes))


def curve_of(folder):
    curves = json.loads((folder / "curves.json").read_text())
    return np.array([point["loss"] for point in curves["train"]])


@pytest.mark.parametrize(
    ("base", "load"), [(tiny_clip, load_clip), (tiny_siglip, load_siglip)], ids=["clip", "siglip"]
)
def test_the_curve_in_16_bits_is_near_that_in_32(dataset, held_out, tmp_path, base, load):
    """Every loss within 0.02 nats over 30 steps, in which it falls by ten times as much."""
    for precision in ("float32", "bfloat16"):
        train(dataset, base(0), tmp_path / precision, settings(precision=precision), held_out)
    whole, half = curve_of(tmp_path / "float32"), curve_of(tmp_path / "bfloat16")
    assert len(whole) == len(half) == 30
    assert not np.array_equal(whole, half)
    assert np.abs(whole - half).max() < NEAR
    assert whole[0] - whole[-1] > 10 * NEAR
    weights = load(tmp_path / "bfloat16").model.state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_parameters_optimiser_and_scores_are_in_32_bits(dataset, tmp_path):
    learner = learner_of(tiny_clip(0), settings())
    groups = read_groups(dataset.choices, ["overall"], "")
    material = learner.open(dataset, groups, Shelf(tmp_path), altered=False)
    with torch.autocast("cpu", torch.bfloat16):
        scores = learner(material, groups.all)
    assert scores.dtype == torch.float32
    scores[groups.all.mask].sum().backward()
    for value in learner.trained().values():
        assert value.dtype == torch.float32
        assert value.grad is None or value.grad.dtype == torch.float32


def test_cosines_are_finer_than_16_bits(dataset, tmp_path):
    """A logit of 25 would move in steps of 1/8: half of all pairs of images would be tied."""
    learner = learner_of(tiny_clip(0), settings(logit_scale=100.0))
    groups = read_groups(dataset.choices, ["overall"], "")
    material = learner.open(dataset, groups, Shelf(tmp_path), altered=False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = learner(material, groups.all)[groups.all.mask]
    assert not torch.equal(scores, scores.bfloat16().float())

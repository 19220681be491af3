"""ImageReward is the official function: every case, alone and in batches, in any order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from palate.models.image_reward import ImageReward, load_image_reward
from palate.models.pixels import open_picture, prepare

HERE = Path(__file__).parent / "fixtures"
CASES = json.loads((HERE / "image_reward" / "cases.json").read_text("utf-8"))
OFFICIAL = np.array([case["score"] for case in CASES])
# The project's promise is 1e-3. What is reached is float32 rounding: the official numbers, up to
# 15 in size, are themselves 1.3e-5 away from the same function in float64.
REACHED = 5e-5


@pytest.fixture(scope="module")
def model() -> ImageReward:
    return load_image_reward(HERE / "image_reward" / "ImageReward_tiny.pt")


@pytest.fixture(scope="module")
def pixels(model):
    images = [open_picture(HERE / "images" / case["image"]) for case in CASES]
    return prepare(images, model.preparation)


def rewards(model, pixels, batch, order):
    tokens = model.tokenizer.batch([CASES[place]["prompt"] for place in order])
    pixels, found = pixels[order], []
    for start in range(0, len(order), batch):
        here = slice(start, start + batch)
        with torch.inference_mode():
            states = model.image_states(pixels[here])
            found.append(model.reward(states, tokens.ids[here], tokens.mask[here]))
    values = np.empty(len(order))
    values[order] = torch.cat(found).numpy()
    return values


@pytest.mark.parametrize("batch", [1, 3, 7, 40])
@pytest.mark.parametrize("seed", [None, 0])
def test_every_case_in_batches_in_any_order(model, pixels, batch, seed):
    order = np.arange(len(CASES))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    assert np.abs(rewards(model, pixels, batch, order) - OFFICIAL).max() < REACHED


def test_a_palette_converted_before_the_resize_would_miss(model):
    """The official order matters: this is what the fixture with a palette is for."""
    place = next(i for i, case in enumerate(CASES) if case["image"].startswith("palette"))
    image = open_picture(HERE / "images" / CASES[place]["image"]).convert("RGB")
    tokens = model.tokenizer.batch([CASES[place]["prompt"]])
    states = model.image_states(prepare([image], model.preparation))
    assert abs(float(model.reward(states, tokens.ids, tokens.mask)) - OFFICIAL[place]) > 1e-2


def test_padding_that_is_attended_to_would_miss(model, pixels):
    tokens = model.tokenizer.batch([case["prompt"] for case in CASES])
    states = model.image_states(pixels)
    found = model.reward(states, tokens.ids, torch.ones_like(tokens.mask)).numpy()
    padded = tokens.kept < model.tokenizer.context
    assert np.abs(found - OFFICIAL)[padded].min() > 1e-3
    assert np.abs(found - OFFICIAL)[~padded].max() < REACHED

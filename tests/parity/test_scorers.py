"""Every scorer is the official function: every case, alone and in batches, in any order, and from a converted folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from official import HERE, OFFICIAL, WORDS, cases_of, official_case, picture

from palate.models.clip_files import save_clip
from palate.scoring.catalog import SCORERS, load
from palate.scoring.promises import check_scorer

# What is reached on these cases; the promise in `conftest` is what the project stands for.
REACHED = {
    "hps-v1": 1e-4,
    "hps-v2": 1e-4,
    "pickscore": 1e-4,
    "image-reward": 1e-4,
    "mps": 2e-4,
    "aesthetic": 1e-5,
}


def test_every_case_alone(official):
    found = [
        official.scorer.score([image], [prompt])[0]
        for image, prompt in zip(official.images, official.prompts, strict=True)
    ]
    away = np.abs(np.array(found) - official.numbers).max()
    assert away < official.promise
    assert away < REACHED[official.name]


def test_every_case_in_batches_in_any_order(official):
    order = np.random.default_rng(0).permutation(len(official.images))
    found = official.scorer.score(
        [official.images[i] for i in order], [official.prompts[i] for i in order]
    )
    assert found.dtype == np.float32
    assert np.abs(found - official.numbers[order]).max() < official.promise


def test_it_keeps_every_promise(official):
    assert check_scorer(official.scorer) == []


def test_paths_and_8_bit_pixels_are_prepared_as_officially(official):
    wanted = official.scorer.score(official.images[:1], official.prompts[:1])
    path = HERE / "images" / cases_of(official.name)[0]["image"]
    assert official.scorer.score(path, official.prompts[0]) == wanted
    assert official.scorer.score([str(path)], official.prompts[:1]) == wanted
    pixels = torch.from_numpy(np.array(picture("square_256.png").convert("RGB")))
    prompt = official.prompts[0]
    both = official.scorer.score([pixels.permute(2, 0, 1), pixels.numpy()], prompt)
    alone = official.scorer.score(picture("square_256.png"), prompt)
    assert np.abs(both - alone).max() < official.promise / 10


def test_floats_take_the_differentiable_way(official):
    pixels = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    prompts = official.prompts[:2]
    with torch.no_grad():
        wanted = official.scorer.forward(pixels, prompts)
    found = official.scorer.score(pixels, prompts)
    assert np.abs(found - wanted.numpy()).max() < official.promise


def test_gradients_lead_uphill(official):
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    pixels.requires_grad_()
    value = official.scorer.forward(pixels, official.prompts[:1])
    value.sum().backward()
    step = 1e-3 * pixels.grad / pixels.grad.abs().max()
    better = official.scorer.forward((pixels + step).detach().clamp(0, 1), official.prompts[:1])
    assert better.item() > value.item()


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_prompts_as_they_come(name):
    scorer = official_case(name).scorer
    prompts = ["", "red fox, " * 1_111, "🦊 " * 50, "قلعة قديمة فوق الجبل", "a\u200bb\x00c"]
    images = [picture("exact_224.png")] * len(prompts)
    scored = scorer.judge(images, prompts)
    assert np.isfinite(scored.values).all()
    if scorer.reads_prompts:
        assert scored.tokens_given[1] > scored.tokens_kept[1]
    else:
        # the last bits of a batch depend on the processor; the text must not matter beyond them
        assert np.ptp(scored.values) < 5e-6


def test_the_card_says_which_function_it_is(official):
    card = official.scorer.card()
    assert card["direction"] == "higher is better"
    assert card["profile"] == "official"
    assert card["fingerprint"] == official.scorer.fingerprint
    assert card["unit"] == official.scorer.unit
    assert card["preparation"]["size"] == 224
    known = "Apache-2.0" if official.name == "aesthetic" else SCORERS[official.name].licence
    assert known in card["licence"]
    assert official.scorer.fingerprint in card.line


MPS = json.loads((HERE / "mps" / "cases.json").read_text("utf-8"))
MPS_KINDS = sorted({(case["condition"], case["mask_threshold"]) for case in MPS})


@pytest.mark.parametrize(("condition", "threshold"), MPS_KINDS)
def test_mps_on_every_condition_and_threshold(condition, threshold):
    cases = [
        case
        for case in MPS
        if (case["condition"], case["mask_threshold"]) == (condition, threshold)
    ]
    scorer = load("mps", **OFFICIAL["mps"][0], condition=condition, mask_threshold=threshold)
    found = scorer.score(
        [picture(case["image"]) for case in cases], [case["prompt"] for case in cases]
    )
    assert np.abs(found - [case["score"] for case in cases]).max() < 1e-3
    other = official_case("mps").scorer.on(condition)
    assert other.condition == condition
    assert other.eye.key == scorer.eye.key


def test_an_aesthetic_head_prepares_as_its_code_does_whatever_files_the_clip_comes_from(tmp_path):
    """A folder of transformers would convert to RGB before the resize, which palettes show."""
    official = official_case("aesthetic")
    save_clip(official.scorer.clip, tmp_path / "clip")
    card = json.loads((tmp_path / "clip" / "palate.json").read_text())
    card["preparation"]["convert"] = "before"
    (tmp_path / "clip" / "palate.json").write_text(json.dumps(card))
    given = OFFICIAL["aesthetic"][0] | {"clip": tmp_path / "clip", "tokenizer": None}
    found = load("aesthetic", **given).score(official.images)
    assert np.abs(found - official.numbers).max() < official.promise


def test_a_folder_with_the_vocabulary_file_will_do(tmp_path):
    (tmp_path / WORDS.name).write_bytes(WORDS.read_bytes())
    given = OFFICIAL["hps-v1"][0] | {"tokenizer": tmp_path}
    assert load("hps-v1", **given).fingerprint == official_case("hps-v1").scorer.fingerprint


def test_a_palette_converted_before_the_resize_would_miss():
    """The official order matters: this is what the fixture with a palette is for."""
    hps = official_case("hps-v1")
    place = next(
        i for i, case in enumerate(cases_of("hps-v1")) if case["image"].startswith("palette")
    )
    found = hps.scorer.score(hps.images[place].convert("RGB"), hps.prompts[place])[0]
    assert abs(found - hps.numbers[place]) > 0.1

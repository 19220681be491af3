"""The shipped CLIP is a scorer whose higher is better: it tells pictures of a prompt from pictures of another."""

from __future__ import annotations

import numpy as np
from PIL import Image

from palate.miniature.world import pictures, scenes_of
from palate.scoring.catalog import load
from palate.scoring.promises import check_scorer


def drawn(scenes, seed):
    found, _ = pictures(scenes, np.random.default_rng(seed), clean=True)
    return [Image.fromarray(pixels, "RGB") for pixels in found]


def test_it_keeps_every_promise_and_the_right_picture_scores_higher():
    scenes = scenes_of(["spare"], np.random.default_rng(0))[:24]
    good = drawn(scenes, 1)
    bad = drawn([*scenes[1:], scenes[0]], 2)
    prompts = [scene.text for scene in scenes]
    scorer = load("miniature")
    better = list(zip(good, bad, prompts, strict=True))
    assert check_scorer(scorer, better=better) == []
    worse = [(b, g, prompt) for g, b, prompt in better]
    assert [broken.promise for broken in check_scorer(scorer, better=worse)] == ["direction"]

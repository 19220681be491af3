"""`check_scorer` passes a good scorer and catches every kind of cheat."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from palate.models.tiny import tiny_clip
from palate.scoring.networks import ClipScorer
from palate.scoring.promises import check_scorer
from palate.scoring.scorer import Scored, Scorer


class Honest(Scorer):
    """Scores the mean brightness of the red channel and the length of the prompt."""

    name, dimension, unit, fingerprint = "honest", "overall", "brightness", "0"

    def judge(self, images, prompts):
        reds = [
            np.asarray(image.convert("RGB"), dtype=np.float64)[..., 0].mean() for image in images
        ]
        lengths = [len(prompt) for prompt in prompts]
        values = np.array(
            [red + length % 7 for red, length in zip(reds, lengths, strict=True)], dtype=np.float64
        )
        counts = np.array(lengths, dtype=np.int32)
        return Scored(values, counts, counts, np.ones(len(values)))

    def forward(self, pixels, prompts):
        lengths = torch.tensor([len(prompt) % 7 for prompt in prompts], dtype=pixels.dtype)
        return 255 * pixels.mean((1, 2, 3)) + lengths


def changed(scored, values):
    return Scored(
        np.asarray(values, dtype=np.float64),
        scored.tokens_given,
        scored.tokens_kept,
        scored.area_kept,
    )


class NotANumber(Honest):
    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(
            scored,
            [
                np.nan if image.width == 1 else v
                for image, v in zip(images, scored.values, strict=True)
            ],
        )


class Infinite(Honest):
    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(
            scored, [np.inf if p == "" else v for p, v in zip(prompts, scored.values, strict=True)]
        )


class BatchNormalised(Honest):
    """The fault of a published scorer: divided by the largest of the batch."""

    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(scored, scored.values / max(scored.values, default=1.0))


class SlightlyBatched(Honest):
    """Only a little of the neighbours, as from a shared normalisation."""

    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(scored, scored.values + 0.01 * len(images))


class ByPlace(Honest):
    """The second half of a batch is treated differently."""

    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(scored, scored.values + 0.1 * np.arange(len(images)))


class Sorted(Honest):
    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(scored, np.sort(scored.values))


class Random(Honest):
    def __init__(self):
        self.random = np.random.default_rng(0)

    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(scored, scored.values + self.random.normal(size=len(images)))


class Drifting(Honest):
    """Every call moves all scores by one."""

    def __init__(self):
        self.calls = itertools.count()

    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(scored, scored.values + next(self.calls))


class Forgetful(Honest):
    """Remembers the prompt of the call before: a cache with the wrong key."""

    def __init__(self):
        self.last = 0

    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        before, self.last = self.last, len(prompts[-1]) if prompts else 0
        return changed(scored, scored.values + before)


class FailsOnEmpty(Honest):
    def judge(self, images, prompts):
        return super().judge(images, prompts) if max(len(image.size) for image in images) else None


class GivesOneForNothing(Honest):
    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return scored if len(images) else changed(scored, [0.0])


class Draws(Honest):
    """Scribbles on the images that it was given."""

    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        for image in images:
            image.putpixel((0, 0), 77)
        return scored


class Empties(Honest):
    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        prompts.clear()
        return scored


class Constant(Honest):
    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(scored, np.zeros(len(images)))


class Single(Honest):
    """float32 instead of float64."""

    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return Scored(
            scored.values.astype(np.float32),
            scored.tokens_given,
            scored.tokens_kept,
            scored.area_kept,
        )


class MoreKeptThanGiven(Honest):
    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return Scored(scored.values, scored.tokens_given, scored.tokens_kept + 1, scored.area_kept)


class Nameless(Honest):
    name = ""


class NewPrint(Honest):
    counter = itertools.count()

    @property
    def fingerprint(self):
        return str(next(self.counter))


class Loss(Honest):
    unit = "loss"


class NoGradient(Honest):
    def forward(self, pixels, prompts):
        return super().forward(pixels.detach(), prompts)


class BatchedForward(Honest):
    def forward(self, pixels, prompts):
        values = super().forward(pixels, prompts)
        return values - values.mean()


class ScalarForward(Honest):
    def forward(self, pixels, prompts):
        return super().forward(pixels, prompts).mean()


def test_an_honest_scorer_passes():
    assert check_scorer(Honest()) == []


def test_a_clip_passes():
    for unit in ("cosine", "hps", "logit"):
        assert check_scorer(ClipScorer(tiny_clip(0), "tiny", unit=unit)) == []


@pytest.mark.parametrize(
    ("cheat", "promise"),
    [
        (NotANumber, "finite"),
        (Infinite, "finite"),
        (Single, "finite"),
        (BatchNormalised, "batch"),
        (SlightlyBatched, "batch"),
        (ByPlace, "order"),
        (Sorted, "order"),
        (Random, "twice"),
        (Drifting, "twice"),
        (Forgetful, "twice"),
        (FailsOnEmpty, "empty"),
        (GivesOneForNothing, "empty"),
        (Draws, "inputs"),
        (Empties, "inputs"),
        (Constant, "images"),
        (MoreKeptThanGiven, "words"),
        (Nameless, "card"),
        (NewPrint, "card"),
        (Loss, "card"),
        (NoGradient, "gradient"),
        (BatchedForward, "gradient"),
        (ScalarForward, "gradient"),
    ],
)
def test_a_cheat_is_caught_by_the_promise_that_it_breaks(cheat, promise):
    broken = {fault.promise for fault in check_scorer(cheat())}
    assert promise in broken


@pytest.mark.parametrize(
    "cheat", [Draws, Empties, MoreKeptThanGiven, Nameless, Loss, NoGradient, GivesOneForNothing]
)
def test_a_single_fault_breaks_a_single_promise(cheat):
    assert len({fault.promise for fault in check_scorer(cheat())}) == 1


class Backwards(Honest):
    def judge(self, images, prompts):
        scored = super().judge(images, prompts)
        return changed(scored, -scored.values)


def test_lower_is_better_is_caught_where_better_images_are_known():
    bright, dark = Image.new("RGB", (9, 9), "white"), Image.new("RGB", (9, 9), "black")
    pairs = [(bright, dark, "a lamp"), (bright, dark, "the sun")]
    assert check_scorer(Honest(), better=pairs) == []
    assert [fault.promise for fault in check_scorer(Backwards(), better=pairs)] == ["direction"]
    assert check_scorer(Backwards()) == []  # without known pairs there is no telling


def test_a_scorer_that_raises_is_a_finding_and_no_crash():
    class Raises(Honest):
        def judge(self, images, prompts):
            raise RuntimeError("out of memory")

    broken = check_scorer(Raises())
    assert any("out of memory" in str(fault) for fault in broken)


def test_own_images_and_prompts_can_be_given():
    images = [Image.new("RGB", (20, 20), colour) for colour in ("red", "black")]
    assert check_scorer(Honest(), images=images, prompts=["a", "b"]) == []

"""A scorer that can be cheated is caught, by the right probe, and an honest one is not."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from palate.errors import DataError, ImageError, SettingsError
from palate.evaluation.changes import PROBES, Probe
from palate.evaluation.probes import ProbeSettings, probe_scorer, probe_table
from palate.miniature.world import pictures, scenes_of
from palate.scoring.catalog import load
from palate.scoring.scorer import Scored, Scorer

QUICK = {"resamples": 100}


class Fake(Scorer):
    """A scorer that is one function of pixels in [0, 1] and the prompt."""

    dimension, unit, fingerprint = "overall", "points", "0"

    def __init__(self, name, value, *, reads_prompts=True):
        self._name, self.value, self.reads_prompts = name, value, reads_prompts
        self.batches = []

    @property
    def name(self):
        return self._name

    def judge(self, images, prompts):
        self.batches.append(len(images))
        values = [
            self.value(np.asarray(image, dtype=np.float64) / 255, prompt)
            for image, prompt in zip(images, prompts, strict=True)
        ]
        none = np.zeros(len(values), dtype=np.int32)
        return Scored(np.array(values, dtype=np.float64), none, none, np.ones(len(values)))

    def forward(self, pixels, prompts):
        return torch.zeros(len(pixels))


def bright(pixels, _):
    return float(pixels.mean())


def colourful(pixels, _):
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean())


def sharp(pixels, _):
    return float(np.abs(np.diff(pixels.mean(axis=2))).mean())


def constant(_, prompt):
    return 1.0


def pictured(count=4, prompts=12, seed=0):
    """Dim colour gradients with a little noise, several for each prompt."""
    rng = np.random.default_rng(seed)
    images, texts = [], []
    for number in range(prompts):
        for _ in range(count):
            low, high = rng.uniform(0.2, 0.5, (2, 3))
            ramp = np.linspace(0, 1, 48)[None, :, None] * (high - low) + low
            pixels = np.clip(ramp + rng.normal(0, 0.03, (40, 48, 3)), 0, 1)
            images.append(Image.fromarray((255 * pixels).astype(np.uint8)))
            texts.append(f"prompt {number}")
    return images, texts


def report_of(value, **options):
    reads = options.pop("reads_prompts", False)
    scorer = Fake("fake", value, reads_prompts=reads)
    return probe_scorer(scorer, *pictured(), ProbeSettings(**(QUICK | options)))


@pytest.mark.parametrize(
    ("value", "probe"), [(bright, "brighter"), (colourful, "saturated"), (sharp, "sharpened")]
)
def test_a_scorer_that_loves_one_thing_is_caught_by_its_probe(value, probe) -> None:
    report = report_of(value)
    assert probe in report.caught
    (found,) = (result for result in report.results if result.name == probe)
    assert found.shift.low > 0
    assert found.relative.low > 0.25
    assert found.raised > 0.95
    assert found.turned.value > 0.2
    assert found.lifted > 0.1
    assert f"{probe:<16}" in probe_table(report)
    assert "CAUGHT" in probe_table(report)


def test_what_a_scorer_does_not_see_is_not_held_against_it() -> None:
    found = report_of(bright)
    assert not {"flipped", "half size", "JPEG 90", "saturated", "darker"} & set(found.caught)
    assert report_of(constant).caught == ()
    assert report_of(constant).typical is None
    assert report_of(constant).results[0].turned is None
    assert report_of(constant).results[0].relative is None


def test_a_scorer_that_does_not_read_its_prompt_is_caught_by_a_wrong_one() -> None:
    deaf = report_of(bright, reads_prompts=True)
    assert {"no prompt", "wrong prompt"} <= set(deaf.caught)

    def reads(pixels, prompt):
        number = int(prompt.split()[-1]) if prompt.startswith("prompt") else -9
        return bright(pixels, prompt) - 0.1 * abs(number - rows[float(pixels.sum())])

    images, prompts = pictured()
    rows = {
        float((np.asarray(image) / 255.0).sum()): int(prompt.split()[-1])
        for image, prompt in zip(images, prompts, strict=True)
    }
    only = ProbeSettings(**QUICK, only=("no prompt", "wrong prompt", "prompt twice"))
    report = probe_scorer(Fake("reads", reads), images, prompts, only)
    assert not {"no prompt", "wrong prompt"} & set(report.caught)
    # the penalty is the same for all images of a prompt, so that no order can turn
    assert [found.turned.value for found in report.results] == [0, 0, 0]
    assert all(found.lifted is None for found in report.results)


def test_flattery_in_the_prompt_is_caught() -> None:
    report = report_of(
        lambda pixels, prompt: bright(pixels, prompt) + 0.5 * ("masterpiece" in prompt),
        reads_prompts=True,
    )
    assert "praise" in report.caught
    assert "prompt twice" not in report.caught


def test_shifts_and_turned_pairs_are_those_counted_by_hand() -> None:
    images, prompts = pictured(3, 5)
    probe = next(probe for probe in PROBES if probe.name == "brighter")
    settings = ProbeSettings(**QUICK, only=("brighter",))
    report = probe_scorer(Fake("b", bright), images, prompts, settings)
    plain = [bright(np.asarray(image) / 255.0, "") for image in images]
    rng = np.random.default_rng(0)
    changed = [bright(np.asarray(probe.image(image, "", rng)) / 255.0, "") for image in images]
    (found,) = report.results
    assert found.shift.value == pytest.approx(np.mean(np.subtract(changed, plain)))
    gaps, turns, lifts = [], [], []
    for i, j in combinations(range(15), 2):
        if prompts[i] != prompts[j]:
            continue
        gaps.append(abs(plain[i] - plain[j]))
        high, low = (i, j) if plain[i] > plain[j] else (j, i)
        lifts.append(changed[low] > plain[high])
        turns.append(lifts[-1] or changed[high] < plain[low])
    assert report.pairs == len(gaps) == 15
    assert report.typical == pytest.approx(np.mean(gaps))
    assert found.turned.value == pytest.approx(np.mean(turns))
    assert found.lifted == pytest.approx(np.mean(lifts))
    assert found.relative.value == pytest.approx(found.shift.value / np.mean(gaps))


def test_the_order_of_images_and_the_size_of_batches_do_not_matter(monkeypatch) -> None:
    images, prompts = pictured(2, 6)
    settings = ProbeSettings(**QUICK)
    there = probe_scorer(Fake("s", sharp), images, prompts, settings)
    order = np.random.default_rng(3).permutation(len(images))
    monkeypatch.setattr("palate.evaluation.probes._AT_ONCE", 5)
    scorer = Fake("s", sharp)
    back = probe_scorer(scorer, [images[k] for k in order], [prompts[k] for k in order], settings)
    assert max(scorer.batches) == 5
    assert back.typical == pytest.approx(there.typical)
    for one, other in zip(there.results, back.results, strict=True):
        assert one.shift.value == pytest.approx(other.shift.value)
        assert one.turned.value == pytest.approx(other.turned.value)


def test_images_stay_as_they_are_and_files_are_images(tmp_path) -> None:
    images, prompts = pictured(2, 2)
    before = [image.tobytes() for image in images]
    there = probe_scorer(Fake("b", bright), images, prompts, ProbeSettings(**QUICK))
    assert [image.tobytes() for image in images] == before
    paths = []
    for number, image in enumerate(images):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    assert probe_scorer(Fake("b", bright), paths, prompts, ProbeSettings(**QUICK)).to_dict() == (
        there.to_dict()
    )
    with pytest.raises(ImageError, match="does not exist"):
        probe_scorer(Fake("b", bright), [tmp_path / "no.png"], ["p"])


@pytest.mark.parametrize("probe", [p for p in PROBES if p.image], ids=lambda probe: probe.name)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (64, 48), (40, 3)])
def test_every_change_works_at_every_size_and_twice_the_same(probe, size) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    made, again = (
        probe.image(image.copy(), "a fox – 猫", np.random.default_rng(1)) for _ in range(2)
    )
    assert made.mode == "RGB"
    assert made.tobytes() == again.tobytes()
    if size == (64, 48):
        assert made.size != image.size or made.tobytes() != image.tobytes()
    assert probe.image(image.copy(), "", np.random.default_rng(1)).mode == "RGB"


def test_what_cannot_be_run_says_why() -> None:
    report = report_of(bright)
    reason = "the scorer reads no prompts"
    assert report.left_out == {probe.name: reason for probe in PROBES if probe.prompt}
    assert f"praise: not run, {reason}" in probe_table(report)
    images, _ = pictured(2, 2)
    one = probe_scorer(Fake("b", bright), images, ["p"] * 4, ProbeSettings(**QUICK))
    assert one.left_out == {"wrong prompt": "there is only one prompt"}
    assert one.caught == ()  # one prompt has no interval
    assert one.results[0].relative.low is None
    assert json.dumps(one.to_dict(), allow_nan=False)


def test_what_is_no_probing_is_refused() -> None:
    images, prompts = pictured(1, 2)
    with pytest.raises(DataError, match="2 images and 1 prompts"):
        probe_scorer(Fake("b", bright), images, prompts[:1])
    with pytest.raises(DataError, match="0 images"):
        probe_scorer(Fake("b", bright), [], [])
    with pytest.raises(SettingsError, match="no probe is called 'louder'"):
        probe_scorer(Fake("b", bright), images, prompts, ProbeSettings(only=("louder",)))
    broken = Fake("broken", lambda pixels, _: np.nan if pixels.shape[0] < 40 else 1.0)
    with pytest.raises(DataError, match=r"broken gives a score .* under 'half size'"):
        probe_scorer(broken, images, prompts)


def test_a_probe_of_your_own_is_run_like_the_others() -> None:
    black = Probe("black", "all black", "lower", lambda p, *_: Image.new("RGB", p.size))
    report = probe_scorer(Fake("b", bright), *pictured(), ProbeSettings(**QUICK), (black,))
    assert report.caught == ()
    dark = Fake("d", lambda *given: -bright(*given))
    assert probe_scorer(dark, *pictured(), ProbeSettings(**QUICK), (black,)).caught == ("black",)


def test_the_miniature_reads_its_prompts_and_is_no_friend_of_frames() -> None:
    scenes = scenes_of(["spare"], np.random.default_rng(0))[:12]
    images, prompts = [], []
    for seed in (1, 2):
        found, _ = pictures(scenes, np.random.default_rng(seed), clean=False)
        images += [Image.fromarray(pixels, "RGB") for pixels in found]
        prompts += [scene.text for scene in scenes]
    report = probe_scorer(load("miniature"), images, prompts, ProbeSettings(**QUICK))
    by_name = {found.name: found for found in report.results}
    assert len(by_name) == len(PROBES)
    assert by_name["wrong prompt"].shift.high < 0
    assert by_name["bars"].shift.high < 0
    assert not {"wrong prompt", "no prompt", "bars", "border", "brighter"} & set(report.caught)
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["unit"] == "hps"
    assert len(told["results"]) == len(PROBES)

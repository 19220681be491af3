"""Try to break every promise that a scorer makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from palate.scoring.scorer import Scored, Scorer
from palate.scoring.units import COSINES, cosine_scale

_PROMPTS = (
    "a red fox sitting under an old oak, watercolor",
    "",
    "two   robots &amp; one cat, 8k!!!",
    "café — 猫 on a boat 😀",
    "castle tower number one, " * 400,
    "قلعة قديمة فوق الجبل",
    "a red fox sitting under an old oak, watercolor",
    "...",
)
_SIZES = ((32, 32), (224, 224), (64, 96), (131, 57), (300, 200), (1, 40), (225, 224), (48, 48))


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that a scorer did not keep, and what was seen."""

    promise: str
    found: str

    def __str__(self) -> str:
        """Write both in one line."""
        return f"{self.promise}: {self.found}"


@dataclass(frozen=True, slots=True)
class _Trial:
    """What the promises are tried on."""

    scorer: Scorer
    images: list[Image.Image]
    prompts: list[str]
    allowed: float

    def values(self, order: Sequence[int]) -> NDArray[np.float64]:
        """Score some of the images, in this order."""
        return self.score(order).values

    def score(self, order: Sequence[int]) -> Scored:
        return self.scorer.judge(self.copies(order), [self.prompts[i] for i in order])

    def copies(self, order: Sequence[int]) -> list[Image.Image]:
        """Copy images, so that a scorer that draws on them is caught for that and nothing else."""
        return [self.images[i].copy() for i in order]

    def everything(self) -> list[int]:
        return list(range(len(self.images)))


def check_scorer(
    scorer: Scorer,
    *,
    images: Sequence[Image.Image] | None = None,
    prompts: Sequence[str] | None = None,
    better: Sequence[tuple[Image.Image, Image.Image, str]] = (),
    tolerance: float | None = None,
) -> list[Broken]:
    """Give every promise that a scorer breaks, with what was seen; an empty list is a pass.

    Tried are: finite, batch (the same alone, in halves and beside other neighbours), order, twice
    (also with other work in between), empty, inputs (left as they were), images (not all the same),
    words (tokens counted), gradient, and, given ``better`` as pairs of a better image, a worse one
    and their prompt, direction (the better one higher in more than half of them).

    ``images`` and ``prompts`` replace the built-in ones and go together. ``tolerance`` is the
    absolute difference that counts as the same, by default 1e-5 of a cosine in the scorer's unit;
    for other units, 1e-5 of the largest score.
    """
    pictures = _pictures() if images is None else list(images)
    texts = (
        list(prompts) if prompts is not None else [_PROMPTS[i % 8] for i in range(len(pictures))]
    )
    trial = _Trial(scorer, pictures, texts, _allowed(scorer, tolerance, pictures, texts))
    tests: list[tuple[str, Callable[[_Trial], Iterator[str]]]] = [
        ("card", _card),
        ("finite", _finite),
        ("twice", _twice),
        ("batch", _batch),
        ("order", _order),
        ("empty", _empty),
        ("inputs", _inputs),
        ("images", _images),
        ("words", _words),
        ("gradient", _gradient),
        ("direction", partial(_direction, better=better)),
    ]
    return [Broken(name, found) for name, test in tests for found in _tried(test, trial)]


def _tried(test: Callable[[_Trial], Iterator[str]], trial: _Trial) -> Iterator[str]:
    """Run one test; whatever a stranger's scorer raises is a finding, not a crash."""
    try:
        yield from test(trial)
    except Exception as error:  # noqa: BLE001
        yield f"raised {type(error).__name__}: {error}"


def _allowed(
    scorer: Scorer, tolerance: float | None, images: list[Image.Image], prompts: list[str]
) -> float:
    """Say which difference counts as none."""
    if tolerance is not None:
        return tolerance
    if scorer.unit in COSINES:
        return 1e-5 * cosine_scale(scorer.unit, 100.0)[0]
    try:
        copies = [image.copy() for image in images]
        values = np.abs(scorer.judge(copies, list(prompts)).values)
    except Exception:  # noqa: BLE001 - found again, and reported, by the tests
        return 1e-5
    return 1e-5 * float(np.nanmax(values, initial=1e-3))


def _card(trial: _Trial) -> Iterator[str]:
    scorer = trial.scorer
    for name in ("name", "dimension", "unit", "fingerprint"):
        value = getattr(scorer, name)
        if not isinstance(value, str) or not value:
            yield f"{name} is {value!r}, expected a text"
    before = scorer.fingerprint
    trial.values(trial.everything())
    if scorer.fingerprint != before:
        yield "the fingerprint changed by scoring"
    if any(word in scorer.unit.lower() for word in ("loss", "distance", "error")):
        yield f"the unit {scorer.unit!r} sounds as if lower were better"


def _finite(trial: _Trial) -> Iterator[str]:
    scored = trial.score(trial.everything())
    wanted = (len(trial.images),)
    plain = trial.scorer.score(trial.copies(trial.everything()), trial.prompts)
    for name, values, kind in (("judge", scored.values, "float64"), ("score", plain, "float32")):
        if values.shape != wanted or values.dtype != kind:
            yield (
                f"{name} gave {values.dtype} of shape {values.shape}, "
                f"expected {kind} of shape {wanted}"
            )
    for place in np.flatnonzero(~np.isfinite(scored.values))[:3]:
        size, prompt = trial.images[place].size, trial.prompts[place][:40]
        yield f"{scored.values[place]} for an image of {size[0]}×{size[1]} and the prompt {prompt!r}"


def _twice(trial: _Trial) -> Iterator[str]:
    order = trial.everything()
    first = trial.values(order)
    yield from _differ(trial, first, trial.values(order), "the second time")
    trial.scorer.judge(trial.copies([0]), ["something else entirely"])
    yield from _differ(trial, first, trial.values(order), "after other work")


def _batch(trial: _Trial) -> Iterator[str]:
    order = trial.everything()
    whole = trial.values(order)
    alone = np.concatenate([trial.values([i]) for i in order])
    yield from _differ(trial, whole, alone, "alone")
    half = len(order) // 2
    halves = np.concatenate([trial.values(order[:half]), trial.values(order[half:])])
    yield from _differ(trial, whole, halves, "in halves")
    many = trial.values([order[0], *order, *order])
    yield from _differ(trial, np.concatenate([whole[:1], whole, whole]), many, "in a larger batch")


def _order(trial: _Trial) -> Iterator[str]:
    whole = trial.values(trial.everything())
    reverse = trial.everything()[::-1]
    shuffled = [int(i) for i in np.random.default_rng(0).permutation(len(whole))]
    for name, order in (("reversed", reverse), ("shuffled", shuffled)):
        yield from _differ(trial, whole[order], trial.values(order), name)


def _empty(trial: _Trial) -> Iterator[str]:
    scored = trial.scorer.judge([], [])
    for name in ("values", "tokens_given", "tokens_kept", "area_kept"):
        if getattr(scored, name).shape != (0,):
            yield f"{name} has shape {getattr(scored, name).shape} for no images, expected (0,)"


def _inputs(trial: _Trial) -> Iterator[str]:
    images, prompts = trial.copies(trial.everything()), list(trial.prompts)
    trial.scorer.judge(images, prompts)
    if prompts != trial.prompts:
        yield "the list of prompts was changed"
    pairs = zip(images, trial.images, strict=False)
    if len(images) != len(trial.images) or any(a.tobytes() != b.tobytes() for a, b in pairs):
        yield "an image was changed"


def _images(trial: _Trial) -> Iterator[str]:
    prompts = [trial.prompts[0]] * len(trial.images)
    values = trial.scorer.judge(trial.copies(trial.everything()), prompts).values
    if len(values) > 1 and float(np.ptp(values)) <= trial.allowed:
        yield f"{len(values)} different images all score {values[0]:.6g}"


def _words(trial: _Trial) -> Iterator[str]:
    scored = trial.score(trial.everything())
    for name in ("tokens_given", "tokens_kept"):
        if getattr(scored, name).shape != scored.values.shape:
            yield f"{name} has shape {getattr(scored, name).shape}, expected one per image"
            return
    if (scored.tokens_kept > scored.tokens_given).any():
        yield "more tokens kept than given"
    if scored.area_kept.shape != scored.values.shape:
        yield f"area_kept has shape {scored.area_kept.shape}, expected one per image"
    elif not ((scored.area_kept >= 0) & (scored.area_kept <= 1)).all():
        yield "an area kept that is no share"


def _gradient(trial: _Trial) -> Iterator[str]:
    prompts = [trial.prompts[i % len(trial.prompts)] for i in range(3)]
    pixels = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    pixels.requires_grad_()
    values = trial.scorer.forward(pixels, prompts)
    if values.shape != (3,):
        yield f"forward gave shape {tuple(values.shape)} for 3 images, expected (3,)"
        return
    values.sum().backward()
    if pixels.grad is None or not bool(torch.isfinite(pixels.grad).all()):
        yield "no finite gradient reaches the pixels"
    # a score that is cut off at zero has no slope there
    elif bool(((pixels.grad.abs().amax((1, 2, 3)) == 0) & (values.detach() != 0)).any()):
        yield "the gradient of an image is zero"
    with torch.no_grad():
        alone = torch.cat(
            [trial.scorer.forward(pixels[i : i + 1], prompts[i : i + 1]) for i in range(3)]
        )
    yield from _differ(
        trial, values.detach().double().cpu().numpy(), alone.double().cpu().numpy(), "forward alone"
    )


def _direction(
    trial: _Trial, better: Sequence[tuple[Image.Image, Image.Image, str]]
) -> Iterator[str]:
    if not better:
        return
    prompts = [prompt for _, _, prompt in better]
    good = trial.scorer.judge([image for image, _, _ in better], prompts).values
    bad = trial.scorer.judge([image for _, image, _ in better], prompts).values
    right = int((good > bad).sum())
    if 2 * right <= len(better):
        yield f"the better image scores higher in {right} of {len(better)} pairs only; is lower better?"


def _differ(
    trial: _Trial, expected: NDArray[np.float64], found: NDArray[np.float64], how: str
) -> Iterator[str]:
    """Say where two sets of scores are not the same."""
    if expected.shape != found.shape:
        yield f"{how}, {found.shape} scores instead of {expected.shape}"
        return
    with np.errstate(invalid="ignore"):
        far = ~(np.abs(expected - found) <= trial.allowed)
    both_nan = np.isnan(expected) & np.isnan(found)  # told by `finite`
    if (places := np.flatnonzero(far & ~both_nan)).size:
        place = places[0]
        yield (
            f"{how}, {places.size} of {len(found)} scores differ by more than {trial.allowed:.2g}: "
            f"number {place} is {found[place]:.6g} instead of {expected[place]:.6g}"
        )


def _pictures() -> list[Image.Image]:
    """Make pictures of many sizes and modes that always look the same."""
    random = np.random.default_rng(7)
    pictures = []
    for width, height in _SIZES:
        ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
        noise = random.uniform(-80, 80, (height, width, 3))
        pictures.append(Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8), "RGB"))
    pictures.append(Image.new("RGB", (50, 50), "black"))
    pictures.append(Image.new("RGB", (50, 50), "white"))
    pictures.append(pictures[2].convert("L"))
    pictures.append(pictures[3].convert("P"))
    pictures.append(pictures[4].convert("RGBA"))
    return pictures

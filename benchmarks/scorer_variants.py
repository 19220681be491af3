"""The other paths of each scorer that are in circulation, each made from what Palate's modules offer.

A path is what some code does otherwise: another resize, another activation, another padding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from palate.data.images import to_rgb
from palate.models.clip import Clip
from palate.models.clip_files import load_clip
from palate.models.mps import Mps
from palate.models.mps_condition import Masking
from palate.models.pixels import prepare, resized
from palate.models.tokens import Tokenizer
from palate.scoring.catalog import SCORERS, load
from palate.scoring.eye import Eye
from palate.scoring.networks import AestheticScorer, ClipScorer, ImageRewardScorer, MpsScorer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "parity"))
from official import OFFICIAL, Official

WORDS = OFFICIAL["hps-v1"][0]["tokenizer"]
Floats = NDArray[np.float64]
Score = Callable[[Official], Floats]


def judged(official: Official, scorer: Any) -> Floats:
    """Score the cases with another scorer."""
    return scorer.judge(official.images, official.prompts).values


def prepared(**changes: Any) -> Score:
    """Change the preparation of the images."""

    def score(official: Official) -> Floats:
        eye = official.scorer.eye
        how = replace(eye.preparation, **changes)
        seen = Eye(eye.trunk, eye.head, how, eye.device, lambda: "").see(official.images)
        return official.scorer.judge_seen(
            seen, [image.size for image in official.images], official.prompts
        ).values

    return score


def profile(name: str) -> Score:
    """Take another profile of the catalogue."""
    return lambda official: judged(
        official, load(official.name, **OFFICIAL[official.name][0], profile=name)
    )


def read_as(official: Official, **changes: Any) -> Clip:
    """Load the CLIP of a scorer again, read in another way."""
    given = OFFICIAL[official.name][0]
    reading = next(iter(SCORERS[official.name].profiles.values())).reading
    tokenizer = given.get("tokenizer")
    path = given.get("clip", given["weights"])
    return load_clip(path, tokenizer=tokenizer, reading=replace(reading, **changes))


def reading(**changes: Any) -> Score:
    """Read the CLIP of a scorer in another way."""

    def score(official: Official) -> Floats:
        clip = read_as(official, **changes)
        if official.name == "aesthetic":
            return judged(official, AestheticScorer(clip, official.scorer.head))
        return judged(official, ClipScorer(clip, official.name, unit=official.scorer.unit))

    return score


def resized_in_8_bits(official: Official) -> Floats:
    """Resize 8-bit tensors in torch; what has its size already is only cropped by Palate."""
    images = []
    for image in official.images:
        pixels = torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)[None]
        size = resized(image.height, image.width, official.scorer.eye.preparation)
        small = functional.interpolate(pixels, size, mode="bicubic", antialias=True)
        images.append(Image.fromarray(small[0].permute(1, 2, 0).numpy()))
    return official.scorer.judge(images, official.prompts).values


def rounded(official: Official) -> Floats:
    """Round the features of a CLIP and their product to 16 bits."""
    scorer = official.scorer
    seen = scorer.eye.see(official.images).half().float()
    text = scorer.read(official.prompts).states[0].half().float()
    cosines = (seen * text).sum(-1).half()
    return scorer.scale * cosines.double().numpy()


def halved(clip: Clip) -> Clip:
    """Give a CLIP with weights of 16 bits, which then computes in them."""
    return replace(clip, model=deepcopy(clip.model).half())


def clip_in_half(official: Official) -> Floats:
    """Compute a CLIP in 16 bits from the pixels on."""
    clip = halved(official.scorer.clip)
    scorer = ClipScorer(clip, official.name, unit="cosine")
    with torch.inference_mode():
        seen = clip.image_features(prepare(official.images, clip.preparation).half())
    cosines = scorer.judge_seen(
        seen, [image.size for image in official.images], official.prompts
    ).values
    return official.scorer.scale * cosines


def mps_with(official: Official, mps: Mps, threshold: float | None = None) -> MpsScorer:
    """Give the scorer of a case on another network or with another threshold."""
    scorer = official.scorer
    masking = scorer.masking if threshold is None else Masking(threshold=threshold)
    return MpsScorer(mps, scorer.dimension, scorer.condition, masking)


def padded_with_zeros(official: Official) -> Floats:
    """Pad prompts and condition with token 0 instead of the end token."""
    mps = official.scorer.mps
    words = retokenized(mps.clip.tokenizer, pad=0)
    return judged(
        official, mps_with(official, replace(mps, clip=replace(mps.clip, tokenizer=words)))
    )


def mps_in_half(official: Official) -> Floats:
    """Compute MPS in 16 bits from the pixels on, all but the rotary angles."""
    mps = official.scorer.mps
    mps = replace(mps, clip=halved(mps.clip), cross=deepcopy(mps.cross).half())
    with torch.inference_mode():
        seen = mps.image_tokens(prepare(official.images, mps.clip.preparation).half())
    scorer = mps_with(official, mps)
    return scorer.judge_seen(
        seen, [image.size for image in official.images], official.prompts
    ).values


def mask_of_the_batch(official: Official, batch: int = 8) -> Floats:
    """Divide a token's relevance by the largest one of a batch of mixed prompts, not of its own prompt.

    Where no token of a prompt is left, the official code gives no number.
    """
    scorer, values = official.scorer, np.empty(len(official.images))
    mps: Mps = scorer.mps
    words = mps.clip.tokenizer
    condition, _ = mps.text_tokens(words.batch([scorer.condition]).ids)
    order = np.random.default_rng(0).permutation(len(values))
    for places in np.split(order, range(batch, len(order), batch)):
        seen = scorer.eye.see([official.images[place] for place in places])
        text, ends = mps.text_tokens(words.batch([official.prompts[place] for place in places]).ids)
        relevance = (text @ condition.transpose(1, 2)).amax(-1)
        kept = relevance / relevance.max() > scorer.masking.threshold
        found = mps.score(seen, text, ends, kept).numpy()
        values[places] = np.where(kept.any(-1).numpy(), found, np.nan)
    return values


def not_standardised(official: Official) -> Floats:
    """Leave the mean and the deviation of ImageReward out."""
    model = replace(official.scorer.model, mean=0.0, std=1.0)
    return judged(official, ImageRewardScorer(model))


def not_normalised(official: Official) -> Floats:
    """Rate CLIP features of whatever length."""
    clip = official.scorer.clip
    with torch.inference_mode():
        hidden = clip.image_blocks(clip.image_stem(prepare(official.images, clip.preparation)))
        pooled = clip.model.vision_model.post_layernorm(hidden[:, 0])
        return official.scorer.head.rate(clip.model.visual_projection(pooled)).numpy()


def retokenized(words: Tokenizer, **changes: Any) -> Tokenizer:
    """Give a tokenizer with another context or padding."""
    how = {"context": words.context, "pad": words.pad, "clean": words.clean} | changes
    return Tokenizer(words.vocabulary, words.merges, **how)


def clip_score(name: str, *, unit: str | None = None) -> Score:
    """Take a profile of clip-score, divided by the factor of its unit so that it is a cosine again."""
    how = SCORERS["clip-score"].profiles[name]

    def score(official: Official) -> Floats:
        clip = load_clip(OFFICIAL["hps-v1"][0]["weights"], tokenizer=WORDS, reading=how.reading)
        scorer = ClipScorer(clip, "clip-score", unit=unit or how.unit, prefix=how.prefix)
        return judged(official, scorer) / scorer.scale

    return score


def cut_at_zero(official: Official) -> Floats:
    """Cut negative cosines to zero."""
    return np.maximum(judged(official, official.scorer), 0)


def cut_without_end(official: Official) -> Floats:
    """Cut longer prompts without putting the end token last; the largest token stands in for it."""
    clip: Clip = official.scorer.clip
    model = deepcopy(clip.model)
    model.config.text_config.eos_token_id = 2  # as in the files of openai/clip-vit-*
    words = retokenized(clip.tokenizer, context=100_000)
    ids = [words.ids(prompt)[0][: clip.tokenizer.context] for prompt in official.prompts]
    rows = [row + [clip.tokenizer.pad] * (clip.tokenizer.context - len(row)) for row in ids]
    with torch.inference_mode():
        text = replace(clip, model=model).text_features(torch.tensor(rows))
        return (official.scorer.eye.see(official.images) * text).sum(-1).double().numpy()


FLOATS, SHORTER = {"domain": "tensor", "convert": "before"}, {"domain": "pil", "resize": "shorter"}
RGB_FIRST = {"RGB before the resize, not after it": prepared(convert="before")}
VARIANTS: dict[str, dict[str, Score]] = {
    "hps-v1": {
        "GELU for quick GELU (profile `gelu`, the labelling script)": profile("gelu"),
        "longer edge, padded (as in training)": prepared(resize="longer"),
        **RGB_FIRST,
        "features and product rounded to 16 bits": rounded,
        "all in 16 bits (as the official code on a GPU)": clip_in_half,
    },
    "hps-v2": {
        "no antialias (profile `no-antialias`, torchvision before 0.17)": profile("no-antialias"),
        "Pillow resize in 8 bits, then padded": prepared(domain="pil"),
        "shorter edge and crop": prepared(**SHORTER),
        "quick GELU for GELU": reading(activation="quick_gelu"),
        "features and product rounded to 16 bits": rounded,
    },
    "pickscore": {
        "8-bit tensor resize (transformers 5 by default)": resized_in_8_bits,
        "float tensor resize": prepared(**FLOATS),
        "RGB after the resize, not before it": prepared(convert="after"),
        "longer edge, padded": prepared(resize="longer"),
        "padding with 0, not the end token": reading(pad=0),
    },
    "image-reward": {
        **RGB_FIRST,
        "float tensor resize": prepared(**FLOATS),
        "no standardisation": not_standardised,
    },
    "mps": {
        "mask threshold 0.01 (profile `forward`, the README)": profile("forward"),
        "padding with 0, not the end token": padded_with_zeros,
        "mask divided by the maximum of a batch of 8": mask_of_the_batch,
        "all in 16 bits but the rotary angles": mps_in_half,
    },
    "aesthetic": {
        "GELU for quick GELU": reading(activation="gelu"),
        "features not normalised": not_normalised,
        **RGB_FIRST,
    },
    "clip-score": {
        "profile `hessel`, ÷ 2.5": clip_score("hessel"),
        "its prefix alone": clip_score("hessel", unit="cosine"),
        "profile `torchmetrics`, ÷ 100": clip_score("torchmetrics"),
        "its preparation and tokens alone": clip_score("torchmetrics", unit="cosine"),
        "negative cosines cut to 0, as both do": cut_at_zero,
        "long prompts cut without their end token (torchmetrics)": cut_without_end,
    },
}

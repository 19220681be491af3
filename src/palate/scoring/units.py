"""Units of scores: what one is, and how scores of one prompt's images become shares."""

from __future__ import annotations

from dataclasses import dataclass

from palate.errors import DataError


@dataclass(frozen=True, slots=True)
class Unit:
    """What a unit means; ``logits`` times a score goes into a softmax, None where none is published."""

    meaning: str
    logits: float | None


UNITS: dict[str, Unit] = {
    "cosine": Unit("cosine between image and text features, from -1 to 1", 100.0),
    "hps": Unit("100 × cosine, as the HPS papers print it", 1.0),
    "logit": Unit("exp(logit scale) × cosine", 1.0),
    "reward": Unit(
        "ImageReward's standardised reward: mean 0 and deviation 1 on its authors' data", 1.0
    ),
    "rating": Unit("rating of the image alone, about 1 to 10", None),
    "clipscore": Unit("2.5 × max(cosine, 0), Hessel et al. 2021", 40.0),
    "clipscore-100": Unit("100 × max(cosine, 0), as torchmetrics", 1.0),
}


def describe_unit(unit: str) -> str:
    """Say what a unit means; one that Palate does not know is its own description."""
    return UNITS[unit].meaning if unit in UNITS else unit


def softmax_factor(unit: str) -> float | None:
    """Give what a score is multiplied by before a softmax over a prompt's images, or None if that means nothing.

    The HPS paper takes the softmax of 100 × cosine, which is CLIP's logit scale; PickScore, MPS and ImageReward take
    that of their scores.
    """
    return UNITS[unit].logits if unit in UNITS else None


def cosine_scale(unit: str, logit_scale: float) -> tuple[float, bool]:
    """Give the factor from a cosine to a unit, and whether negative scores are cut to zero.

    Raises DataError for a unit that is not made of a cosine.
    """
    known = {
        "cosine": (1.0, False),
        "hps": (100.0, False),
        "logit": (logit_scale, False),
        "clipscore": (2.5, True),
        "clipscore-100": (100.0, True),
    }
    if unit not in known:
        raise DataError(f"unit is {unit!r}, expected one of {', '.join(known)}")
    return known[unit]

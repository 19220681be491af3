"""Units of scores: what one is, and how scores of one prompt's images become shares."""

from __future__ import annotations

from dataclasses import dataclass

from palate.errors import DataError
from palate.models.image_reward import STD as REWARD_DEVIATION


@dataclass(frozen=True, slots=True)
class Unit:
    """What a unit means; ``logits`` times a score goes into a softmax, None where none is published."""

    meaning: str
    logits: float | None


UNITS: dict[str, Unit] = {
    "cosine": Unit("cosine between image and text features, from -1 to 1", 100.0),
    "hps": Unit("100 × cosine, as the HPS papers print it", 1.0),
    "logit": Unit(
        "exp(logit scale) × cosine, and the logit bias of a SigLIP added; of a head that learnt from choices, "
        "what it gives",
        1.0,
    ),
    "reward": Unit(
        "ImageReward's standardised reward: mean 0 and deviation 1 on its authors' data",
        # its authors train on the raw reward, of which this is the standardised one
        REWARD_DEVIATION,
    ),
    "rating": Unit("rating of the image alone, about 1 to 10", None),
    "clipscore": Unit("2.5 × max(cosine, 0), Hessel et al. 2021", None),
    "clipscore-100": Unit("100 × max(cosine, 0), as torchmetrics", None),
}

# units made of a cosine: its factor (None: the logit scale of the weights), and whether negative scores are cut to 0
COSINES: dict[str, tuple[float | None, bool]] = {
    "cosine": (1.0, False),
    "hps": (100.0, False),
    "logit": (None, False),
    "clipscore": (2.5, True),
    "clipscore-100": (100.0, True),
}


def describe_unit(unit: str) -> str:
    """Say what a unit means; one that Palate does not know is its own description."""
    return UNITS[unit].meaning if unit in UNITS else unit


def softmax_factor(unit: str) -> float | None:
    """Give what a score is multiplied by before a softmax over a prompt's images, or None if that means nothing.

    The HPS paper takes the softmax of 100 × cosine, which is CLIP's logit scale; PickScore, MPS and ImageReward take
    that of their scores (ImageReward before they are standardised). No softmax of CLIPScore or of ratings is published.
    """
    return UNITS[unit].logits if unit in UNITS else None


def cosine_scale(unit: str, logit_scale: float) -> tuple[float, bool]:
    """Give the factor from a cosine to a unit, and whether negative scores are cut to zero.

    Raises DataError for a unit that is not made of a cosine.
    """
    if unit not in COSINES:
        raise DataError(f"unit is {unit!r}, expected one of {', '.join(COSINES)}")
    factor, cut = COSINES[unit]
    return (logit_scale if factor is None else factor), cut

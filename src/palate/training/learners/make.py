"""From a folder and settings to the base of a training, and from there to its learner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from palate.errors import SettingsError
from palate.models.blip import load_reward_base
from palate.models.clip import Clip
from palate.models.image_reward import ImageReward
from palate.models.mps import Mps
from palate.models.siglip import Siglip
from palate.models.towers import load_towers
from palate.training.learners.aesthetic import (
    AestheticBase,
    AestheticLearner,
    load_aesthetic_base,
)
from palate.training.learners.image_reward import ImageRewardLearner
from palate.training.learners.learner import Base, Learner, padded
from palate.training.learners.mps import MpsLearner, load_mps_base
from palate.training.learners.towers import TowersLearner
from palate.training.settings import TrainSettings


def load_base(
    path: Path,
    settings: TrainSettings,
    *,
    tokenizer: Path | None = None,
    architecture: Path | None = None,
    device: str = "cpu",
) -> Base:
    """Read what a training of this model starts from. Raises CheckpointError, as the model's reader does."""
    match settings.model:
        case "towers":
            return load_towers(path, tokenizer=tokenizer, architecture=architecture, device=device)
        case "mps":
            return load_mps_base(
                path,
                settings.mps,
                settings.seed,
                tokenizer=tokenizer,
                architecture=architecture,
                device=device,
            )
        case "image-reward":
            return load_reward_base(
                path,
                settings.seed,
                tokenizer=tokenizer,
                architecture=architecture,
                device=device,
            )
        case "aesthetic":
            return load_aesthetic_base(
                path, tokenizer=tokenizer, architecture=architecture, device=device
            )


def learner_of(base: Base, settings: TrainSettings) -> Learner:
    """Give the learner of the model that the settings name. Raises SettingsError for another base."""
    match settings.model, base:
        case "aesthetic", AestheticBase():
            return AestheticLearner(base)
        case "image-reward", ImageReward():
            return ImageRewardLearner(base, settings.trained())
        case "mps", Mps():
            return MpsLearner(
                base,
                settings.trained(),
                settings.dimensions,
                settings.mps,
                logit_scale=settings.logit_scale,
                train_logit_scale=settings.train_logit_scale,
            )
        case "towers", Clip() | Siglip():
            if settings.pad == "always":
                base = replace(base, preparation=padded(base.preparation))
            return TowersLearner(
                base,
                settings.trained(),
                logit_scale=settings.logit_scale,
                train_logit_scale=settings.train_logit_scale,
                unit=settings.unit,
            )
    raise SettingsError(f"the model '{settings.model}' cannot start from a {type(base).__name__}")

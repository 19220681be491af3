"""From a folder and settings to the base of a training, and from there to its learner."""

from __future__ import annotations

from pathlib import Path

from palate.errors import SettingsError
from palate.models.clip import Clip
from palate.models.towers import load_towers
from palate.training.learners.clip import ClipLearner
from palate.training.learners.learner import Base, Learner
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


def learner_of(base: Base, settings: TrainSettings) -> Learner:
    """Give the learner of the model that the settings name. Raises SettingsError for another base."""
    match settings.model, base:
        case "towers", Clip():
            return ClipLearner(
                base,
                settings.trained(),
                logit_scale=settings.logit_scale,
                train_logit_scale=settings.train_logit_scale,
                unit=settings.unit,
            )
    raise SettingsError(f"the model '{settings.model}' cannot start from a {type(base).__name__}")

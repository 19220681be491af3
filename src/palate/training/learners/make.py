"""From a base and settings to the learner."""

from __future__ import annotations

from palate.models.clip import Clip
from palate.training.learners.clip import ClipLearner
from palate.training.learners.learner import Learner
from palate.training.settings import TrainSettings


def learner_of(base: Clip, settings: TrainSettings) -> Learner:
    """Give the learner of the kind that the settings name, on a base."""
    return ClipLearner(
        base,
        settings.trained(),
        logit_scale=settings.logit_scale,
        train_logit_scale=settings.train_logit_scale,
        unit=settings.unit,
    )

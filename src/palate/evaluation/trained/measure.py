"""The saved scorer of a training held against choices that it did not learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.checks import list_lengths
from palate.data.tables import Dataset
from palate.errors import DataError
from palate.evaluation.bias import BiasAudit, audit_bias
from palate.evaluation.evaluate import Evaluation, evaluate_choices
from palate.evaluation.joins import prompt_codes, values_of_choices
from palate.scoring.catalog import load
from palate.scoring.score import score_table
from palate.scoring.scorer import Scorer
from palate.scoring.units import softmax_factor
from palate.stats.calibrations.calibration import (
    Calibration,
    CalibrationSettings,
    calibrate_choices,
)


@dataclass(frozen=True)
class Measured:
    """A trained scorer on choices that it did not learn from, or why a part could not be measured.

    These choices picked the checkpoint, so that the accuracy is optimistic.
    """

    dimension: str
    accuracy: Evaluation
    calibration: Calibration | str
    bias: BiasAudit | str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        parts = {"calibration": self.calibration, "bias": self.bias}
        return {
            "dimension": self.dimension,
            "accuracy": self.accuracy.to_dict(),
            **{
                name: {"not_measured": part} if isinstance(part, str) else part.to_dict()
                for name, part in parts.items()
            },
        }


def trained_scorers(run: Path, settings: Mapping[str, Any]) -> list[tuple[Scorer, tuple[str, ...]]]:
    """Load what a training saved, each scorer with the dimensions that it learnt: one, or one for each dimension."""
    dimensions = tuple(settings["dimensions"])
    if settings["model"] == "mps":
        return [(load(run, condition=name), (name,)) for name in dimensions]
    return [(load(run), dimensions)]


def measure_trained(scorer: Scorer, validation: Dataset, dimensions: Sequence[str]) -> Measured:
    """Score the images of the choices on some dimensions and hold the scores against them."""
    asked = pc.is_in(validation.choices["dimension"], value_set=pa.array(dimensions))
    choices = validation.choices.filter(asked)
    shown = pc.list_flatten(choices["images"]).unique()
    images = validation.images.filter(pc.is_in(validation.images["image"], value_set=shown))
    scores = score_table(images, validation.folder, scorer)
    return Measured(
        dimension=scorer.dimension,
        accuracy=evaluate_choices(choices, scores),
        calibration=_calibrated(choices, scores),
        bias=_audited(choices, scores, images, validation.folder),
    )


def _calibrated(choices: Any, scores: Any) -> Calibration | str:
    offsets = np.concatenate([[0], np.cumsum(list_lengths(choices["images"]))])
    ranks = pc.list_flatten(choices["ranks"]).to_numpy().astype(np.int64)
    before = softmax_factor(scores["unit"][0].as_py()) or 1.0
    values, settings = values_of_choices(choices, scores), CalibrationSettings(before=before)
    try:
        return calibrate_choices(values, ranks, offsets, prompt_codes(choices), settings)
    except DataError as fault:
        return str(fault)


def _audited(choices: Any, scores: Any, images: Any, folder: Path) -> BiasAudit | str:
    try:
        return audit_bias(choices, scores, images, folder)
    except DataError as fault:
        return str(fault)

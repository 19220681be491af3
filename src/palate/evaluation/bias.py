"""Find what a scorer goes by that people do not: the covariates of images and prompts, and their audit.

`palate.evaluation.bias_slopes` says what the slopes mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.errors import DataError
from palate.evaluation.bias_slopes import Answered, BiasSettings, image_biases, prompt_biases
from palate.evaluation.bias_text import BiasAudit, bias_table
from palate.evaluation.covariates import (
    FROM_FILES,
    FROM_TABLE,
    Measured,
    file_covariates,
    table_covariates,
)
from palate.evaluation.joins import one_scorer, prompt_codes, scored_choices, values_of_choices
from palate.stats.answered import answered_duels
from palate.stats.intervals import person_codes

__all__ = ["BiasAudit", "BiasSettings", "audit_bias", "bias_table"]

Floats = NDArray[np.float64]
FROM_SCORES: Final = {"area kept": "share of the image that the scorer saw, from 0 to 1"}
FROM_ORDER: Final = {"position": "place in the order shown, counted from the first"}


def audit_bias(
    choices: Any,
    scores: Any,
    images: Any = None,
    folder: Path | str | None = None,
    settings: BiasSettings | None = None,
) -> BiasAudit:
    """Find what a scorer goes by: size, shape, brightness, sharpness, position, prompt length and more.

    `choices`, `scores` and `images` are tables; without images only position, area kept and the prompts are
    tested. `folder` is where the paths of the images start; without it no file is measured. Errors and tests
    take a prompt as one cluster, and a person as another where people are known. Raises `DataError` as `evaluate_choices` does for choices without scores.
    """
    settings = settings or BiasSettings()
    if not len(choices):
        raise DataError("there are no choices to audit")
    scores = one_scorer(scores, settings.scorer)
    values = values_of_choices(choices, scores)
    kept = scored_choices(choices, values, scores, settings.missing)
    values = values[np.repeat(kept, list_lengths(choices.column("images")))]
    left_out, choices = int((~kept).sum()), choices.filter(pa.array(kept))
    answered, uncompared = _answered(choices, values)
    measured = _measured(images, folder, settings)
    columns, reasons = _image_columns(choices, scores, images, measured)
    found = image_biases(columns, answered, reasons, settings)
    prompts = prompt_biases(_prompt_columns(choices, scores), answered, reasons, settings)
    return BiasAudit(
        scorer=scores.column("scorer")[0].as_py(),
        fingerprint=scores.column("fingerprint")[0].as_py(),
        unit=scores.column("unit")[0].as_py(),
        images=found,
        prompts=prompts,
        duels=len(answered.people),
        n_prompts=len(np.unique(answered.prompts)),
        n_people=len(person_codes(answered.annotators, len(answered.annotators))[1]),
        uncompared=uncompared,
        left_out=left_out,
        not_tested=reasons,
        unreadable=measured.unreadable,
        faults=measured.faults,
        settings=settings,
    )


def _answered(choices: Any, values: Floats) -> tuple[Answered, int]:
    """Take the duels that people answered, and count the others."""
    all_duels = answered_duels(choices)
    pairs, rows = all_duels.duels, np.flatnonzero(all_duels.kept)
    if not len(rows):
        raise DataError("no choice has two images that people compared")
    choice, first, second = pairs.choice[rows], pairs.first_index[rows], pairs.second_index[rows]
    people = np.asarray(choices.column("annotator").to_pylist(), dtype=object)
    answered = Answered(
        people=pairs.outcome[rows],
        gap=values[first] - values[second],
        prompts=prompt_codes(choices)[choice],
        annotators=people[choice],
        choice=choice,
        first=first,
        second=second,
    )
    return answered, all_duels.silent


def _measured(images: Any, folder: Path | str | None, settings: BiasSettings) -> Measured:
    if images is None or folder is None or not settings.files:
        return Measured({}, 0, ())
    return file_covariates(images, folder, settings.workers)


def _image_columns(
    choices: Any, scores: Any, images: Any, measured: Measured
) -> tuple[dict[str, tuple[str, Floats]], dict[str, str]]:
    """What each covariate is and its value for every image of every choice; why others are not known."""
    lengths = list_lengths(choices.column("images"))
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    place = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    columns = {"position": (FROM_ORDER["position"], place.astype(np.float64))}
    reasons: dict[str, str] = {}
    told: dict[str, Floats] = {}
    if images is not None:
        flat = pc.list_flatten(choices.column("images"))
        keys = images.column("image").combine_chunks()
        rows = pc.fill_null(pc.index_in(flat, value_set=keys), -1).to_numpy().astype(np.int64)
        known = np.concatenate([np.arange(len(images)), [0]])[rows]
        for name, column in {**table_covariates(images), **measured.columns}.items():
            told[name] = np.where(rows < 0, np.nan, column[known])
    for name, what in {**FROM_TABLE, **FROM_FILES}.items():
        if name in told:
            columns[name] = (what, told[name])
        else:
            reasons[name] = "no table of images" if images is None else "no files were measured"
    columns["area kept"] = (FROM_SCORES["area kept"], _of_scores(choices, scores, "area_kept"))
    return columns, reasons


def _of_scores(choices: Any, scores: Any, name: str) -> Floats:
    """Bring another column of the scores to every image of every choice."""
    place = scores.schema.get_field_index("value")
    return values_of_choices(
        choices, scores.set_column(place, "value", scores.column(name).cast(pa.float64()))
    )


def _prompt_columns(choices: Any, scores: Any) -> dict[str, Floats]:
    """Covariates of the prompt of every choice."""
    words = np.array([len(prompt.split()) for prompt in choices.column("prompt").to_pylist()])
    lengths = list_lengths(choices.column("images"))
    first = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    given, read = (
        _of_scores(choices, scores, name)[first] for name in ("tokens_given", "tokens_kept")
    )
    cut = np.where(np.isnan(given) | np.isnan(read), np.nan, given > read)
    return {"prompt length": np.log2(1 + words), "tokens cut": cut}

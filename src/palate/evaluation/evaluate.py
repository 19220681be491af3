"""Measure a scorer against choices, and compare two sets of scores.

The only accuracy engine of Palate: every other measure of agreement asks it or `palate.stats`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.duels import duels
from palate.errors import DataError
from palate.evaluation.compare import CompareSettings, Comparison, compare_scores
from palate.evaluation.joins import one_scorer, prompt_codes, scored_choices, values_of_choices
from palate.stats.accuracy import (
    Accuracy,
    HumanTies,
    PairTies,
    Ties,
    always_top1,
    chance_top1,
    pairwise,
    top1,
)
from palate.stats.correlation import Correlation, kendall
from palate.stats.intervals import Average, Bootstrap

__all__ = [
    "Agreement",
    "CompareSettings",
    "Comparison",
    "EvaluateSettings",
    "Evaluation",
    "compare_scores",
    "evaluate_choices",
]


@dataclass(frozen=True)
class EvaluateSettings:
    """How a scorer is measured against choices.

    `ties` and `human_ties` are the rules of `palate.stats.accuracy.top1`, `pair_ties` that of
    `pairwise`. `by` gives one result per dimension, source or number of images as well. `missing`
    says what happens to a choice with an image that has no score.
    """

    scorer: str | None = None
    ties: Ties = "expected"
    human_ties: HumanTies = "any"
    pair_ties: PairTies = "half"
    average: Average = "micro"
    by: Literal["dimension", "source", "size"] | None = None
    missing: Literal["fail", "leave-out"] = "fail"
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Agreement:
    """How well a scorer agrees with one group of choices, next to what costs nothing.

    `chance` is picking at random; `always_first` and `always_last` pick by position. `kendall` is
    None where no choice has an order that the scores have too.
    """

    name: str
    choices: int
    prompts: int
    top1: Accuracy
    pairwise: Accuracy
    kendall: Correlation | None
    chance: float
    always_first: Accuracy
    always_last: Accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "choices": self.choices,
            "prompts": self.prompts,
            "top1": self.top1.to_dict(),
            "pairwise": self.pairwise.to_dict(),
            "kendall": None if self.kendall is None else self.kendall.to_dict(),
            "chance": self.chance,
            "always_first": self.always_first.to_dict(),
            "always_last": self.always_last.to_dict(),
        }


@dataclass(frozen=True)
class Evaluation:
    """A scorer measured against choices: the agreement with all of them, and by group."""

    scorer: str
    fingerprint: str
    unit: str
    overall: Agreement
    groups: tuple[Agreement, ...]
    left_out: int
    settings: EvaluateSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "scorer": self.scorer,
            "fingerprint": self.fingerprint,
            "unit": self.unit,
            "overall": self.overall.to_dict(),
            "groups": [group.to_dict() for group in self.groups],
            "left_out": self.left_out,
            "settings": asdict(self.settings),
        }


def evaluate_choices(
    choices: Any, scores: Any, settings: EvaluateSettings | None = None
) -> Evaluation:
    """Measure how often a scorer agrees with people.

    `choices` and `scores` are tables. A score belongs to an image and its prompt; a scorer with
    one dimension is held against choices on every dimension, one with several against those of
    the same name. Intervals resample prompts. Raises `DataError` for a choice without scores,
    unless `missing="leave-out"`, and where the scores are of several scorers and none is named.
    """
    settings = settings or EvaluateSettings()
    if not len(choices):
        raise DataError("there are no choices to evaluate on")
    scores = one_scorer(scores, settings.scorer)
    values = values_of_choices(choices, scores)
    kept = scored_choices(choices, values, scores, settings.missing)
    lengths = list_lengths(choices.column("images"))
    values = values[np.repeat(kept, lengths)]
    left_out = int((~kept).sum())
    choices = choices.filter(pa.array(kept))
    groups = tuple(
        _agreement(name, choices.filter(pa.array(rows)), values[flat], settings)
        for name, rows, flat in _grouped(choices, settings.by)
    )
    return Evaluation(
        scorer=scores.column("scorer")[0].as_py(),
        fingerprint=scores.column("fingerprint")[0].as_py(),
        unit=scores.column("unit")[0].as_py(),
        overall=_agreement("all", choices, values, settings),
        groups=groups,
        left_out=left_out,
        settings=settings,
    )


def _grouped(
    choices: Any, by: str | None
) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Name, rows and flat images of every group of choices, in the order of their names."""
    if by is None:
        return
    lengths = list_lengths(choices.column("images"))
    labels: NDArray[Any] = (
        lengths if by == "size" else np.asarray(choices.column(by).to_pylist(), dtype=object)
    )
    for name in sorted(set(labels.tolist())):
        rows = labels == name
        yield (f"{name} images" if by == "size" else str(name)), rows, np.repeat(rows, lengths)


def _agreement(
    name: str, choices: Any, values: NDArray[np.float64], settings: EvaluateSettings
) -> Agreement:
    lengths = list_lengths(choices.column("images"))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy()
    prompts = prompt_codes(choices)
    bootstrap = Bootstrap(settings.level, settings.resamples, settings.seed)
    pairs = duels(choices)
    answers: dict[str, Any] = {"average": settings.average, "bootstrap": bootstrap}
    baseline: dict[str, Any] = {"human_ties": settings.human_ties, **answers}
    return Agreement(
        name=name,
        choices=len(choices),
        prompts=len(np.unique(prompts)),
        top1=top1(
            values,
            ranks,
            offsets,
            prompts,
            ties=settings.ties,
            **baseline,
        ),
        pairwise=pairwise(
            values[pairs.first_index],
            values[pairs.second_index],
            pairs.outcome,
            prompts[pairs.choice],
            ties=settings.pair_ties,
            **answers,
        ),
        kendall=_kendall(values, ranks, offsets, prompts, answers),
        chance=chance_top1(
            ranks, offsets, prompts, human_ties=settings.human_ties, average=settings.average
        ),
        always_first=always_top1("first", ranks, offsets, prompts, **baseline),
        always_last=always_top1("last", ranks, offsets, prompts, **baseline),
    )


def _kendall(
    values: Any, ranks: Any, offsets: Any, prompts: Any, options: dict[str, Any]
) -> Correlation | None:
    try:
        return kendall(values, ranks, offsets, prompts, **options)
    except DataError:  # no choice has an order: a constant scorer, or ties only
        return None

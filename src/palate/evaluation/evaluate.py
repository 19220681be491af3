"""Measure a scorer against choices, and compare two sets of scores.

The only accuracy engine of Palate: every other measure of agreement asks it or `palate.stats`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.codes import annotator_codes
from palate.data.duels import duels
from palate.errors import DataError
from palate.evaluation.compare import CompareSettings, Comparison, compare_scores
from palate.evaluation.joins import (
    one_scorer,
    prompt_codes,
    scored_choices,
    values_of_choices,
)
from palate.stats.accuracy import (
    Accuracy,
    HumanTies,
    NothingDecidedError,
    PairTies,
    Ties,
    chance_top1,
    pair_credit,
    top1_credit,
)
from palate.stats.correlation import Correlation, kendall
from palate.stats.intervals import Average, Bootstrap, Estimate
from palate.stats.two_way.estimates import AGREED, share_estimate

__all__ = [
    "Agreement",
    "CompareSettings",
    "Comparison",
    "EvaluateSettings",
    "Evaluation",
    "Undecided",
    "compare_scores",
    "evaluate_choices",
]


FEW: Final = 10
"""With fewer prompts, or fewer people, an interval is rough, and the result says so."""


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

    def __post_init__(self) -> None:
        """Refuse settings that give no interval."""
        Bootstrap(self.level, self.resamples, self.seed)


@dataclass(frozen=True)
class Agreement:
    """How well a scorer agrees with one group of choices, next to what costs nothing.

    `chance` is picking at random; `always_first` and `always_last` pick by position. `kendall` is
    None where no choice has an order that the scores have too. Intervals hold for other prompts, and
    for other people where two `people` or more are known.
    """

    name: str
    choices: int
    prompts: int
    people: int
    top1: Accuracy
    pairwise: Accuracy
    kendall: Correlation | None
    chance: float
    always_first: Accuracy
    always_last: Accuracy

    @property
    def clusters(self) -> tuple[str, ...]:
        """What the intervals go by."""
        return ("prompts", "people") if self.people > 1 else ("prompts",)

    def cautions(self) -> list[str]:
        """Why the intervals say less than they seem to, a sentence each."""
        few = [f"{self.prompts} prompt{'s' * (self.prompts > 1)}"] if self.prompts < FEW else []
        if 1 < self.people < FEW:
            few.append(f"{self.people} people")
        told = []
        if few:
            told.append(
                f"{self.name}: the intervals rest on {' and '.join(few)} only, and are rough"
            )
        measured = (("top-1", self.top1.estimate), ("pairwise", self.pairwise.estimate))
        return told + [
            _agreed(self.name, name, its) for name, its in measured if its.method == AGREED
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "choices": self.choices,
            "prompts": self.prompts,
            "people": self.people,
            "clusters": list(self.clusters),
            "top1": self.top1.to_dict(),
            "pairwise": self.pairwise.to_dict(),
            "kendall": None if self.kendall is None else self.kendall.to_dict(),
            "chance": self.chance,
            "always_first": self.always_first.to_dict(),
            "always_last": self.always_last.to_dict(),
            "cautions": self.cautions(),
        }


def _agreed(group: str, measure: str, its: Estimate) -> str:
    worth = "right" if its.value else "wrong"
    return (
        f"{group}: {measure} is {worth} in all {its.count:,} answers, of which resampling makes a point: its "
        "interval is Wilson's with Student's t, each prompt (or person, if these are fewer) one answer"
    )


@dataclass(frozen=True)
class Undecided:
    """A group of choices that decides nothing, and why."""

    name: str
    choices: int
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """A scorer measured against choices: the agreement with all of them, and by group.

    `undecided` are the groups in which nobody decided anything that counts.
    """

    scorer: str
    fingerprint: str
    unit: str
    overall: Agreement
    groups: tuple[Agreement, ...]
    undecided: tuple[Undecided, ...]
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
            "undecided": [asdict(group) for group in self.undecided],
            "left_out": self.left_out,
            "settings": asdict(self.settings),
        }


def evaluate_choices(
    choices: Any, scores: Any, settings: EvaluateSettings | None = None
) -> Evaluation:
    """Measure how often a scorer agrees with people.

    `choices` and `scores` are tables. A score belongs to an image and its prompt; a scorer with
    one dimension is held against choices on every dimension, one with several against those of
    the same name. Intervals hold for other prompts and, where annotators are known, other people
    (`share_estimate`). A group that decides nothing is listed as such. Raises `DataError` for a choice without
    scores, unless `missing="leave-out"`, and where the scores are of several scorers and none is named.
    """
    settings = settings or EvaluateSettings()
    if not len(choices):
        raise DataError("there are no choices to evaluate on")
    scores = one_scorer(scores, settings.scorer)
    values = values_of_choices(choices, scores)
    kept = scored_choices(choices, values, scores, settings.missing)
    left_out = int((~kept).sum())
    if left_out:
        values = values[np.repeat(kept, list_lengths(choices.column("images")))]
        choices = choices.filter(pa.array(kept))
    groups: list[Agreement] = []
    undecided: list[Undecided] = []
    for name, rows, flat in _grouped(choices, settings.by):
        try:
            groups.append(_agreement(name, choices.filter(pa.array(rows)), values[flat], settings))
        except NothingDecidedError as fault:
            undecided.append(Undecided(name, int(rows.sum()), str(fault)))
    return Evaluation(
        scorer=scores.column("scorer")[0].as_py(),
        fingerprint=scores.column("fingerprint")[0].as_py(),
        unit=scores.column("unit")[0].as_py(),
        overall=_agreement("all", choices, values, settings),
        groups=tuple(groups),
        undecided=tuple(undecided),
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
    pairs = duels(choices)
    count = _Counted(choices, settings)
    first, second = values[pairs.first_index], values[pairs.second_index]
    places = np.arange(len(values), dtype=np.float64)
    rules: dict[str, Any] = {"human_ties": settings.human_ties}

    def top1(what: str, scores: NDArray[np.float64], **given: Any) -> Accuracy:
        credit = top1_credit(scores, ranks, offsets, **rules, **given)
        return count.accuracy(what, credit, (given.get("ties", "none"), settings.human_ties))

    def pairwise() -> Accuracy:
        credit = pair_credit(first, second, pairs.outcome, ties=settings.pair_ties)
        return count.accuracy("pairwise", credit, (settings.pair_ties, "drop"), rows=pairs.choice)

    # most of it leaves Python alone, so that two at a time take little more than half as long
    with ThreadPoolExecutor(2) as pool:
        asked: dict[str, Future[Any]] = {
            "top1": pool.submit(top1, "top-1", values, ties=settings.ties),
            "pairwise": pool.submit(pairwise),
            "kendall": pool.submit(count.kendall, values, ranks, offsets),
            "chance": pool.submit(
                chance_top1, ranks, offsets, count.prompts, **rules, average=settings.average
            ),
            "always_first": pool.submit(top1, "always first", -places),
            "always_last": pool.submit(top1, "always last", places),
        }
    return Agreement(
        name=name,
        choices=len(choices),
        # both are numbered from 0 without a gap
        prompts=int(count.prompts.max()) + 1,
        people=int(count.people.max()) + 1,
        **{measure: found.result() for measure, found in asked.items()},
    )


class _Counted:
    """The clusters of choices, and how what each earned becomes an accuracy."""

    def __init__(self, choices: Any, settings: EvaluateSettings) -> None:
        self.prompts = prompt_codes(choices)
        self.people = annotator_codes(choices)
        bootstrap = Bootstrap(settings.level, settings.resamples, settings.seed)
        self._options: dict[str, Any] = {"average": settings.average, "bootstrap": bootstrap}

    def accuracy(
        self,
        measure: str,
        earned: tuple[NDArray[np.float64], NDArray[np.bool_]],
        rules: tuple[str, str],
        rows: NDArray[np.int64] | None = None,
    ) -> Accuracy:
        """Average the credit that counts; `rows` says which choice each belongs to (None: one each)."""
        credit, kept = earned
        choice = np.flatnonzero(kept) if rows is None else rows[kept]
        clusters = (self.prompts[choice], self.people[choice])
        estimate = share_estimate(credit[kept], *clusters, **self._options)
        return Accuracy(measure, estimate, *rules, int((~kept).sum()))

    def kendall(self, values: Any, ranks: Any, offsets: Any) -> Correlation | None:
        """Mean tau of the choices; None where none has an order: a constant scorer, or ties only."""
        try:
            return kendall(
                values, ranks, offsets, self.prompts, people=self.people, **self._options
            )
        except DataError:
            return None

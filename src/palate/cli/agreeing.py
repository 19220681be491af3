"""`palate stats agreement`: how far people agree, and what a scorer can reach at best."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli._options import DataArgument, DimensionOption, JsonOption
from palate.cli._results import (
    OutOption,
    OverwriteOption,
    about,
    open_choices,
    refuse_other_file,
    tell,
)
from palate.cli._text import percent, text_table

if TYPE_CHECKING:
    from palate.stats.agreements.annotators import Annotators
    from palate.stats.agreements.ceiling import Ceilings
    from palate.stats.agreements.report import Question

_COMMAND = "stats agreement"


def agreement(
    dataset: DataArgument,
    dimension: DimensionOption = None,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    resamples: Annotated[
        int, typer.Option(help="Resamples for intervals, from 100 to a million.")
    ] = 500,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say how far people agree with each other, and what a scorer can reach at best.

    Percent agreement, Fleiss' kappa, Gwet's AC1 and Krippendorff's alpha over questions that several
    people answered, ordinal and interval where there are ties, rankings or ratings; what was counted and
    what was not; the human ceilings; and the annotators who agree least.

    Example: palate stats agreement data/study --dimension overall
    """
    from palate.stats.agreements.answers import pair_answers
    from palate.stats.agreements.report import agreement_report
    from palate.stats.intervals import Bootstrap

    refuse_other_file(out, _COMMAND, overwrite=overwrite)
    bootstrap = Bootstrap(level, resamples)
    with about(dataset):
        choices = open_choices(dataset, dimension).choices
        answers = pair_answers(choices)
        questions = agreement_report(choices, bootstrap=bootstrap, pairs=answers)
        pairs = answers.without_ties()
        ceilings = _ceilings(pairs, bootstrap)
        people = _people(pairs, level)
    facts = {
        "questions": {one.name: one.to_dict() for one in questions},
        "ceilings": None if ceilings is None else ceilings.to_dict(),
        "annotators": None if people is None else people.to_dict(),
    }

    def text() -> str:
        parts = [_coefficients(questions, level), "", *(one.sentence() for one in questions)]
        if ceilings is not None:
            parts += ["", _ceilings_text(ceilings)]
        if people is not None:
            parts += ["", _people_text(people)]
        return "\n".join(parts)

    tell(_COMMAND, facts, text, out, as_json=as_json)


def _ceilings(pairs: Any, bootstrap: Any) -> Ceilings | None:
    """The ceilings of decided pairs; None where no two people decided the same pair."""
    from palate.stats.agreements.ceiling import human_ceilings
    from palate.stats.agreements.units import NothingToCompareError

    try:
        return human_ceilings(pairs, bootstrap=bootstrap)
    except NothingToCompareError:
        return None


def _people(pairs: Any, level: float) -> Annotators | None:
    """Each person beside the others, by name; None where nobody is known or nobody can be compared."""
    from dataclasses import replace

    from palate.stats.agreements.annotators import annotator_agreement
    from palate.stats.agreements.units import NothingToCompareError

    if not pairs.people:
        return None
    columns = (pairs.items, pairs.values, pairs.raters, pairs.prompts)
    try:
        found = annotator_agreement(*columns, level=level)
    except NothingToCompareError:
        return None
    named = (replace(one, name=pairs.people[int(one.name)]) for one in found.people)
    return replace(found, people=tuple(named))


def _coefficients(questions: Sequence[Question], level: float) -> str:
    rows = []
    for question in questions:
        for its in question.coefficients:
            # a coefficient without a value has no bounds either
            numbers = (its.value, its.low, its.high)
            told = ["none" if isnan(number) else f"{number:.3f}" for number in numbers]
            bounds = f"{told[1]} to {told[2]}" if told[1] != "none" else "none"
            rows.append([question.name, its.measure, told[0], bounds, f"{its.items:,}"])
    header = ["question", "measure", "value", f"{100 * level:g}% interval", "items"]
    return text_table(header, rows, right="24")


def _ceilings_text(found: Ceilings) -> str:
    rows = []
    for name, one in (
        ("one person and one other", found.pair),
        ("one person and the majority of the others", found.rest),
        ("one person and the majority of all", found.majority),
    ):
        its = one.estimate
        rows.append([name, percent(its.value, its.low, its.high)])
    return text_table(["human ceiling, order of two images, ties left out", "agree"], rows)


def _people_text(found: Annotators) -> str:
    rows = [
        [str(one.name), percent(one.agreement, one.low, one.high), f"{one.answers:,}"]
        for one in found.people[:5]
    ]
    header = ["annotators who agree least", "with the majority of the others", "answers"]
    return text_table(header, rows, right="2")

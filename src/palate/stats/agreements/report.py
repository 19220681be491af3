"""Every coefficient that choices allow, question by question, with what was counted and what was not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import isnan
from typing import Any, Final

import pyarrow.compute as pc

from palate.data.checks import list_lengths
from palate.stats.agreements.answers import (
    Answers,
    best_answers,
    pair_answers,
    rank_answers,
    rating_answers,
)
from palate.stats.agreements.coefficients import Coefficient, krippendorff_alpha
from palate.stats.agreements.nameless import nameless_agreement
from palate.stats.agreements.units import NothingToCompareError
from palate.stats.intervals import Bootstrap

_NOUNS: Final = {
    "pair": "pairs of images",
    "best": "questions",
    "rank": "images of rankings",
    "rating": "rated images",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked of people, the coefficients of their answers, and what did not count.

    `ties` of pairs take part as an answer of their own; `undecided` choices name no single best image and
    are left out, as are the `repeats` of one person on one item, `silent` pairs of images that nobody
    picked, and `alone`, items that a single person answered. `unasked` choices hold nothing of this kind.
    """

    name: str
    kind: str
    coefficients: tuple[Coefficient, ...]
    answers: int
    people: int
    ties: int
    repeats: int
    silent: int
    undecided: int
    unasked: int
    alone: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = ("answers", "people", "ties", "repeats", "silent", "undecided", "unasked", "alone")
        return {
            "counts": {name: getattr(self, name) for name in names},
            "coefficients": [one.to_dict() for one in self.coefficients],
        }

    def sentence(self) -> str:
        """Say what was counted, and all that was not."""
        who = f"{self.people:,} people" if self.people else "people whose names are not known"
        parts = [f"{self.answers:,} answers by {who} to {_NOUNS[self.kind]}"]
        told = [
            (self.ties, "ties take part as an answer of their own"),
            (self.repeats, "repeated answers of a person left out (the first by key counts)"),
            (self.silent, "pairs between images that nobody picked left out"),
            (self.undecided, "choices without a single best image left out"),
            (self.alone, "items with one answer left out"),
        ]
        parts += [f"{count:,} {words}" for count, words in told if count]
        over = "other prompts and people" if self.coefficients[0].two_way else "other prompts"
        parts.append(f"intervals hold for {over}")
        return f"{self.name}: {'; '.join(parts)}"


def agreement_report(
    choices: Any,
    *,
    dimension: str | None = None,
    bootstrap: Bootstrap | None = None,
    pairs: Answers | None = None,
) -> tuple[Question, ...]:
    """Measure agreement on the order of two images, the best image, the ranking and the ratings.

    A question is left out where the choices do not hold it: the best image where all choices are between
    two, rankings where all are picks or pairs, ratings where there are none. `pairs` are the answers of
    `pair_answers`, where they are at hand. Intervals hold for other
    prompts, and for other people where people are known. Raises `DataError` where no two people
    answered the same.
    """
    several = bool((list_lengths(choices.column("images")) > 2).any())
    rated = pc.any(pc.match_substring(choices.column("details"), '"ratings"')).as_py()
    asked: list[tuple[str, Callable[..., Answers], object]] = [
        ("order of two images", pair_answers if pairs is None else lambda *_, **__: pairs, True),
        ("best image", best_answers, several),
        ("place in the ranking", rank_answers, several),
        ("rating", rating_answers, rated),
    ]
    found = []
    for name, take, there in asked:
        # a question that no two people answered says nothing, while another may
        with suppress(NothingToCompareError):
            if there:
                found.append(_question(name, take(choices, dimension=dimension), bootstrap))
    if not found:
        prompts = len(choices.column("prompt").unique())
        raise NothingToCompareError(
            f"no two people answered the same question in {len(choices):,} choices on {prompts:,} prompts: "
            "agreement needs images that several people judged together"
        )
    return tuple(found)


def _question(name: str, answers: Answers, bootstrap: Bootstrap | None) -> Question:
    coefficients = _coefficients(answers, two_way=len(answers.people) > 1, bootstrap=bootstrap)
    if coefficients[0].two_way and isnan(coefficients[0].low):
        # without one of so few people nothing would be left to compare
        coefficients = _coefficients(answers, two_way=False, bootstrap=bootstrap)
    left_out = {"best": "undecided", "rank": "unasked", "rating": "unasked"}.get(answers.kind)
    counts = {"undecided": 0, "unasked": 0}
    if left_out is not None:
        counts[left_out] = answers.left_out
    return Question(
        name=name,
        kind=answers.kind,
        coefficients=coefficients,
        answers=len(answers),
        people=len(answers.people),
        ties=answers.ties,
        repeats=answers.repeats,
        silent=answers.silent,
        alone=coefficients[0].left_out,
        **counts,
    )


def _coefficients(
    answers: Answers, *, two_way: bool, bootstrap: Bootstrap | None
) -> tuple[Coefficient, ...]:
    if answers.kind in {"pair", "best"}:
        return nameless_agreement(answers, two_way=two_way, bootstrap=bootstrap)
    columns = (answers.items, answers.values, answers.raters)
    options: dict[str, Any] = {"two_way": two_way, "bootstrap": bootstrap}
    return tuple(
        krippendorff_alpha(*columns, scale=scale, clusters=answers.prompts, **options)
        for scale in ("ordinal", "interval")
    )

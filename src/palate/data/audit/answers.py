"""What an audit says about answers: repeats, contradictions, ties, odd annotators, places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palate.data.audit.columns import Columns, Numbers, grouped, names, sums_of
from palate.data.audit.findings import Finding, Level
from palate.data.codes import mixed
from palate.data.position import PositionBias

# probabilities below these are no accident, after dividing by the number of things looked at
_ODD: Final = 0.001
_UNEQUAL: Final = 0.05
MANY: Final = 0.2
"""One person, or one prompt, that has more than this share of all choices dominates them."""
FEW: Final = 10
"""Fewer people, prompts or answers than this are too few to speak of one that stands out."""


@dataclass(frozen=True)
class Ties:
    """How often choices tie: at the best, and all their images. `of` is a dimension or a size."""

    of: str
    choices: int
    tied_best: int
    all_tied: int


def ties_by_dimension(columns: Columns) -> tuple[Ties, ...]:
    """Count ties on every dimension, in the order of their names."""
    return _ties(columns, columns.dimension, columns.dimensions.to_pylist(), sort=True)


def ties_by_size(columns: Columns) -> tuple[Ties, ...]:
    """Count choices and ties by the number of images."""
    sizes, number = np.unique(columns.lengths, return_inverse=True)
    return _ties(columns, number, [str(size) for size in sizes.tolist()], sort=False)


def _ties(columns: Columns, number: Numbers, of: list[str], *, sort: bool) -> tuple[Ties, ...]:
    every = np.bincount(number, minlength=len(of)).tolist()
    best = np.bincount(number[columns.firsts > 1], minlength=len(of)).tolist()
    whole = np.bincount(number[columns.all_tied], minlength=len(of)).tolist()
    found = [Ties(*row) for row in zip(of, every, best, whole, strict=True)]
    return tuple(sorted(found, key=lambda row: row.of) if sort else found)


def answer_findings(columns: Columns) -> list[Finding]:
    """Find odd answers, and the people who gave them."""
    found = [*_repeats(columns), *_annotators(columns)]
    count = len(columns.lengths)
    tied = np.flatnonzero(columns.all_tied)
    if len(tied):
        examples = columns.choice_names(tied[:5])
        message = f"of {count} choices tie all their images"
        found.append(Finding.counted("note", "all tied", len(tied), examples, message))
    other = other_prompts(columns)
    if len(other):
        examples = columns.choice_names(other[:5])
        message = "choices show an image under another prompt than its own"
        found.append(Finding.counted("note", "other prompts", len(other), examples, message))
    return found


def other_prompts(columns: Columns) -> Numbers:
    """Choices that show an image under another prompt than the one it was made for."""
    rows = columns.row_of_image
    own = np.where(rows >= 0, columns.prompt_rows[rows], -1) if len(columns.prompt_rows) else rows
    made_for = own[columns.image]
    return np.unique(columns.owner[(made_for >= 0) & (made_for != columns.prompt[columns.owner])])


def _repeats(columns: Columns) -> Iterator[Finding]:
    """The same person asked about the same images on the same dimension again."""
    if not len(columns.lengths):
        return
    asked = columns.question * (len(columns.people) + 1) + columns.annotator + 1
    order, starts, lengths = grouped(asked)
    again = lengths > 1
    spread = np.where(columns.best, mixed(columns.image), np.uint64(0))
    best = sums_of(columns.starts, spread)[order]
    equal = np.minimum.reduceat(best, starts) == np.maximum.reduceat(best, starts)
    # groups in the order of their first answer
    by_first = np.flatnonzero(again)[np.argsort(order[starts[again]])]
    starts, equal = starts[by_first], equal[by_first]
    known = columns.annotator[order[starts]] >= 0
    kinds: tuple[tuple[Level, str, NDArray[np.bool_], str], ...] = (
        ("warning", "duplicate choices", known & equal, f"{_AGAIN} the same best image"),
        ("warning", "contradictions", known & ~equal, f"{_AGAIN} another best image"),
        ("note", "repeated questions", ~known, _STRANGERS),
    )
    for level, kind, chosen, told in kinds:
        if chosen.any():
            pairs = _pairs(columns, order, starts[chosen])
            yield Finding.counted(level, kind, int(chosen.sum()), pairs, told)


_AGAIN: Final = "questions were answered again by the same person, with"
_STRANGERS: Final = "questions were answered more than once by unknown people"


def _pairs(columns: Columns, order: Numbers, starts: Numbers) -> list[str]:
    first = columns.choice_names(order[starts[:5]])
    second = columns.choice_names(order[starts[:5] + 1])
    return [f"{a} and {b}" for a, b in zip(first, second, strict=True)]


def _annotators(columns: Columns) -> Iterator[Finding]:
    count, people = len(columns.lengths), len(columns.people)
    nameless = int((columns.annotator < 0).sum())
    if nameless:
        message = f"{nameless} of {count} choices have no annotator"
        yield Finding("note", "unknown annotators", nameless, message, ())
    known = columns.annotator[columns.annotator >= 0]
    answers = np.bincount(known, minlength=people)
    if people > 1 and (answers == 1).all():
        message = f"the {people} annotators gave one choice each: they tell nobody apart"
        yield Finding("note", "one choice each", people, message, ())
    stuck = _stuck(columns)
    if stuck:
        message = "annotators pick one position far too often"
        yield Finding.of("warning", "one-position annotators", stuck, message)
    limit = max(MANY, 3 / people) if people >= FEW else 1.0
    busy = np.flatnonzero(answers > limit * len(known))
    if len(busy):
        told = [f"{name}: {answers[k]} of {len(known)}" for name, k in _named(columns, busy)]
        message = f"annotators gave more than {limit:.0%} of all choices"
        yield Finding.of("warning", "dominating annotators", told, message)
    tied = np.bincount(
        columns.annotator[columns.all_tied & (columns.annotator >= 0)], minlength=people
    )
    torn = np.flatnonzero((answers >= FEW) & (tied == answers))
    if len(torn):
        told = [f"{name}: {answers[k]} choices" for name, k in _named(columns, torn)]
        yield Finding.of("warning", "undecided annotators", told, "annotators tie everything")


def _named(columns: Columns, people: Numbers) -> Iterator[tuple[str, int]]:
    return zip(names(columns.people, people), people.tolist(), strict=True)


def _stuck(columns: Columns) -> list[str]:
    """Annotators whose favourite position is no accident (binomial, Bonferroni)."""
    people = len(columns.people)
    use = (columns.firsts == 1) & (columns.annotator >= 0)
    if not use.any():
        return []
    who, lengths = columns.annotator[use], columns.lengths[use]
    trials = np.bincount(who, minlength=people)
    chance = np.bincount(who, 1 / lengths, minlength=people) / np.maximum(trials, 1)
    told: dict[int, str] = {}
    for slot, places in (("first", columns.starts), ("last", columns.starts + columns.lengths - 1)):
        count = np.bincount(who[columns.best[places[use]]], minlength=people)
        odd = _tail(count, trials, chance) < _ODD / (2 * people)
        for k in np.flatnonzero(odd).tolist():
            name = columns.people[k].as_py()
            told.setdefault(k, f"{name}: the {slot} image in {count[k]} of {trials[k]}")
    return [told[k] for k in sorted(told)]


def _tail(count: Numbers, trials: Numbers, chance: NDArray[np.float64]) -> Any:
    """Probability of at least this many of all trials (binomial)."""
    from scipy.special import betainc

    some = np.maximum(count, 1)
    return np.where(count > 0, betainc(some, np.maximum(trials - some + 1, 1), chance), 1.0)


def position_findings(position: PositionBias | None) -> Iterator[Finding]:
    """Say where places are not chosen equally often."""
    if position is None:
        return
    for slots in position.sizes:
        if slots.p_value < _UNEQUAL / len(position.sizes):
            told = ", ".join(f"{share.value:.1%}" for share in slots.shares)
            message = (
                f"with {slots.size} images the places are chosen in {told} of {slots.choices} "
                f"choices (equal shares: p = {slots.p_value:.1g})"
            )
            yield Finding("warning", "position bias", slots.choices, message, ())
    for name, by_place in (("first", position.always_first), ("last", position.always_last)):
        if by_place.low > position.chance:
            message = (
                f"always picking the {name} image is right in {by_place.value:.1%} "
                f"({by_place.low:.1%} to {by_place.high:.1%}), chance is {position.chance:.1%}"
            )
            yield Finding("warning", "position bias", position.choices, message, ())

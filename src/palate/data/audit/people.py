"""What an audit says about people: how far they agree, and how fast they answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palate.data.audit.answers import FEW
from palate.data.audit.columns import (
    Columns,
    Numbers,
    detail_values,
    grouped,
    names,
    pair_blocks,
)
from palate.data.audit.findings import Finding

_ODD: Final = 0.05
_HASTY: Final = 1 / 3
_KEPT: Final = 200
TIMES: Final = ("seconds", "delay_seconds")
"""Details of a choice that say how long the answer took."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Person:
    """How far one annotator agrees with the others on the order of two images.

    The interval takes the person's answers for independent draws, with pairs of one answer
    together (Student's t on clusters); it is 0 to 1 for a single answer.
    """

    name: str
    answers: int
    agreement: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How far people agree who answered the same question: prompt, dimension and images.

    `best` is the share of pairs of people who name the same best image, among those who each name
    one; `best_chance` is what guessing gets. `pairs` is the share of pairs of people who put two
    images in the same order, among those who order them; guessing gets half. `pairs_tied` is the
    share of orders that a tie leaves out. `people` are those who agree least first.
    """

    dimension: str
    questions: int
    answers: int
    annotators: int
    best: float | None
    best_chance: float | None
    best_comparisons: int
    pairs: float | None
    pairs_comparisons: int
    pairs_tied: float
    people: tuple[Person, ...]


@dataclass(frozen=True)
class Pace:
    """How long one annotator takes for an answer, in seconds."""

    name: str
    answers: int
    median: float


@dataclass(frozen=True)
class Speed:
    """How long answers took, in seconds: quartiles of all answers, and annotators, fastest first.

    `histogram` holds the lower edge of each bin and the number of answers in it; edges grow by a
    constant factor.
    """

    keys: tuple[str, ...]
    answers: int
    quarter: float
    median: float
    three_quarters: float
    histogram: tuple[tuple[float, int], ...]
    people: tuple[Pace, ...]


def agreement_facts(columns: Columns) -> tuple[tuple[Agreement, ...], list[Finding]]:
    """Measure agreement on all dimensions together and on each; find people who agree with nobody."""
    rows = _answered_by_several(columns)
    if not len(rows):
        return (), []
    facts = [_agreement(columns, rows, "all")]
    found = list(_outliers(facts[0]))
    dimensions = np.unique(columns.dimension[rows])
    if len(dimensions) > 1:
        facts += [
            _agreement(columns, rows[columns.dimension[rows] == k], name)
            for k, name in zip(dimensions, names(columns.dimensions, dimensions), strict=True)
        ]
    return tuple(replace(row, people=row.people[:_KEPT]) for row in facts), found


def _answered_by_several(columns: Columns) -> Numbers:
    """First answers of known people to questions that at least two of them answered."""
    known = np.flatnonzero(columns.annotator >= 0)
    if not len(known):
        return known
    number = columns.question[known]
    _, first = np.unique(number * len(columns.people) + columns.annotator[known], return_index=True)
    first.sort()
    people = np.bincount(number[first])
    rows: Numbers = known[first[people[number[first]] > 1]]
    return rows


def _agreement(columns: Columns, rows: Numbers, name: str) -> Agreement:
    best, chance, comparisons = _best_agreement(columns, rows)
    same, of, tied = _pair_agreement(columns, rows)
    total = float(of.sum())
    return Agreement(
        dimension=name,
        questions=len(np.unique(columns.question[rows])),
        answers=len(rows),
        annotators=len(np.unique(columns.annotator[rows])),
        best=best,
        best_chance=chance,
        best_comparisons=comparisons,
        pairs=float(same.sum()) / total if total else None,
        pairs_comparisons=round(total / 2),
        pairs_tied=tied,
        people=tuple(sorted(_people(columns, rows, same, of), key=lambda row: row.agreement)),
    )


def _best_agreement(columns: Columns, rows: Numbers) -> tuple[float | None, float | None, int]:
    use = rows[columns.firsts[rows] == 1]
    if not len(use):
        return None, None, 0
    # the one best place of every choice that has one
    places = np.flatnonzero(columns.best & (columns.firsts[columns.owner] == 1))
    place = np.zeros(len(columns.lengths), np.int64)
    place[columns.owner[places]] = places
    asked = columns.question[use]
    _, picked, votes = np.unique(
        asked * len(columns.images) + columns.image[place[use]],
        return_inverse=True,
        return_counts=True,
    )
    voters = np.bincount(asked)[asked]
    comparisons = int((voters - 1).sum()) // 2
    if not comparisons:
        return None, None, 0
    chance = ((voters - 1) / columns.lengths[use]).sum() / (voters - 1).sum()
    return float((votes[picked] - 1).sum() / (voters - 1).sum()), float(chance), comparisons


def _pair_agreement(columns: Columns, rows: Numbers) -> tuple[Floats, Floats, float]:
    """For each answer, with how many others its orders of two images agree, of how many, and the share of ties."""
    same, of = np.zeros(len(rows)), np.zeros(len(rows))
    tied = seen = 0
    for part in _question_blocks(columns, rows):
        answers = rows[part]
        owner, left, right = _concatenate(
            pair_blocks(columns.starts[answers], columns.lengths[answers])
        )
        swap = columns.image[left] > columns.image[right]
        left, right = np.where(swap, right, left), np.where(swap, left, right)
        sign = np.sign(columns.ranks[right] - columns.ranks[left])
        seen += len(sign)
        tied += int((sign == 0).sum())
        keep = sign != 0
        owner, left, right, sign = owner[keep], left[keep], right[keep], sign[keep]
        if not len(owner):
            continue
        pair = _numbered_pairs(
            columns.question[answers[owner]], columns.image[left], columns.image[right]
        )
        up = np.bincount(pair, sign > 0)
        down = np.bincount(pair, sign < 0)
        mine = np.where(sign > 0, up[pair], down[pair]) - 1
        same += np.bincount(part[owner], mine, minlength=len(rows))
        of += np.bincount(part[owner], up[pair] + down[pair] - 1, minlength=len(rows))
    return same, of, tied / max(1, seen)


def _numbered_pairs(question: Numbers, left: Numbers, right: Numbers) -> Numbers:
    """Number the pairs of images of each question; numbers are made small first, to fit 64 bits."""
    small = np.unique(question, return_inverse=True)[1]
    images, both = np.unique(np.concatenate([left, right]), return_inverse=True)
    first, second = both[: len(left)], both[len(left) :]
    whole = (small * len(images) + first) * len(images) + second
    pair: Numbers = np.unique(whole, return_inverse=True)[1].astype(np.int64)
    return pair


def _question_blocks(columns: Columns, rows: Numbers, most: int = 500_000) -> Iterator[Numbers]:
    """Places in `rows` of whole questions, some questions at a time: about `most` pairs of images."""
    order, starts, _ = grouped(columns.question[rows])
    sizes = columns.lengths[rows[order]]
    before = np.concatenate([[0], np.cumsum(sizes * (sizes - 1) // 2)])
    begin = 0
    while begin < len(order):
        wanted = np.searchsorted(before, before[begin] + most)
        after = starts[np.searchsorted(starts, wanted) :]
        end = int(after[after > begin][0]) if (after > begin).any() else len(order)
        yield order[begin:end]
        begin = end


def _concatenate(blocks: Iterator[tuple[Numbers, Numbers, Numbers]]) -> list[Numbers]:
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def _people(columns: Columns, rows: Numbers, same: Floats, of: Floats) -> Iterator[Person]:
    use = of > 0
    rows, same, of = rows[use], same[use], of[use]
    who = columns.annotator[rows]
    people = len(columns.people)
    answers = np.bincount(who, minlength=people)
    agreed, total = (np.bincount(who, x, minlength=people) for x in (same, of))
    share = agreed / np.maximum(total, 1)
    # a ratio of sums over answers: its variance from the answers' residuals
    error = np.bincount(who, (same - share[who] * of) ** 2, minlength=people)
    spread = np.sqrt(error * answers / np.maximum(answers - 1, 1)) / np.maximum(total, 1)
    present = np.flatnonzero(answers)
    for name, k in zip(names(columns.people, present), present.tolist(), strict=True):
        low, high = _interval(float(share[k]), float(spread[k]), int(answers[k]), 0.95)
        yield Person(name, int(answers[k]), float(share[k]), low, high)


def _interval(share: float, spread: float, answers: int, level: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    if answers < 2:
        return 0.0, 1.0
    half = float(stdtrit(answers - 1, (1 + level) / 2)) * spread
    return max(0.0, share - half), min(1.0, share + half)


def _outliers(whole: Agreement) -> Iterator[Finding]:
    """People who agree with the rest less than the rest with each other, beyond accident."""
    from scipy.special import stdtrit

    if whole.pairs is None or len(whole.people) < 3:
        return
    told = []
    for person in whole.people:
        if person.answers < FEW or person.agreement >= whole.pairs:
            continue
        # the half width at 95 % tells the spread, which is widened for the number of people
        degrees = person.answers - 1
        wider = stdtrit(degrees, 1 - _ODD / (2 * len(whole.people))) / stdtrit(degrees, 0.975)
        if person.agreement + wider * (person.high - person.agreement) < whole.pairs:
            told.append(
                f"{person.name}: {person.agreement:.1%} in {person.answers} answers, "
                f"all together {whole.pairs:.1%}"
            )
    if told:
        message = "annotators agree with the others far less than the others do"
        yield Finding.of("warning", "disagreeing annotators", told, message)


def speed_facts(columns: Columns) -> tuple[Speed | None, list[Finding]]:
    """Measure how long answers took where their details say so; find people far too fast."""
    column = columns.dataset.choices.column("details")
    taken: dict[int, float] = {}
    wrong: list[int] = []
    keys: set[str] = set()
    for row, name, value in detail_values(column, TIMES):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if value < 0 or not math.isfinite(value):
            wrong.append(row)
            continue
        taken.setdefault(row, float(value))
        keys.add(name)
    found = []
    if wrong:
        message = "choices took a negative time, or none that is a number"
        examples = columns.choice_names(wrong[:5])
        found.append(Finding.counted("warning", "impossible times", len(wrong), examples, message))
    if not taken:
        return None, found
    rows, seconds = np.array(list(taken)), np.array(list(taken.values()))
    people = _paces(columns, rows, seconds)
    quarter, median, three = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    speed = Speed(
        keys=tuple(sorted(keys)),
        answers=len(rows),
        quarter=quarter,
        median=median,
        three_quarters=three,
        histogram=_time_bins(seconds),
        people=tuple(people[:_KEPT]),
    )
    return speed, [*found, *_hasty(people)]


def _paces(columns: Columns, rows: Numbers, seconds: Floats) -> list[Pace]:
    known = columns.annotator[rows] >= 0
    rows, seconds = rows[known], seconds[known]
    order, starts, lengths = grouped(columns.annotator[rows])
    people = names(columns.people, columns.annotator[rows[order[starts]]])
    paces = [
        Pace(name, int(n), float(np.median(seconds[order[a : a + n]])))
        for name, a, n in zip(people, starts, lengths, strict=True)
    ]
    return sorted(paces, key=lambda pace: pace.median)


def _hasty(people: list[Pace]) -> Iterator[Finding]:
    enough = [pace for pace in people if pace.answers >= FEW]
    if len(enough) < 3:
        return
    usual = float(np.median([pace.median for pace in enough]))
    hasty = [
        f"{pace.name}: {pace.median:.3g} s in {pace.answers} answers"
        for pace in enough
        if pace.median < _HASTY * usual
    ]
    if hasty:
        message = f"annotators take less than a third of the usual time ({usual:.3g} s)"
        yield Finding.of("warning", "hasty annotators", hasty, message)


def _time_bins(seconds: Floats, bins: int = 20) -> tuple[tuple[float, int], ...]:
    positive: Any = seconds[seconds > 0]
    if not len(positive) or positive.min() == positive.max():
        return ((float(seconds.min()), len(seconds)),)
    low, high = np.quantile(positive, [0.005, 0.995])
    edges = np.geomspace(low, max(high, low * 1.01), bins + 1)
    counts, _ = np.histogram(np.clip(seconds, edges[0], edges[-1]), edges)
    return tuple(zip(edges[:-1].tolist(), counts.tolist(), strict=True))

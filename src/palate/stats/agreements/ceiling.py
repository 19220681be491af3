"""How high a score can rise when people disagree: one person against others, and a perfect scorer.

An accuracy means little without its ceiling under the same rule. Every function here says against
whom it counts: one other person, the majority of the others, or the majority of everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.accuracy import expected_top1
from palate.stats.agreements.answers import Answers
from palate.stats.agreements.units import Units
from palate.stats.intervals import Average, Bootstrap, Column, Estimate
from palate.stats.two_way.estimates import share_estimate

__all__ = [
    "PUBLISHED",
    "Bounds",
    "Ceiling",
    "Ceilings",
    "MajorityTies",
    "People",
    "PerfectScorer",
    "human_ceilings",
    "known_ceiling",
    "one_person",
    "perfect_scorer",
    "rest_credit",
]

MajorityTies = Literal["expected", "wrong", "drop"]
People = int | Literal["half", "rest", "all"]
Floats = NDArray[np.float64]

PUBLISHED: Final = {"ImageReward test": 0.653, "HPD v2 test": 0.781}
"""Accuracy of a single person as the README of HPS v2 prints it, for each test set."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How often one person's answer is that of others, with its interval.

    `people` says who the others are and `ties` what a split vote of theirs counts. `left_out` counts
    the answers without enough others, or with a split vote that the rule drops.
    """

    measure: str
    estimate: Estimate
    people: People
    ties: str
    left_out: int

    @property
    def value(self) -> float:
        """The share, from 0 to 1."""
        return self.estimate.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "measure": self.measure,
            **self.estimate.to_dict(),
            "people": self.people,
            "ties": self.ties,
            "left_out": self.left_out,
        }


def one_person(
    items: Column,
    values: Column,
    raters: Column | None = None,
    prompts: Column | None = None,
    *,
    people: People = "rest",
    ties: MajorityTies = "expected",
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Ceiling:
    """Share of answers that equal the majority of other people on the same item.

    `people` is how many others vote: "rest" is all the others (leave one out: what one person reaches
    as a scorer of the rest), 1 is one other person (the agreement of pairs, per answer), a number k is
    k of the others, averaged over every way to draw them, and "half" is half of all, rounded down:
    split-half, where half of the people predict one of the rest. "all" is the majority of everybody,
    the person included: the published single-human figures are counted like that, and it is too high
    because everybody agrees with himself. A split vote is decided at random among its leaders
    (`expected`, and so earns the chance), counts `wrong`, or leaves the answer out (`drop`; only for
    "rest" and "all"). Of more than two different values, a number of people can only be 1. `prompts`
    labels the clusters of the interval. Raises `DataError` where nobody has another to be held against.
    """
    units = Units.of(items, values, raters, prompts)
    return _one_person(units, people, ties=ties, average=average, bootstrap=bootstrap)


def _one_person(
    units: Units,
    people: People,
    *,
    ties: MajorityTies = "expected",
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Ceiling:
    credit, kept = rest_credit(units, people=people, ties=ties)
    if not kept.any():
        raise DataError(
            f"none of {len(kept)} answers has a majority of others ({people}) to be held against"
        )
    estimate = share_estimate(
        credit[kept], units.cluster[units.item[kept]], average=average, bootstrap=bootstrap
    )
    lost = units.left_out + int((~kept).sum())
    return Ceiling(f"one person against {_named(people)}", estimate, people, ties, lost)


def rest_credit(
    units: Units, *, people: People = "rest", ties: MajorityTies = "expected"
) -> tuple[Floats, NDArray[np.bool_]]:
    """What every value of the units earns under the rules of `one_person`, and which count."""
    if people in {"rest", "all"}:
        return _whole_vote(units, own=people == "all", ties=ties)
    if ties == "drop":
        raise DataError("ties are left out only where all the others vote: people 'rest' or 'all'")
    voters = units.sizes // 2 if people == "half" else np.full(len(units.sizes), people)
    if voters.min() < 1:
        raise DataError(f"a majority of {people} people, expected at least 1")
    if units.categories > 2 and voters.max() > 1:
        raise DataError(
            f"a majority of {people} of the others needs two values to choose from, "
            f"but {units.categories} were given"
        )
    _, same = _run_sizes(units)
    size = units.sizes[units.item]
    # what an answer earns depends on three small numbers, of which few cases come
    asked = np.minimum(voters, units.sizes.max())[units.item]
    shape = (int(size.max()) + 1, int(same.max()) + 1, int(asked.max()) + 1)
    cases, which = np.unique(np.ravel_multi_index((size, same, asked), shape), return_inverse=True)
    told = zip(*(part.tolist() for part in np.unravel_index(cases, shape)), strict=True)
    worth = np.array([_drawn_vote(*case, ties=ties) for case in told])
    return worth[which], size > asked


def known_ceiling(
    probabilities: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    bootstrap: Bootstrap | None = None,
) -> Ceiling:
    """Accuracy of a perfect scorer against one person's answer, where probabilities are known.

    The mean over choices of the largest probability with which a person picks an image: no score does
    better on average. `offsets` cuts the flat probabilities into choices. For simulations.
    """
    found = expected_top1(probabilities, probabilities, offsets, prompts, bootstrap=bootstrap)
    return Ceiling("perfect scorer against one person", found.estimate, 1, "expected", 0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """A number with the interval that the agreement it was made from has."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values for JSON; what is not a number is None."""
        pairs = (("value", self.value), ("low", self.low), ("high", self.high))
        return {name: None if np.isnan(number) else number for name, number in pairs}


@dataclass(frozen=True, slots=True)
class PerfectScorer:
    """The accuracy of a scorer that knows what most people would say, as far as answers tell it.

    The truth lies between `lowest` (every item is either unanimous or a coin flip) and `highest` (all
    items are equally hard); no assumption is in them. `likely` takes the share of people who prefer
    one of two images for a symmetric beta distribution; it is None for more than two options.
    `agreement` is the agreement of pairs that all three are made from.
    """

    agreement: Estimate
    lowest: Bounds
    likely: Bounds | None
    highest: Bounds
    options: int
    people: int
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "agreement": self.agreement.to_dict(),
            "lowest": self.lowest.to_dict(),
            "likely": None if self.likely is None else self.likely.to_dict(),
            "highest": self.highest.to_dict(),
            "options": self.options,
            "people": self.people,
            "left_out": self.left_out,
        }


def perfect_scorer(
    items: Column,
    values: Column,
    raters: Column | None = None,
    prompts: Column | None = None,
    *,
    options: int = 2,
    people: int = 1,
    bootstrap: Bootstrap | None = None,
) -> PerfectScorer:
    """Accuracy that a perfect scorer reaches against one person, or the majority of several.

    A scorer that always names the likeliest answer is right with probability max p. Two people agree
    with probability sum p², which pairs of answers measure without bias. It follows that mean max p is
    at least the agreement A, and (Jensen) at most (1 + sqrt((q - 1)(q A - 1))) / q with q `options`:
    for pairs 1/2 + sqrt(2 A - 1) / 2. `likely` takes p for Beta(a, a) with a = (1 - A) / (2 A - 1), and
    gives 1 - I(1/2; a + 1, a). Against the majority of k `people` (an even split counts half) the
    same holds with the chance that the likelier of two answers wins the vote. An agreement below 1/q,
    which is an accident, counts as 1/q. Intervals are those of A, by clusters of `prompts`.
    """
    if options < 2 or people < 1 or (people > 1 and options > 2):
        raise DataError(
            f"{options} options and a majority of {people}, expected at least 2 options, "
            "and exactly 2 for the majority of several people"
        )
    found = one_person(items, values, raters, prompts, people=1, bootstrap=bootstrap)
    return _perfect(found, options, people)


def _perfect(found: Ceiling, options: int, people: int = 1) -> PerfectScorer:
    """The perfect scorer behind an agreement of one person with one other."""
    least = 1 / options
    shares = (found.estimate.value, found.estimate.low, found.estimate.high)
    agreed = [max(share, least) if share == share else share for share in shares]  # noqa: PLR0124

    def highest(share: float) -> float:
        best = (1 + np.sqrt(max((options - 1) * (options * share - 1), 0.0))) / options
        return _vote(float(best), people)

    return PerfectScorer(
        agreement=found.estimate,
        lowest=Bounds(*agreed),
        likely=Bounds(*(_beta_vote(share, people) for share in agreed)) if options == 2 else None,
        highest=Bounds(*(highest(share) if share == share else share for share in agreed)),  # noqa: PLR0124
        options=options,
        people=people,
        left_out=found.left_out,
    )


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The ceilings of one set of answers side by side: of people, and of a perfect scorer.

    `pair` is one person against one other, `rest` against the majority of the others, `majority`
    against that of everybody, `perfect` the best scorer against one person.
    """

    pair: Ceiling
    rest: Ceiling
    majority: Ceiling
    perfect: PerfectScorer

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = ("pair", "rest", "majority", "perfect")
        return {name: getattr(self, name).to_dict() for name in names}


def human_ceilings(
    answers: Answers, *, ties: MajorityTies = "expected", bootstrap: Bootstrap | None = None
) -> Ceilings:
    """Measure every ceiling of answers to pairs or to best-of-n, with intervals by prompt.

    Pairs that a person does not decide are left out. Where questions have different numbers of images,
    the perfect scorer's upper bound is that of the largest. Raises `DataError` for ratings.
    """
    if answers.kind == "rating":
        raise DataError("ceilings are for answers that choose; take pairs of the ratings instead")
    used = answers.without_ties()
    units = Units.of(used.items, used.values, used.raters, used.prompts)
    pair = _one_person(units, 1, bootstrap=bootstrap)
    return Ceilings(
        pair=pair,
        rest=_one_person(units, "rest", ties=ties, bootstrap=bootstrap),
        majority=_one_person(units, "all", ties=ties, bootstrap=bootstrap),
        perfect=_perfect(pair, int(used.options.max(initial=2))),
    )


def _named(people: People) -> str:
    words = {
        "rest": "the majority of the others",
        "all": "the majority of everybody",
        "half": "the majority of half of the people",
        1: "one other",
    }
    return words.get(people, f"the majority of {people} others")


def _run_sizes(units: Units) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The run of equal values that every value lies in, and how long it is."""
    new = (np.diff(units.item, prepend=-1) != 0) | (np.diff(units.code, prepend=-1) != 0)
    run = np.cumsum(new) - 1
    return run, np.bincount(run)[run]


def _whole_vote(units: Units, *, own: bool, ties: MajorityTies) -> tuple[Floats, NDArray[np.bool_]]:
    """Credit against the majority of all the others, or of everybody where `own` counts."""
    run, same = _run_sizes(units)
    starts = np.flatnonzero(np.diff(run, prepend=-1))
    owner, votes = units.item[starts], same[starts]
    most, leaders = _leaders(owner, votes, len(units.sizes))
    below = np.where(votes == most[owner], 0, votes)
    second, seconds = _leaders(owner, below, len(units.sizes))
    most, leaders, second, seconds = (c[units.item] for c in (most, leaders, second, seconds))
    mine = same if own else same - 1
    # without its own vote a sole leader may fall to those behind, or level with them
    alone = (same == most) & (leaders == 1) & (not own)
    top = np.where(alone, np.maximum(mine, second), most)
    rivals = np.where(alone, np.where(second == top, seconds, 0), leaders - (same == most))
    right = mine == top
    credit = np.where(right, 1 / (rivals + right), 0.0)
    split = rivals + right > 1
    if ties == "wrong":
        credit[split] = 0.0
    return credit, ~split if ties == "drop" else np.ones(len(split), dtype=bool)


def _leaders(owner: Any, votes: Any, count: int) -> tuple[Any, Any]:
    """The largest number of votes of every item, and how many values have it."""
    most = np.zeros(count, np.int64)
    np.maximum.at(most, owner, votes)
    return most, np.bincount(owner[votes == most[owner]], minlength=count)


def _drawn_vote(size: int, same: int, voters: int, *, ties: MajorityTies) -> float:
    """Chance that the majority of `voters`, drawn among the others, gives one's own answer."""
    from math import comb

    if voters >= size:
        return 0.0
    agree, others = same - 1, size - 1
    total = comb(others, voters)
    chance = 0.0
    for votes in range(max(0, voters - (others - agree)), min(agree, voters) + 1):
        ways = comb(agree, votes) * comb(others - agree, voters - votes) / total
        split = 0.0 if ties == "wrong" else 0.5
        chance += ways * (1.0 if 2 * votes > voters else split * (2 * votes == voters))
    return chance


def _vote(best: float, people: int) -> float:
    """Chance that the majority of people gives the answer that each gives with chance `best`."""
    from scipy.special import bdtrc

    half = people // 2
    wins = float(bdtrc(half, people, best))
    if people % 2:
        return wins
    return wins + (float(bdtrc(half - 1, people, best)) - wins) / 2


def _beta_vote(agreement: float, people: int) -> float:
    """The same, on average over Beta(a, a) of the likelier answer's chance."""
    from scipy.special import betaincc, betaln, gammaln

    if np.isnan(agreement) or agreement in {0.5, 1.0}:
        return agreement
    shape = (1 - agreement) / (2 * agreement - 1)
    if shape > 1e6:  # all items are coin flips, as far as numbers go
        return 0.5
    votes = np.arange(people + 1)
    ways = gammaln(people + 1) - gammaln(votes + 1) - gammaln(people - votes + 1)
    weight = np.exp(ways + betaln(shape + votes, shape + people - votes) - betaln(shape, shape))
    upper = 2 * weight * betaincc(shape + votes, shape + people - votes, 0.5)
    worth = np.where(2 * votes > people, 1.0, np.where(2 * votes == people, 0.5, 0.0))
    return float((upper * worth).sum())

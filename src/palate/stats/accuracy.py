"""How often a score agrees with people: one function per accuracy, each with its tie rule.

Groups are columns: `scores` and `ranks` are flat, and choice i owns the entries
`offsets[i]:offsets[i + 1]`. Scores: higher is better. Ranks: the lowest is the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.intervals import (
    Average,
    Bootstrap,
    Column,
    Estimate,
    cluster_codes,
)
from palate.stats.two_way.estimates import share_estimate

Ties = Literal["expected", "wrong", "first"]
HumanTies = Literal["any", "drop"]
PairTies = Literal["half", "wrong", "right", "first"]
HumanPairTies = Literal["drop", "half", "right", "match"]


class NothingDecidedError(DataError):
    """The person's answers hold no decision that can be counted."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """An accuracy with its interval and the rules it was counted by.

    `left_out` counts choices (or duels) without a decision of the person.
    """

    measure: str
    estimate: Estimate
    ties: str
    human_ties: str
    left_out: int

    @property
    def value(self) -> float:
        """The accuracy, from 0 to 1."""
        return self.estimate.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "measure": self.measure,
            **self.estimate.to_dict(),
            "ties": self.ties,
            "human_ties": self.human_ties,
            "left_out": self.left_out,
        }


def top1(
    scores: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    ties: Ties = "expected",
    human_ties: HumanTies = "any",
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Accuracy:
    """Share of choices where the highest score is on an image the person put first.

    Equal highest scores: `expected` is the chance that one of them, drawn at random, is right
    (a constant scorer gets exactly chance); `wrong` counts a tie as wrong; `first` takes the
    first in the order shown, as `argmax` does, and so leaks the position. Several images put
    first: `any` of them is right, or the choice is left out (`drop`). A choice whose images all
    tie says nothing and is always left out. `prompts` labels the clusters of the interval,
    which is that of `share_estimate`.
    """
    credit, kept = top1_credit(scores, ranks, offsets, ties=ties, human_ties=human_ties)
    labels = None if prompts is None else np.asarray(prompts)[kept]
    estimate = share_estimate(credit[kept], labels, average=average, bootstrap=bootstrap)
    return Accuracy("top-1", estimate, ties, human_ties, int((~kept).sum()))


def top1_credit(
    scores: Column,
    ranks: Column,
    offsets: Column,
    *,
    ties: Ties = "expected",
    human_ties: HumanTies = "any",
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What every choice earns under the rules of `top1`, from 0 to 1, and which choices count.

    Raises `NothingDecidedError` where no choice counts.
    """
    groups = Groups(scores, ranks, offsets)
    kept = groups.decided(human_ties)
    if not kept.any():
        raise NothingDecidedError(f"none of {len(kept)} choices has a decision that can be counted")
    return groups.credit(groups.best.astype(np.float64), ties), kept


def expected_top1(
    scores: Column,
    probabilities: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    ties: Ties = "expected",
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Accuracy:
    """Top-1 accuracy that a score has on average under known probabilities of choice.

    `probabilities` says for every image how likely a person picks it, and sums to 1 in every
    group. It is known in simulations only, and less noisy than one drawn answer.
    `expected_top1(probabilities, probabilities, offsets)` is the best that any score can reach.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    groups = Groups(scores, np.ones(chances.shape, dtype=np.int64), offsets)
    total = np.add.reduceat(chances, groups.starts)
    if (chances < 0).any() or not np.allclose(total, 1, atol=1e-6):
        raise DataError("probabilities of choice do not sum to 1 in every group")
    credit = groups.credit(chances, ties)
    estimate = share_estimate(credit, prompts, average=average, bootstrap=bootstrap)
    return Accuracy("expected top-1", estimate, ties, "none", 0)


def chance_top1(
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    human_ties: HumanTies = "any",
    average: Average = "micro",
) -> float:
    """Top-1 accuracy of picking at random: the mean of 1/n, or of k/n where k images tie first."""
    blank = np.zeros(np.asarray(ranks).shape)
    credit, kept = top1_credit(blank, ranks, offsets, human_ties=human_ties)
    labels = None if prompts is None else np.asarray(prompts)[kept]
    return plain_mean(credit[kept], labels, average=average)


def pairwise(
    first: Column,
    second: Column,
    outcome: Column,
    prompts: Column | None = None,
    *,
    ties: PairTies = "half",
    human_ties: HumanPairTies = "drop",
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Accuracy:
    """Share of duels where the image with the higher score is the one the person preferred.

    `first` and `second` are the two scores of every duel and `outcome` is 1 (first better), 0 or
    0.5 (the person's tie). Equal scores count `half`, `wrong` (ImageReward, MPS on ImageReward),
    `right` (MPS on HPD v2, where only a strict inversion is an error), or as if the `first` were
    higher (HPS v2, which sorts; it leaks the order). The person's ties are left out (`drop`,
    ImageReward), count `half` whatever is predicted, count `right` (HPS v2), or count 1 where the
    scores tie too and half where they do not (`match`, Pick-a-Pic). `micro` averages all duels
    (ImageReward), `macro` averages within each prompt first (HPS v2). The interval is that of
    `share_estimate`.
    """
    credit, kept = pair_credit(first, second, outcome, ties=ties, human_ties=human_ties)
    labels = None if prompts is None else np.asarray(prompts)[kept]
    estimate = share_estimate(credit[kept], labels, average=average, bootstrap=bootstrap)
    return Accuracy("pairwise", estimate, ties, human_ties, int((~kept).sum()))


def pair_credit(
    first: Column,
    second: Column,
    outcome: Column,
    *,
    ties: PairTies = "half",
    human_ties: HumanPairTies = "drop",
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What every duel earns under the rules of `pairwise`, from 0 to 1, and which duels count.

    Raises `NothingDecidedError` where no duel counts.
    """
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    won = np.asarray(outcome, dtype=np.float64)
    if not left.shape == right.shape == won.shape:
        raise DataError(f"duels of {left.shape}, {right.shape} and {won.shape} do not match")
    _refuse_nan(left, right)
    credit = np.where((left > right) == (won == 1), 1.0, 0.0)
    level, tied = left == right, won == 0.5
    worth = {"half": 0.5, "wrong": 0.0, "right": 1.0}
    credit[level] = won[level] == 1 if ties == "first" else worth[ties]
    credit[tied] = 1.0 if human_ties == "right" else 0.5
    if human_ties == "match":
        credit[tied & level] = 1.0
    kept = ~tied if human_ties == "drop" else np.ones(len(won), dtype=bool)
    if not kept.any():
        raise NothingDecidedError(f"none of {len(kept)} duels has a decision that can be counted")
    return credit, kept


def plain_mean(
    values: Column, clusters: Column | None = None, *, average: Average = "micro"
) -> float:
    """The mean that `mean_estimate` gives, without its interval: for baselines."""
    rows = np.asarray(values, dtype=np.float64)
    codes = cluster_codes(clusters, len(rows))
    sums: Any = np.bincount(codes, weights=rows)
    counts: Any = np.bincount(codes).astype(np.float64)
    if average == "macro":
        sums, counts = sums / counts, np.ones(len(counts))
    return float(sums.sum() / counts.sum())


class Groups:
    """Scores and ranks of every choice, side by side, after a check that they fit together."""

    def __init__(self, scores: Column, ranks: Column, offsets: Column) -> None:
        self.scores = np.asarray(scores, dtype=np.float64)
        self.ranks: NDArray[Any] = np.asarray(ranks)
        bounds = np.asarray(offsets, dtype=np.int64)
        if self.scores.shape != self.ranks.shape or self.scores.ndim != 1:
            raise DataError(f"{self.scores.shape} scores do not match {self.ranks.shape} ranks")
        sizes = np.diff(bounds)
        if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != len(self.scores) or sizes.min() < 1:
            raise DataError("the offsets do not cut the scores into groups of at least one")
        _refuse_nan(self.scores)
        self.starts, self.sizes = bounds[:-1], sizes
        self.owner = np.repeat(np.arange(len(sizes)), sizes)
        self.best = self.ranks == np.minimum.reduceat(self.ranks, self.starts)[self.owner]

    def credit(self, worth: NDArray[np.float64], ties: Ties) -> NDArray[np.float64]:
        """What each choice earns when its highest score is picked; `worth` is per image."""
        top = self.scores == np.maximum.reduceat(self.scores, self.starts)[self.owner]
        tied = np.add.reduceat(top.astype(np.int64), self.starts)
        if ties == "first":
            places = np.where(top, np.arange(len(top)), len(top))
            return worth[np.minimum.reduceat(places, self.starts)]
        earned = np.add.reduceat(np.where(top, worth, 0.0), self.starts) / tied
        return np.where(tied > 1, 0.0, earned) if ties == "wrong" else earned

    def decided(self, human_ties: HumanTies) -> NDArray[np.bool_]:
        """Choices whose answer can be counted."""
        first = np.add.reduceat(self.best.astype(np.int64), self.starts)
        return first == 1 if human_ties == "drop" else first < self.sizes


def _refuse_nan(*columns: NDArray[np.float64]) -> None:
    for column in columns:
        if np.isnan(column).any():
            raise DataError("a score is not a number")

"""Simulated studies: votes of people with tastes on prompts with difficulties, of known truth.

Plans and the tests of every interval rest on them. Nothing here is data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.numbers import logistic

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
_WIDEST: Final = 10.0
"""In logits: beyond this every vote of a prompt, or of a person, is the same."""

_MOST_PEOPLE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Truth:
    """What a comparison of two generators is taken to be like.

    `win_rate` is the rate at which honest people prefer the first, a tie counting half, over all
    prompts and people. Decided votes follow logit P(win) = m + prompt + person, with normal
    deviations of `prompt_sd` and `rater_sd` (in logits). In place of `prompt_sd`, `icc` gives the
    share of the variance of a vote that its prompt explains; 0.2 if neither is given.
    `tie_share` of the votes are ties. `spam_share` of the people toss a coin, and tie as often as
    others.
    """

    win_rate: float
    tie_share: float = 0.0
    prompt_sd: float | None = None
    icc: float | None = None
    rater_sd: float = 0.5
    spam_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no study can be like."""
        if not 0 < self.win_rate < 1 or not 0 <= self.tie_share < 1:
            raise DataError(
                f"a win rate of {self.win_rate} with {self.tie_share} ties, expected shares below 1"
            )
        if not 0 < self.decided_rate < 1:
            raise DataError(
                f"a win rate of {self.win_rate} cannot be had with a share of {self.tie_share} ties"
            )
        if self.prompt_sd is not None and self.icc is not None:
            raise DataError("both prompt_sd and icc are given, expected one of them")
        deviations = (self.prompt_sd or 0.0, self.rater_sd)
        if not all(0 <= one <= _WIDEST for one in deviations) or not 0 <= (self.icc or 0) < 1:
            raise DataError(
                f"standard deviations of {deviations[0]:g} and {deviations[1]:g} logits and an icc of "
                f"{self.icc or 0:g}, expected 0 to {_WIDEST:g} logits and 0 to below 1"
            )
        if not 0 <= self.spam_share < 1:
            raise DataError(f"a spam share of {self.spam_share}, expected from 0 to below 1")

    @property
    def decided_rate(self) -> float:
        """The win rate among honest votes that are no ties."""
        return (self.win_rate - self.tie_share / 2) / (1 - self.tie_share)

    @property
    def observed_rate(self) -> float:
        """The win rate among all votes, those of coin tossers too: what a study estimates."""
        return 0.5 + (1 - self.spam_share) * (self.win_rate - 0.5)


@dataclass(frozen=True, slots=True)
class Design:
    """How many prompts and people a study has, and how many votes each prompt gets.

    The votes of a prompt are of different people, and all people vote about equally often.
    Without `people` every vote is of another person.
    """

    prompts: int
    votes_per_prompt: int
    people: int | None = None

    def __post_init__(self) -> None:
        """Refuse designs that cannot be carried out or show no spread."""
        if self.prompts < 2 or self.votes_per_prompt < 1:
            raise DataError(
                f"{self.prompts:,} prompts with {self.votes_per_prompt:,} votes each, "
                "expected at least 2 and 1"
            )
        if self.people is not None and self.people > _MOST_PEOPLE:
            raise DataError(
                f"{self.people:,} people, expected at most {_MOST_PEOPLE:,}: leave the number out, and every "
                "vote is another person's"
            )
        if self.people is not None and self.people < max(2, self.votes_per_prompt):
            raise DataError(
                f"{self.people} people for {self.votes_per_prompt} votes per prompt, expected at "
                "least 2 and as many as votes"
            )

    @property
    def votes(self) -> int:
        """The number of votes."""
        return self.prompts * self.votes_per_prompt

    def assignment(self, rng: np.random.Generator) -> Codes | None:
        """Who votes on each prompt: prompts × votes, numbers of people; None if all differ.

        Within every run of as many prompts as people, each person votes equally often.
        """
        if self.people is None:
            return None
        found = np.empty((self.prompts, self.votes_per_prompt), dtype=np.int64)
        for start in range(0, self.prompts, self.people):
            size = min(self.people, self.prompts - start)
            first = rng.permutation(self.people)[:size, None]
            steps = rng.permutation(self.people)[: self.votes_per_prompt]
            found[start : start + size] = (first + steps) % self.people
        return found


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of a vote, and the shares of it that prompts and people explain."""

    mean: float
    variance: float
    prompts: float
    people: float


def vote_moments(truth: Truth) -> Moments:
    """Work out what votes of a truth are like, by integration over prompts and people."""
    level, prompt_sd = _levels(truth)
    decided, ties, spam = 1 - truth.tie_share, truth.tie_share, truth.spam_share
    mean = truth.observed_rate
    variance = mean - ties / 4 - mean**2
    by_prompt = _variance(level, prompt_sd, truth.rater_sd) * (decided * (1 - spam)) ** 2
    by_person = _variance(level, truth.rater_sd, prompt_sd) * decided**2 * (1 - spam)
    by_person += spam * (1 - spam) * (truth.win_rate - 0.5) ** 2
    return Moments(mean, variance, by_prompt / variance, by_person / variance)


def simulate_votes(
    truth: Truth,
    people: Codes | None,
    shape: tuple[int, int, int],
    rng: np.random.Generator,
) -> Floats:
    """Draw studies × prompts × votes: 1 for a win of the first, 0 for a loss, 0.5 for a tie.

    `people` says who votes (prompts × votes, as `Design.assignment` gives it), None for another
    person each time. Prompts and people are drawn anew in every study.
    """
    level, prompt_sd = _levels(truth)
    logits = level + prompt_sd * rng.normal(size=(shape[0], shape[1], 1))
    crowd = (shape[0], shape[1] * shape[2] if people is None else int(people.max()) + 1)
    taste = truth.rater_sd * rng.normal(size=crowd)
    spam = rng.random(crowd) < truth.spam_share
    if people is None:
        taste, spam = taste.reshape(shape), spam.reshape(shape)
    else:
        taste, spam = taste[:, people], spam[:, people]
    chance = np.where(spam, 0.5, 1 / (1 + np.exp(-(logits + taste))))
    votes = (rng.random(shape) < chance).astype(np.float64)
    if truth.tie_share:
        votes[rng.random(shape) < truth.tie_share] = 0.5
    return votes


@lru_cache(maxsize=256)
def _levels(truth: Truth) -> tuple[float, float]:
    """The middle of the logits and their deviation between prompts."""
    from scipy.optimize import brentq

    if truth.prompt_sd is not None:
        return _middle(truth, truth.prompt_sd), truth.prompt_sd
    wanted = 0.2 if truth.icc is None else truth.icc
    honest = truth.win_rate
    variance = honest - truth.tie_share / 4 - honest**2
    wanted *= variance / (1 - truth.tie_share) ** 2

    def gap(deviation: float) -> float:
        return _variance(_middle(truth, deviation), deviation, truth.rater_sd) - wanted

    if wanted == 0:
        return _middle(truth, 0.0), 0.0
    if gap(8.0) < 0:
        raise DataError(f"prompts cannot explain {truth.icc} of the variance of such votes")
    found = float(brentq(gap, 0.0, 8.0, xtol=1e-6))
    return _middle(truth, found), found


def _middle(truth: Truth, prompt_sd: float) -> float:
    """The middle of the logits at which decided honest votes have their rate."""
    from scipy.optimize import brentq

    deviation = math.hypot(prompt_sd, truth.rater_sd)
    points, weights = _normal()

    def gap(level: float) -> float:
        return float(weights @ logistic(level + deviation * points)) - truth.decided_rate

    return float(brentq(gap, -60.0, 60.0, xtol=1e-9))


def _variance(level: float, own: float, other: float) -> float:
    """Variance of the chance of a win between prompts (or people), averaged over the others."""
    points, weights = _normal()
    chances = logistic(level + own * points[:, None] + other * points) @ weights
    return float(weights @ chances**2 - (weights @ chances) ** 2)


@lru_cache(maxsize=1)
def _normal() -> tuple[Floats, Floats]:
    """Points and weights that integrate over the standard normal distribution."""
    points = np.linspace(-8, 8, 321)
    weights = np.exp(-(points**2) / 2)
    return points, weights / weights.sum()

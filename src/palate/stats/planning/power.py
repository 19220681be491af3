"""How many prompts, people and votes a comparison needs before it is begun.

A plan simulates whole studies and analyses each as the finished study will be analysed
(`palate.stats.two_way.clusters.clustered_share`); the closed form gives the same in a moment, a little too
hopeful for few prompts or people.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.intervals import wilson
from palate.stats.planning.simulated import Design, Truth, simulate_votes, vote_moments
from palate.stats.two_way.spread import Spread, jackknife_error

__all__ = [
    "Design",
    "Plan",
    "PlanSettings",
    "Truth",
    "approximate_power",
    "approximate_prompts",
    "plan",
    "simulated_power",
]

Floats = NDArray[np.float64]
_BLOCK: Final = 4_000_000
_MOST: Final = 100_000
_LARGEST: Final = 20_000_000
_VOTES: Final = 3_000_000_000


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What a plan aims at: the power, the level of the study's interval, and the simulation."""

    power: float = 0.8
    level: float = 0.95
    runs: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse aims that no plan can have."""
        if not 0 < self.level < 1 or not 1 - self.level < self.power < 1:
            raise DataError(
                f"a power of {self.power} at level {self.level}, expected a level below 1 and a "
                "power between the false alarms and 1"
            )
        if self.runs < 100:
            raise DataError(f"{self.runs:,} simulated studies, expected at least 100")
        if self.seed < 0:
            raise DataError(f"a seed of {self.seed}, expected 0 or more")


@dataclass(frozen=True, slots=True)
class Plan:
    """A study with its power: how often it will find the better generator.

    `power` is the share of simulated studies whose interval leaves out one half on the right side,
    `low` to `high` its Wilson interval at 95 % from the number of simulations. `approximate` is
    the power by the closed form, and `approximate_prompts` its number of prompts, None if no
    number suffices.
    """

    truth: Truth
    design: Design
    power: float
    low: float
    high: float
    approximate: float
    approximate_prompts: int | None
    settings: PlanSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "votes": self.design.votes, "simulated": True}


def plan(
    truth: Truth,
    *,
    votes_per_prompt: int = 3,
    people: int | None = None,
    prompts: int | None = None,
    settings: PlanSettings | None = None,
) -> Plan:
    """Find the smallest number of prompts with the wanted power, or the power of a given number.

    The number found is exact to 2 % and to the error of the simulation. Without `people` every
    vote is of another person, and a study is analysed by prompts alone. Raises `DataError` where
    the win rate is a half, where more prompts do not help because the people are too few, and before
    anything is simulated where that would take more than some ten minutes or more memory than there is.
    """
    settings = settings or PlanSettings()
    # a design with the fewest prompts that there can be: its votes and people are checked before all else
    Design(prompts or 2, votes_per_prompt, people)
    suggested = None
    if truth.win_rate != 0.5:
        suggested = approximate_prompts(truth, votes_per_prompt, people, settings)
    if prompts is None:
        if truth.win_rate == 0.5:
            raise DataError(
                "the win rate is a half: there is nothing to find, however many prompts"
            )
        if suggested is None:
            raise DataError(
                f"no number of prompts gives a power of {settings.power} when {people:,} people vote: "
                "they differ too much, more people are needed"
            )
        prompts = _searched(truth, suggested, (votes_per_prompt, people), settings)
    design = Design(prompts, votes_per_prompt, people)
    found = simulated_power(truth, design, settings)
    return Plan(
        truth=truth,
        design=design,
        power=found[0],
        low=found[1],
        high=found[2],
        approximate=approximate_power(truth, design, settings.level),
        approximate_prompts=suggested,
        settings=settings,
    )


def simulated_power(
    truth: Truth, design: Design, settings: PlanSettings | None = None
) -> tuple[float, float, float]:
    """Share of simulated studies that find the better generator, with its Wilson interval.

    At a win rate of one half it is the share of false alarms, on either side.
    """
    settings = settings or PlanSettings()
    _refuse_hours(design.votes, settings.runs, 1)
    rng = np.random.default_rng(settings.seed)
    people = design.assignment(rng)
    block = max(1, _BLOCK // design.votes)
    hits = 0
    for start in range(0, settings.runs, block):
        size = min(block, settings.runs - start)
        votes = simulate_votes(truth, people, (size, design.prompts, design.votes_per_prompt), rng)
        signs = separated(votes, people, settings.level)
        wanted = np.sign(truth.win_rate - 0.5)
        hits += int((signs == wanted).sum() if wanted else (signs != 0).sum())
    low, high = wilson(float(hits), settings.runs)
    return hits / settings.runs, low, high


def separated(votes: Floats, people: NDArray[np.int64] | None, level: float) -> Floats:
    """Decide every study as `clustered_share` does: 1 above one half, -1 below, 0 not separable.

    `votes` are studies × prompts × votes; `people` says whose, prompts × votes.
    """
    from scipy.special import stdtrit

    spread = _spread(votes, people)
    error, freedom, _ = jackknife_error(spread)
    value = votes.mean(axis=(1, 2))
    scarce = min(spread.prompt_size, spread.person_size)
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = value * (1 - value) / error**2
    worth = np.where((error > 0) & (worth > 0), worth, scarce)
    beyond = np.abs(value - 0.5) > stdtrit(freedom, (1 + level) / 2) * 0.5 / np.sqrt(worth)
    found: Floats = np.where(beyond, np.sign(value - 0.5), 0.0)
    return found


def _spread(votes: Floats, people: NDArray[np.int64] | None) -> Spread:
    """Jackknife variances of every study, as `Crossed.jackknife` gives those of one."""
    from scipy.sparse import csr_array

    studies, prompts, each = votes.shape
    count = prompts * each
    flat = votes.reshape(studies, count)
    mean = flat.mean(axis=1, keepdims=True)

    def variance(sums: Floats, sizes: Any) -> Floats:
        """Of leaving out clusters that have these sums and sizes."""
        gaps = (sums - sizes * mean) / (count - sizes)
        found: Floats = (gaps**2).sum(axis=1) * (sums.shape[1] - 1) / sums.shape[1]
        return found

    sizes = np.bincount(people.ravel()) if people is not None else np.ones(0, dtype=np.int64)
    sizes = sizes[sizes > 0]
    by_people: Floats = np.zeros(studies)
    if people is not None:
        codes = np.unique(people, return_inverse=True)[1].ravel()
        where = (np.ones(count), (np.arange(count), codes))
        sums = np.asarray(flat @ csr_array(where, shape=(count, len(sizes))))
        by_people = variance(sums, sizes)
    return Spread(
        prompts=variance(votes.sum(axis=2), each),
        people=by_people,
        cells=variance(flat, 1),
        prompt_size=float(prompts),
        person_size=math.inf if people is None else float(count**2 / (sizes**2).sum()),
        cell_size=float(count),
    )


def approximate_power(truth: Truth, design: Design, level: float = 0.95) -> float:
    """Power by the closed form: Φ((|p - ½| - z √(v₀ D)) / √(v₁ D)).

    p is the observed win rate, v₁ the variance of a vote, v₀ that at one half, and D the design:
    ρ / prompts + τ / people + (1 - ρ - τ) / votes, with ρ and τ the shares of the variance that
    prompts and people explain. It takes the variance for known, so it is too hopeful below some
    30 prompts or people.
    """
    from scipy.special import ndtr, ndtri

    moments = vote_moments(truth)
    null = (1 - truth.tie_share) / 4
    votes = design.votes
    factor = moments.prompts / design.prompts + moments.people / (design.people or votes)
    factor += (1 - moments.prompts - moments.people) / votes
    quantile = ndtri((1 + level) / 2)
    gap = abs(moments.mean - 0.5) - quantile * math.sqrt(null * factor)
    return float(ndtr(gap / math.sqrt(moments.variance * factor)))


def approximate_prompts(
    truth: Truth,
    votes_per_prompt: int = 3,
    people: int | None = None,
    settings: PlanSettings | None = None,
) -> int | None:
    """Prompts needed by the closed form; None where no number suffices with so few people."""
    from scipy.special import ndtri

    settings = settings or PlanSettings()
    moments = vote_moments(truth)
    gap = abs(moments.mean - 0.5)
    if gap == 0:
        return None
    null = (1 - truth.tie_share) / 4
    needed = ndtri((1 + settings.level) / 2) * math.sqrt(null)
    needed += ndtri(settings.power) * math.sqrt(moments.variance)
    factor = float((gap / needed) ** 2)
    noise = 1 - moments.prompts - moments.people
    if people is None:
        noise += moments.people
    else:
        factor -= moments.people / people
    if factor <= 0:
        return None
    return max(2, math.ceil((moments.prompts + noise / votes_per_prompt) / factor - 1e-9))


def _searched(
    truth: Truth, start: int, votes: tuple[int, int | None], settings: PlanSettings
) -> int:
    """The smallest number of prompts whose simulated power is enough, to 2 %."""
    if start > _MOST:
        raise DataError(
            f"about {start:,} prompts are needed, more than the {_MOST:,} that are simulated: plan for a "
            "larger difference, or give the number of prompts"
        )
    _refuse_hours(start * votes[0], settings.runs, 8)

    def enough(prompts: int) -> bool:
        return simulated_power(truth, Design(prompts, *votes), settings)[0] >= settings.power

    low, high = 1, max(2, start)
    while not enough(high):
        low, high = high, math.ceil(high * 1.25)
        if high > _MOST:
            raise DataError(f"more than {_MOST:,} prompts are needed: plan for a larger difference")
    if low == 1:
        while high > 2 and enough(lower := max(2, math.floor(high * 0.8))):
            high = lower
        low = max(1, math.floor(high * 0.8)) if high > 2 else 1
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _refuse_hours(votes: int, runs: int, times: int) -> None:
    """Refuse studies that do not fit into memory, and simulations that take hours."""
    if votes > _LARGEST:
        raise DataError(
            f"a study of {votes:,} votes does not fit into memory when it is simulated, expected at most "
            f"{_LARGEST:,}"
        )
    if votes * runs * times > _VOTES:
        raise DataError(
            f"{runs:,} simulated studies of {votes:,} votes"
            f"{f', some {times} times over,' if times > 1 else ''} would run for hours, expected at most "
            f"{_VOTES:,} votes in all: take fewer runs, prompts or votes per prompt"
        )

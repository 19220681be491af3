"""Intervals and evidence that stay valid however often a live study is looked at.

An ordinary interval is right at one planned moment. Someone who looks after every vote and stops
when it leaves a half sees a winner between equals in half of all studies. A confidence sequence
holds at all moments together. Sources: Robbins (1970); Howard, Ramdas, McAuliffe and Sekhon (2021,
"Time-uniform, nonparametric, nonasymptotic confidence sequences"); Waudby-Smith and Ramdas (2024,
"Estimating means of bounded random variables by betting").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.intervals import Column, cluster_codes
from palate.stats.two_way.clusters import Decision

__all__ = [
    "ClusterMeans",
    "Sequence",
    "SequentialSettings",
    "cluster_means",
    "confidence_sequence",
    "mixture",
    "mixture_bounds",
]

Floats = NDArray[np.float64]
_STEPS: Final = 34
_GRID: Final = 1000
_BLOCK: Final = 2_000_000
# A bet stakes at most half of what it may lose, so that no single value ruins it.
_STAKE: Final = 0.5


@dataclass(frozen=True, slots=True)
class SequentialSettings:
    """How a confidence sequence is made.

    `level` is the chance that it holds at all moments together. `method`: `mixture` is the
    beta-binomial mixture, best for wins, losses and ties; `betting` adapts to the variance, best
    for means of many votes. `null` is the win rate that the evidence speaks against. `prior` is
    the number of imagined wins and as many losses of the mixture: 10 is sharpest for some
    hundreds of votes, a larger one for more.
    """

    level: float = 0.95
    method: Literal["mixture", "betting"] = "mixture"
    null: float = 0.5
    prior: float = 10.0

    def __post_init__(self) -> None:
        """Refuse settings that give no sequence."""
        if not 0 < self.level < 1:
            raise DataError(f"a sequence of level {self.level}, expected between 0 and 1")
        if not 0 < self.null < 1:
            raise DataError(f"a win rate of {self.null} as the null, expected between 0 and 1")
        if not 0 < self.prior < math.inf:
            raise DataError(f"a prior of {self.prior}, expected a number above 0")


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """The mean after every value, with an interval that holds at all of them together.

    Entry t of each array is what was known after t + 1 values. `low` never falls and `high` never
    rises: what was ruled out stays out. `evidence` is the e-value against the null, 20 or more
    refuting it at 5 %; it may fall again, and the largest so far counts. `consistent` is false where
    intervals of different moments exclude each other: the true rate has drifted, or the chance of
    1 - level has come true. `low` and `high` then stay at the last interval that was not empty.
    """

    mean: Floats
    low: Floats
    high: Floats
    evidence: Floats
    consistent: bool
    settings: SequentialSettings

    @property
    def count(self) -> int:
        """The number of values seen."""
        return len(self.mean)

    @property
    def p_value(self) -> float:
        """The always-valid p-value: one over the largest evidence so far, at most 1."""
        return float(min(1.0, 1.0 / self.evidence.max()))

    @property
    def stopped(self) -> int | None:
        """After how many values the null was refuted for the first time; None if never."""
        hits = np.flatnonzero(self._refuted())
        return int(hits[0]) + 1 if len(hits) else None

    @property
    def decision(self) -> Decision:
        """Whether the win rate is higher or lower than the null, or cannot be told from it yet."""
        if self.low[-1] > self.settings.null:
            return "higher"
        return "lower" if self.high[-1] < self.settings.null else "not separable"

    def _refuted(self) -> NDArray[np.bool_]:
        outside: NDArray[np.bool_] = (self.low > self.settings.null) | (
            self.high < self.settings.null
        )
        return outside

    def to_dict(self) -> dict[str, Any]:
        """Return the state after the last value as plain values for JSON."""
        return {
            "value": float(self.mean[-1]),
            "low": float(self.low[-1]),
            "high": float(self.high[-1]),
            "evidence": float(self.evidence.max()),
            "p_value": self.p_value,
            "count": self.count,
            "stopped": self.stopped,
            "decision": self.decision,
            "consistent": self.consistent,
            "level": self.settings.level,
            "method": self.settings.method,
            "null": self.settings.null,
            "prior": self.settings.prior,
        }


def confidence_sequence(outcomes: Column, settings: SequentialSettings | None = None) -> Sequence:
    """Win rate after every vote, with an interval that may be looked at after every vote.

    `outcomes` come in the order of the votes, from 0 to 1: 1 a win, 0 a loss, 0.5 a tie, or means
    of clusters. Assumed is only that each has the true rate as its mean, given those before: no
    distribution and no fixed length. The mixture's bound is exact for wins and losses and holds
    for any value from 0 to 1, since x ↦ (q/p)^x ((1-q)/(1-p))^(1-x) is convex (Hoeffding 1963); it
    is wide where most are ties. Votes of one prompt or one person after each other break the
    assumption: use `cluster_means`. Raises `DataError` for no values or one outside 0 to 1.
    """
    settings = settings or SequentialSettings()
    values = _checked(outcomes)
    count = np.arange(1, len(values) + 1)
    total = np.cumsum(values)
    if settings.method == "mixture":
        threshold = -math.log(1 - settings.level)
        low, high = mixture_bounds(total, count, threshold, settings.prior)
        proof = mixture(total, count, settings.null, settings.prior)
    else:
        low, high = _betting_bounds(values, settings.level)
        up, down = _Bets(np.array([settings.null]), settings.level).take(values)
        proof = np.maximum(up, down)[:, 0]
    lowest, highest = np.maximum.accumulate(low), np.minimum.accumulate(high)
    crossed = lowest > highest
    if crossed.any():
        last = max(int(crossed.argmax()) - 1, 0)
        lowest[last:], highest[last:] = lowest[last], highest[last]
    # e^700 is the largest that a float holds
    proof = np.exp(np.minimum(proof, 700.0))
    return Sequence(total / count, lowest, highest, proof, not crossed.any(), settings)


def mixture(total: Any, count: Any, rate: Any, prior: float = 10.0) -> Any:
    """Log evidence of the beta-binomial mixture against a win rate, after `count` values.

    log M = log B(a + k, a + n - k) - log B(a, a) - k log p - (n - k) log(1 - p), where k = `total`
    is the sum of the values (a tie adds a half), n = `count`, p = `rate` and a = `prior`.
    """
    from scipy.special import betaln, xlog1py, xlogy

    gain = betaln(prior + total, prior + count - total) - betaln(prior, prior)
    return gain - xlogy(total, rate) - xlog1py(count - total, -np.asarray(rate))


def mixture_bounds(total: Any, count: Any, threshold: float, prior: float = 10.0) -> Any:
    """Lowest and highest rates whose log evidence is below the threshold, log(1 / (1 - level)).

    `total` and `count` are the sum and the number of values so far, as numbers or arrays. This is
    all that a live page needs; the path before does not matter.
    """
    sums = np.asarray(total, dtype=np.float64)
    counts = np.asarray(count, dtype=np.float64)
    means = sums / counts

    def edge(outside: Floats) -> Floats:
        inside = means.copy()
        for _ in range(_STEPS):
            middle = (outside + inside) / 2
            refuted = mixture(sums, counts, middle, prior) >= threshold
            outside, inside = np.where(refuted, middle, outside), np.where(refuted, inside, middle)
        return outside

    return edge(np.zeros(means.shape)), edge(np.ones(means.shape))


class _Bets:
    """What bets on and against each of several rates have earned (log capital, halves of 1).

    Bets are sized by what was seen before each value, so they are fair if the rate is true:
    λ = √(2 log(2/α) / (variance · t · log(t + 1))) (Waudby-Smith and Ramdas 2024, section 4.2).
    """

    def __init__(self, rates: Floats, level: float) -> None:
        self._rates = rates
        self._worth = 2 * math.log(2 / (1 - level))
        self._count, self._sum, self._squares = 0, 0.5, 0.25
        self._up = np.full(len(rates), -math.log(2.0))
        self._down = self._up.copy()

    def take(self, values: Floats) -> tuple[Floats, Floats]:
        """Log capital of bets on more, and of bets on less, after each value: values × rates."""
        size = self._sizes(values)[:, None]
        gap = values[:, None] - self._rates
        with np.errstate(divide="ignore"):
            up = np.minimum(size, _STAKE / self._rates)
            down = np.minimum(size, _STAKE / (1 - self._rates))
        ups = self._up + np.log1p(up * gap).cumsum(axis=0)
        downs = self._down + np.log1p(-down * gap).cumsum(axis=0)
        self._up, self._down = ups[-1], downs[-1]
        return ups, downs

    def _sizes(self, values: Floats) -> Floats:
        """The size of each bet, from the values before it."""
        number = self._count + np.arange(1, len(values) + 1)
        sums = self._sum + values.cumsum()
        means = sums / (number + 1)
        squares = self._squares + ((values - means) ** 2).cumsum()
        variances = np.concatenate([[self._squares / number[0]], squares[:-1] / number[1:]])
        self._count, self._sum, self._squares = int(number[-1]), float(sums[-1]), float(squares[-1])
        found: Floats = np.sqrt(self._worth / (variances * number * np.log1p(number)))
        return found


def _betting_bounds(values: Floats, level: float) -> tuple[Floats, Floats]:
    """Rates that no bet has refuted, to the next thousandth outward."""
    rates = np.linspace(0, 1, _GRID + 1)
    bets, threshold = _Bets(rates, level), -math.log(1 - level)
    low, high = np.zeros(len(values)), np.ones(len(values))
    block = max(1, _BLOCK // len(rates))
    for start in range(0, len(values), block):
        ups, downs = bets.take(values[start : start + block])
        # Bets on more win wherever the rate is too low: everything below the last of these is out.
        last = len(rates) - 1 - (ups >= threshold)[:, ::-1].argmax(axis=1)
        first = (downs >= threshold).argmax(axis=1)
        part = slice(start, start + len(ups))
        low[part] = np.where((ups >= threshold).any(axis=1), rates[last], 0.0)
        high[part] = np.where((downs >= threshold).any(axis=1), rates[first], 1.0)
    return low, high


@dataclass(frozen=True, slots=True, eq=False)
class ClusterMeans:
    """Means of the clusters that have all their votes, in the order in which they got them.

    `open_votes` are in clusters that lack some, `spare` came after a cluster was full; neither
    counts.
    """

    means: Floats
    size: int
    open_votes: int
    spare: int


def cluster_means(outcomes: Column, clusters: Column, size: int) -> ClusterMeans:
    """Turn votes in the order they came into means of full clusters for a confidence sequence.

    A cluster (usually a prompt) counts once, when it has `size` votes, and never changes again: so
    every mean has the true rate as its mean, whatever the votes of a prompt have in common. The
    `size` must be fixed before the study. What people have in common between prompts remains: the
    sequence then speaks of these people, not of others. Raises `DataError` where no cluster is full.
    """
    values = _checked(outcomes)
    if size < 1:
        raise DataError(f"clusters of {size} votes, expected at least 1")
    codes = cluster_codes(clusters, len(values))
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    place = np.empty(len(values), dtype=np.int64)
    place[order] = np.arange(len(values)) - starts[codes[order]]
    full = np.bincount(codes) >= size
    if not full.any():
        raise DataError(f"none of {len(full)} clusters has {size} votes")
    used = place < size
    sums = np.bincount(codes[used], weights=values[used], minlength=len(full))
    finished = codes[(place == size - 1)]
    counted = int(full.sum()) * size
    spare = int((~used).sum())
    return ClusterMeans(sums[finished] / size, size, len(values) - counted - spare, spare)


def _checked(outcomes: Column) -> Floats:
    values: Floats = np.asarray(outcomes, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(f"outcomes of shape {values.shape}, expected a column of at least one")
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError("an outcome is not a number from 0 to 1")
    return values

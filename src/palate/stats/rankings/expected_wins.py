"""How often an item is expected to win, by the strengths that were fitted.

Unlike a counted win rate it does not depend on whom an item met.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.errors import DataError
from palate.stats.numbers import finite, logistic
from palate.stats.rankings.likelihood import Floats
from palate.stats.rankings.strengths import Strengths, quantile


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedWins:
    """Expected shares of duels won, ties half, in the order of `items`.

    `rates[a, b]` is the share that a wins from b (a half on the diagonal). `average` is the mean over
    all other items, each met equally often, with a standard error and an interval of `level`.
    """

    items: tuple[Any, ...]
    rates: Floats
    average: Floats
    errors: Floats
    low: Floats
    high: Floats
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not finite is None."""
        rows = zip(self.items, self.average, self.errors, self.low, self.high, strict=True)
        return {
            "level": self.level,
            "rows": [
                {
                    "item": item,
                    "average": float(average),
                    "error": finite(error),
                    "low": finite(low),
                    "high": finite(high),
                }
                for item, average, error, low, high in rows
            ],
            "rates": self.rates.tolist(),
        }


def expected_wins(found: Strengths) -> ExpectedWins:
    """Expected share of duels that each item wins from each other and on average, ties half.

    Side and covariates are left out: both sides are shown first equally often, and covariates are
    equal. Errors are carried over from the strengths by their derivative, tie parameters being
    taken as known; the interval is made on the logit, so that it stays within 0 and 1. Raises
    `DataError` where items never met, not even through others.
    """
    if found.group.any():
        raise DataError(f"no expected wins: {found.connectivity.sentence()}")
    gap = found.strengths[:, None] - found.strengths[None, :]
    rates, slopes = expected_share(found, gap)
    count = len(found.items)
    others = ~np.eye(count, dtype=bool)
    average = np.where(others, rates, 0.0).sum(axis=1) / (count - 1)
    pull = np.where(others, slopes, 0.0) / (count - 1)
    change = np.diag(pull.sum(axis=1)) - pull
    squares = np.einsum("ij,jk,ik->i", change, found.covariance, change)
    errors = np.sqrt(np.maximum(squares, 0.0))
    logit = np.log(average) - np.log1p(-average)
    width = quantile(found.settings.level, found.freedom) * errors / (average * (1 - average))
    low, high = logistic(logit - width), logistic(logit + width)
    return ExpectedWins(found.items, rates, average, errors, low, high, found.settings.level)


def expected_share(found: Strengths, gap: Floats) -> tuple[Floats, Floats]:
    """Expected share of duels won at differences of strengths, ties half, and its derivative."""
    ties = {effect.name: effect.value for effect in found.ties}
    if "theta" in ties:
        shift = math.log(ties["theta"])
        won, lost = logistic(gap - shift), logistic(-gap - shift)
        return (1 + won - lost) / 2, (won * (1 - won) + lost * (1 - lost)) / 2
    # For duels, the parameter of Davidson and Luce for ties of two is Davidson's.
    nu = ties.get("nu", ties.get("nu_2", 0.0))
    far = np.exp(-np.abs(gap) / 2)
    total = 1 + far**2 + nu * far
    lean = np.sign(gap) * (1 - far**2) / total / 2
    return 0.5 + lean, (1 + far**2) / total / 4 - lean**2

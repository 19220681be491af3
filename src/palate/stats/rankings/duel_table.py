"""Duels as columns of numbers, and who won how often against whom.

The counts are plain: no model stands behind them. `palate.stats.wins` counts wins in rankings on shared
prompts; this module starts from duels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.intervals import Column
from palate.stats.numbers import finite
from palate.stats.rankings.connectivity import (
    Connectivity,
    connect,
    item_codes,
    only_used,
    refuse_many,
)
from palate.stats.rankings.likelihood import Codes, Floats


@dataclass(frozen=True, slots=True, eq=False)
class DuelTable:
    """Duels as numbers: `first` and `second` number the `items`, `outcome` is 1, 0 or 0.5.

    `kept` marks the given duels that are here. Duels of an item with itself and those without weight
    are left out, and so are ties where the rule drops them.
    """

    items: tuple[Any, ...]
    first: Codes
    second: Codes
    outcome: Floats
    weight: Floats
    kept: NDArray[np.bool_]

    def pairs(self, *, tied: bool) -> tuple[Codes, Codes]:
        """The duels that tied, or (better, worse) of those that did not."""
        if tied:
            level = self.outcome == 0.5
            return self.first[level], self.second[level]
        won, lost = self.outcome == 1, self.outcome == 0
        better = np.concatenate([self.first[won], self.second[lost]])
        return better, np.concatenate([self.second[won], self.first[lost]])

    def connectivity(self) -> Connectivity:
        """How the duels tie the items together."""
        better, worse = self.pairs(tied=False)
        left, right = self.pairs(tied=True)
        winners = np.concatenate([better, left, right])
        return connect(self.items, winners, np.concatenate([worse, right, left]))


def duel_table(
    first: Column,
    second: Column,
    outcome: Column,
    weights: Column | None = None,
    *,
    drop_ties: bool = False,
) -> DuelTable:
    """Check columns of duels and number their items in the order of their labels.

    Raises `DataError` for columns that do not match, for another outcome than 1, 0 or 0.5, for a
    weight below 0, and where no two different items meet.
    """
    won: Floats = np.asarray(outcome, dtype=np.float64)
    if won.ndim != 1 or not len(first) == len(second) == len(won):
        raise DataError(
            f"duels of {len(first)} first items, {len(second)} second items and {won.size} outcomes"
        )
    bad = (won != 0.0) & (won != 0.5) & (won != 1.0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"duel {row} has the outcome {won[row]}, expected 1, 0 or 0.5")
    weight = checked_weights(weights, len(won))
    items, (left, right) = item_codes(first, second)
    kept = (left != right) & (weight > 0)
    if drop_ties:
        kept &= won != 0.5
    if not kept.any():
        raise DataError(f"none of {len(won)} duels is between two different items and counts")
    left, right = left[kept], right[kept]
    items, (left, right) = only_used(items, left, right)
    refuse_many(items)
    return DuelTable(items, left, right, won[kept], weight[kept], kept)


def checked_weights(weights: Column | None, count: int) -> Floats:
    """Weights of answers: 1 where none are given; each finite and not negative."""
    if weights is None:
        return np.ones(count)
    found: Floats = np.asarray(weights, dtype=np.float64)
    if found.shape != (count,):
        raise DataError(f"{count} answers but weights of shape {found.shape}")
    if not np.isfinite(found).all() or (found < 0).any():
        raise DataError("a weight is negative or not a finite number")
    return found


@dataclass(frozen=True, slots=True, eq=False)
class WinRates:
    """Wins between items, in the order of their labels.

    `wins[a, b]` is how often (or with what weight) item a beat item b; `ties` has every tie on both
    sides. `rates[a, b]` is the share of their duels that a won under the `rule` for ties, and not a
    number where they have none. `overall` is the share of all duels of an item, which depends on
    whom it met; `balanced` is the mean of its rates against each other item, which does not, and
    is not a number where it did not meet them all.
    """

    items: tuple[Any, ...]
    wins: Floats
    ties: Floats
    rates: Floats
    overall: Floats
    balanced: Floats
    rule: Literal["half", "drop", "loss"]
    left_out: int

    @property
    def losses(self) -> Floats:
        """How often item a lost to item b."""
        return self.wins.T

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not a number is None."""
        sums = [table.sum(axis=1) for table in (self.wins, self.ties, self.losses)]
        rows = zip(self.items, *sums, self.overall, self.balanced, strict=True)
        return {
            "rule": self.rule,
            "left_out": self.left_out,
            "rows": [
                {
                    "item": item,
                    "wins": float(won),
                    "ties": float(tied),
                    "losses": float(lost),
                    "overall": finite(overall),
                    "balanced": finite(balanced),
                }
                for item, won, tied, lost, overall, balanced in rows
            ],
            "wins": self.wins.tolist(),
            "ties": self.ties.tolist(),
            "rates": [[finite(rate) for rate in row] for row in self.rates],
        }


def win_rates(
    first: Column,
    second: Column,
    outcome: Column,
    weights: Column | None = None,
    *,
    ties: Literal["half", "drop", "loss"] = "half",
) -> WinRates:
    """Wins, ties and losses of every item against every other, and the shares that they make.

    Columns are those of `bradley_terry`. A tie counts half a win, is left out (`drop`), or counts as
    a loss of both. For a rate with an interval see `palate.stats.two_way.clusters.clustered_share`.
    """
    table = duel_table(first, second, outcome, weights)
    size = len(table.items)
    better, worse = table.pairs(tied=False)
    left, right = table.pairs(tied=True)
    tied = table.outcome == 0.5
    weight = np.concatenate([table.weight[table.outcome == 1], table.weight[table.outcome == 0]])
    wins = _counted(better, worse, weight, size)
    level = _counted(left, right, table.weight[tied], size)
    level += level.T
    credit = wins + level / 2 if ties == "half" else wins
    met = wins + wins.T + (level if ties != "drop" else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = credit / met
        overall = credit.sum(axis=1) / met.sum(axis=1)
    others = ~np.eye(size, dtype=bool)
    balanced = np.where(others, rates, 0.0).sum(axis=1) / (size - 1)
    left_out = int((~table.kept).sum())
    return WinRates(table.items, wins, level, rates, overall, balanced, ties, left_out)


def _counted(rows: Codes, columns: Codes, weights: Floats, size: int) -> Floats:
    found = np.bincount(rows * size + columns, weights=weights, minlength=size * size)
    return found.astype(np.float64).reshape(size, size)

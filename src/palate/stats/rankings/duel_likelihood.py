"""The likelihood of duels under three models of ties, with its derivatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from palate.stats.numbers import log_logistic, logistic
from palate.stats.rankings.connectivity import components
from palate.stats.rankings.duel_table import DuelTable
from palate.stats.rankings.likelihood import (
    Codes,
    Floats,
    Likelihood,
    Scores,
    add_pairs,
)

DuelTies = Literal["half", "drop", "davidson", "rao-kupper"]

TIE_NAMES: Final[dict[str, str]] = {"davidson": "nu", "rao-kupper": "theta"}
"""What the tie parameter of a model is called."""


class DuelLikelihood(Likelihood):
    """The likelihood of duels under one of the models, folded by pair where rows are alike."""

    def __init__(
        self, table: DuelTable, design: Floats | None, effects: tuple[str, ...], ties: DuelTies
    ) -> None:
        self.ties = ties
        self.items = len(table.items)
        self.tie_count = int(ties in {"davidson", "rao-kupper"})
        tie = TIE_NAMES.get(ties)
        strengths = tuple(f"the strength of {item}" for item in table.items)
        self.names = (*strengths, *effects, *([tie] if tie else []))
        self.table, self.design = table, design
        folded = design is None or effects == ("side",)
        self.cells = self._folded() if folded else _Cells.of(table, design)

    def _folded(self) -> _Cells:
        """Duels of the same two items with the same outcome as one row: enough for the maximum."""
        table, size = self.table, self.items
        key = (table.first * size + table.second) * 3 + (2 * table.outcome).astype(np.int64)
        if 3 * size * size <= 4 * len(key):
            weight = np.bincount(key, weights=table.weight, minlength=3 * size * size)
            cells = np.flatnonzero(weight)
            weight = weight[cells]
        else:
            cells, places = np.unique(key, return_inverse=True)
            weight = np.bincount(places, weights=table.weight)
        pair = cells // 3
        design = None if self.design is None else np.ones((len(cells), 1))
        outcome = (cells % 3) / 2.0
        return _Cells(pair // size, pair % size, outcome, weight.astype(np.float64), design)

    def start(self) -> Floats:
        """Equal strengths, and the tie parameter that then gives the share of ties."""
        theta = np.zeros(len(self.names))
        if self.tie_count:
            cells = self.cells
            share = float(cells.weight[cells.outcome == 0.5].sum() / cells.weight.sum())
            theta[-1] = math.log(2 * share / (1 - share))
            if self.ties == "rao-kupper":
                theta[-1] = 2 * math.atanh(share)
        return theta

    def met(self) -> Codes:
        """The group of every item, among items that met, directly or through others."""
        return components(self.items, self.cells.first, self.cells.second)

    def evaluate(self, theta: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and information at the parameters."""
        cells, size = self.cells, self.items
        if self.ties == "rao-kupper" and theta[-1] <= 0:
            return -math.inf, theta, np.empty((0, 0))
        terms = self._terms(cells, theta)
        value = float(cells.weight @ terms.value)
        slope = np.zeros(len(theta))
        curve = np.zeros((len(theta), len(theta)))
        slope[:size] = cells.over_items(terms.slope, size)
        pairs = curve[:size, :size]
        weighted = cells.weight * terms.curve
        add_pairs(pairs, cells.first, cells.second, -weighted)
        pairs += pairs.T
        pairs[np.diag_indices(size)] -= pairs.sum(axis=1)
        stop = size
        if cells.design is not None:
            stop = size + cells.design.shape[1]
            slope[size:stop] = cells.design.T @ (cells.weight * terms.slope)
            for place in range(size, stop):
                column = cells.design[:, place - size]
                curve[:size, place] = cells.over_items(terms.curve * column, size)
            curve[size:stop, size:stop] = cells.design.T @ (weighted[:, None] * cells.design)
        if self.tie_count:
            slope[-1] = cells.weight @ terms.tie_slope
            curve[:size, -1] = cells.over_items(terms.mixed, size)
            if cells.design is not None:
                curve[size:stop, -1] = cells.design.T @ (cells.weight * terms.mixed)
            curve[-1, -1] = cells.weight @ terms.tie_curve
        curve[size:, :size] = curve[:size, size:].T
        curve[stop:, size:stop] = curve[size:stop, stop:].T
        return value, slope, curve

    def scores(self, theta: Floats) -> Scores:
        """What every duel contributes to the gradient."""
        every = _Cells.of(self.table, self.design)
        terms = self._terms(every, theta)
        slope = every.weight * terms.slope
        row = np.arange(len(slope), dtype=np.int64)
        parts = [(every.first, slope), (every.second, -slope)]
        if every.design is not None:
            for number in range(every.design.shape[1]):
                place = np.full(len(row), self.items + number, dtype=np.int64)
                parts.append((place, slope * every.design[:, number]))
        if self.tie_count:
            place = np.full(len(row), len(theta) - 1, dtype=np.int64)
            parts.append((place, every.weight * terms.tie_slope))
        places, values = zip(*parts, strict=True)
        return Scores(np.tile(row, len(parts)), np.concatenate(places), np.concatenate(values))

    def _terms(self, cells: _Cells, theta: Floats) -> _Terms:
        gap = theta[cells.first] - theta[cells.second]
        if cells.design is not None:
            gap = gap + cells.design @ theta[self.items : self.items + cells.design.shape[1]]
        if self.ties == "davidson":
            return _davidson(gap, cells.outcome, float(theta[-1]))
        if self.ties == "rao-kupper":
            return _rao_kupper(gap, cells.outcome, float(theta[-1]))
        return _half(gap, cells.outcome)


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Duels, or groups of like duels, with the columns of their effects."""

    first: Codes
    second: Codes
    outcome: Floats
    weight: Floats
    design: Floats | None

    @staticmethod
    def of(table: DuelTable, design: Floats | None) -> _Cells:
        """Every duel by itself."""
        return _Cells(table.first, table.second, table.outcome, table.weight, design)

    def over_items(self, values: Floats, size: int) -> Floats:
        """Weighted sums over the duels of each item: plus where first, minus where second."""
        weighted = self.weight * values
        added = np.bincount(self.first, weights=weighted, minlength=size)
        taken = np.bincount(self.second, weights=weighted, minlength=size)
        return (added - taken).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """Logarithm of the probability of each duel, and its derivatives by η and the tie parameter.

    `curve`, `mixed` and `tie_curve` are minus the second derivatives.
    """

    value: Floats
    slope: Floats
    curve: Floats
    tie_slope: Floats
    mixed: Floats
    tie_curve: Floats


def _half(gap: Floats, outcome: Floats) -> _Terms:
    won = logistic(gap)
    value = outcome * log_logistic(gap) + (1 - outcome) * log_logistic(-gap)
    none = np.zeros(0)
    return _Terms(value, outcome - won, won * (1 - won), none, none, none)


def _davidson(gap: Floats, outcome: Floats, log_nu: float) -> _Terms:
    logits = np.stack([gap / 2, -gap / 2, np.full(len(gap), log_nu)])
    top = logits.max(axis=0)
    raised = np.exp(logits - top)
    total = raised.sum(axis=0)
    won, lost, level = raised / total
    tied = outcome == 0.5
    seen = np.where(tied, log_nu, (outcome - 0.5) * gap)
    lean = (won - lost) / 2
    return _Terms(
        value=seen - top - np.log(total),
        slope=outcome - 0.5 - lean,
        curve=(won + lost) / 4 - lean**2,
        tie_slope=tied - level,
        mixed=-lean * level,
        tie_curve=level * (1 - level),
    )


def _rao_kupper(gap: Floats, outcome: Floats, log_theta: float) -> _Terms:
    won, lost = logistic(gap - log_theta), logistic(-gap - log_theta)
    # A tie has the terms of a win and those of a loss, and one of the threshold alone.
    as_won, as_lost = (outcome > 0) * 1.0, (outcome < 1) * 1.0
    tied = outcome == 0.5
    shrunk = math.exp(-2 * log_theta)
    value = as_won * log_logistic(gap - log_theta) + as_lost * log_logistic(-gap - log_theta)
    first, second = as_won * won * (1 - won), as_lost * lost * (1 - lost)
    return _Terms(
        value=value + tied * (2 * log_theta + math.log1p(-shrunk)),
        slope=as_won * (1 - won) - as_lost * (1 - lost),
        curve=first + second,
        tie_slope=tied * (2 / (1 - shrunk)) - as_won * (1 - won) - as_lost * (1 - lost),
        mixed=second - first,
        tie_curve=first + second + tied * (4 * shrunk / (1 - shrunk) ** 2),
    )

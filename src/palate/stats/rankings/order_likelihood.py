"""The likelihood of rankings as choices in stages, with its derivatives.

A ranking is a row of choices: the best of all, then the best of the rest, and so on (Luce 1959, Plackett
1975). Stages with as many items left and as many tied on top are computed together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, Final, Literal

import numpy as np

from palate.errors import DataError
from palate.stats.rankings.connectivity import components
from palate.stats.rankings.likelihood import Codes, Floats, Likelihood, Scores, add_pairs

OrderTies = Literal["davidson-luce", "efron"]

_MOST_SETS: Final = 50_000
_BLOCK: Final = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """Stages with the same number of items left, of which the same number are chosen together.

    `flat` has a row per stage: positions of the items left, among all items of all rankings, the chosen
    ones first. `choice` is the ranking that each stage is of.
    """

    flat: Codes
    chosen: int
    choice: Codes


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """Rankings as numbers: the item at every position, where rankings begin, and their stages.

    `owner` is the ranking of every position; `weight` has one entry per ranking, `design` one row per position.
    """

    items: tuple[Any, ...]
    codes: Codes
    owner: Codes
    weight: Floats
    design: Floats | None
    stages: tuple[Stages, ...]


class OrderLikelihood(Likelihood):
    """The likelihood of rankings under Plackett and Luce's model, with a rule for ties."""

    def __init__(self, orders: Orders, effects: tuple[str, ...], ties: OrderTies) -> None:
        self.orders, self.ties = orders, ties
        self.items = len(orders.items)
        sizes = {stages.chosen for stages in orders.stages} if ties == "davidson-luce" else {1}
        self.sizes = tuple(sorted(sizes | {1}))
        self.tie_count = len(self.sizes) - 1
        strengths = tuple(f"the strength of {item}" for item in orders.items)
        self.names = (*strengths, *effects, *(f"nu_{size}" for size in self.sizes[1:]))
        self._effects = len(effects)
        self._sets = {
            left: _subsets(left, self.sizes)
            for left in {stages.flat.shape[1] for stages in orders.stages}
        }

    def start(self) -> Floats:
        """Equal strengths, and tie parameters near those that then give the shares of ties."""
        theta = np.zeros(len(self.names))
        seen, possible = dict.fromkeys(self.sizes, 0.5), dict.fromkeys(self.sizes, 1.0)
        for stages in self.orders.stages if self.tie_count else ():
            seen[stages.chosen] += len(stages.flat)
            for size in self.sizes:
                possible[size] += len(stages.flat) * comb(stages.flat.shape[1], size)
        rates = [seen[size] / possible[size] for size in self.sizes]
        theta[len(theta) - self.tie_count :] = np.log(np.array(rates[1:]) / rates[0])
        return theta

    def met(self) -> Codes:
        """The group of every item, among items that met, directly or through others."""
        codes, owner = self.orders.codes, self.orders.owner
        same = owner[1:] == owner[:-1]
        return components(self.items, codes[:-1][same], codes[1:][same])

    def evaluate(self, theta: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and information at the parameters."""
        size, stop = self.items, self.items + self._effects
        value, slope = 0.0, np.zeros(len(theta))
        curve = np.zeros((len(theta), len(theta)))
        for part in self._parts(theta):
            value += float(part.weight @ part.value)
            flat, codes = part.flat.ravel(), self.orders.codes[part.flat]
            pull = part.weight[:, None] * part.slope
            inner = part.weight[:, None, None] * part.curve
            slope[:size] += np.bincount(codes.ravel(), weights=pull.ravel(), minlength=size)
            rows = np.repeat(codes, codes.shape[1], axis=1).ravel()
            columns = np.tile(codes, (1, codes.shape[1])).ravel()
            add_pairs(curve[:size, :size], rows, columns, inner.ravel())
            if self.orders.design is not None:
                design = self.orders.design[part.flat]
                slope[size:stop] += self.orders.design[flat].T @ pull.ravel()
                across = inner @ design
                _add_rows(curve[:size, size:stop], codes, across)
                curve[size:stop, size:stop] += np.einsum("gix,giy->xy", design, across)
                curve[size:stop, stop:] += np.einsum(
                    "gix,git->xt", design, part.weight[:, None, None] * part.mixed
                )
            if self.tie_count:
                slope[stop:] += part.weight @ part.tie_slope
                mixed = part.weight[:, None, None] * part.mixed
                _add_rows(curve[:size, stop:], codes, mixed)
                curve[stop:, stop:] += np.einsum("g,gst->st", part.weight, part.tie_curve)
        curve[size:, :size] = curve[:size, size:].T
        curve[stop:, size:stop] = curve[size:stop, stop:].T
        return value, slope, curve

    def scores(self, theta: Floats) -> Scores:
        """What every ranking contributes to the gradient."""
        rows, places, values = [], [], []
        for part in self._parts(theta):
            pull = part.weight[:, None] * part.slope
            rows.append(np.repeat(part.choice, part.flat.shape[1]))
            places.append(self.orders.codes[part.flat].ravel())
            values.append(pull.ravel())
            extra = np.zeros((len(pull), 0))
            if self.orders.design is not None:
                extra = np.einsum("gi,gix->gx", pull, self.orders.design[part.flat])
            if self.tie_count:
                extra = np.hstack([extra, part.weight[:, None] * part.tie_slope])
            for number in range(extra.shape[1]):
                rows.append(part.choice)
                places.append(np.full(len(pull), self.items + number, dtype=np.int64))
                values.append(extra[:, number])
        return Scores(np.concatenate(rows), np.concatenate(places), np.concatenate(values))

    def _parts(self, theta: Floats) -> Iterator[_Part]:
        """Stages with their terms, in blocks that fit into memory."""
        worth = theta[self.orders.codes]
        if self.orders.design is not None:
            worth = worth + self.orders.design @ theta[self.items : self.items + self._effects]
        log_ties = np.concatenate([[0.0], theta[len(theta) - self.tie_count :]])
        for stages in self.orders.stages:
            left = stages.flat.shape[1]
            sets = self._sets[left]
            wide = max(left * left, len(sets))
            block = max(1, _BLOCK // wide)
            for start in range(0, len(stages.flat), block):
                flat = stages.flat[start : start + block]
                choice = stages.choice[start : start + block]
                weight = self.orders.weight[choice]
                logits = worth[flat]
                if self.ties == "efron":
                    terms = _efron(logits, stages.chosen)
                else:
                    place = self.sizes.index(stages.chosen)
                    terms = _davidson_luce(logits, stages.chosen, sets, (log_ties, place))
                yield _Part(flat, choice, weight, *terms)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A block of stages: logarithms of their probabilities and the derivatives of these.

    `slope` is by the worth of each item left, `curve` minus the second derivative; `mixed` is minus the
    second derivative by worth and tie parameter.
    """

    flat: Codes
    choice: Codes
    weight: Floats
    value: Floats
    slope: Floats
    curve: Floats
    tie_slope: Floats
    mixed: Floats
    tie_curve: Floats


Terms = tuple[Floats, Floats, Floats, Floats, Floats, Floats]


def _add_rows(table: Floats, codes: Codes, values: Floats) -> None:
    """Add the last axis of the values to the rows of a table that the codes name."""
    for column in range(table.shape[1]):
        weights = values[..., column].ravel()
        table[:, column] += np.bincount(codes.ravel(), weights=weights, minlength=len(table))


def _subsets(left: int, sizes: tuple[int, ...]) -> Floats:
    """Every set that may be chosen among the items left: sets × items, 1 / size where inside."""
    allowed = [size for size in sizes if size <= left]
    count = sum(comb(left, size) for size in allowed)
    if count > _MOST_SETS:
        raise DataError(
            f"ties of {allowed[-1]} among {left} items make {count} sets, expected at most "
            f"{_MOST_SETS}: use the rule 'efron'"
        )
    if allowed == [1]:
        return np.eye(left)
    table = np.zeros((count, left))
    row = 0
    for size in allowed:
        for chosen in combinations(range(left), size):
            table[row, list(chosen)] = 1 / size
            row += 1
    return table


def _davidson_luce(worth: Floats, chosen: int, sets: Floats, ties: tuple[Floats, int]) -> Terms:
    """Terms of P(T) ∝ ν(size of T) · (Π of exp(worth) in T)^(1 / size), over all sets T."""
    log_ties, place = ties
    count = len(log_ties) - 1
    group = np.rint(1 / sets.max(axis=1)).astype(np.int64)
    sizes = np.unique(group)
    kind = np.searchsorted(sizes, group)
    logits = worth @ sets.T + log_ties[kind]
    top = logits.max(axis=1, keepdims=True)
    logits -= top
    chance = np.exp(logits, out=logits)
    total = chance.sum(axis=1, keepdims=True)
    chance /= total
    mean = chance @ sets
    seen = worth[:, :chosen].mean(axis=1) + log_ties[place]
    slope = -mean
    slope[:, :chosen] += 1 / chosen
    left = worth.shape[1]
    if len(sets) == left:
        second = np.zeros((len(worth), left, left))
        every = np.arange(left)
        second[:, every, every] = mean
    else:
        # One product of matrices instead of a sum over sets for every pair of items.
        pairs = (sets[:, :, None] * sets[:, None, :]).reshape(len(sets), -1)
        second = (chance @ pairs).reshape(len(worth), left, left)
    second -= mean[:, :, None] * mean[:, None, :]
    # Sets of one need no parameter; sizes larger than what is left have none here.
    member = (kind[:, None] == np.arange(1, count + 1)) * 1.0
    level = chance @ member
    tie_slope = -level
    if place:
        tie_slope[:, place - 1] += 1
    both = (sets[:, :, None] * member[:, None, :]).reshape(len(sets), -1)
    mixed = (chance @ both).reshape(len(worth), left, count)
    mixed -= mean[:, :, None] * level[:, None, :]
    tie_curve = np.eye(count) * level[:, :, None] - level[:, :, None] * level[:, None, :]
    value = seen - top[:, 0] - np.log(total[:, 0])
    return value, slope, second, tie_slope, mixed, tie_curve


def _efron(worth: Floats, chosen: int) -> Terms:
    """Terms of Efron's rule: those tied leave one after another, each by an equal part of all."""
    left = worth.shape[1]
    top = worth.max(axis=1, keepdims=True)
    raised = np.exp(worth - top)
    value = worth[:, :chosen].sum(axis=1)
    slope = np.zeros_like(worth)
    slope[:, :chosen] = 1.0
    curve = np.zeros((*worth.shape, left))
    every = np.arange(left)
    for gone in range(chosen):
        share = raised.copy()
        share[:, :chosen] *= 1 - gone / chosen
        total = share.sum(axis=1, keepdims=True)
        chance = share / total
        value = value - top[:, 0] - np.log(total[:, 0])
        slope -= chance
        curve -= chance[:, :, None] * chance[:, None, :]
        curve[:, every, every] += chance
    rows = len(worth)
    return (
        value,
        slope,
        curve,
        np.zeros((rows, 0)),
        np.zeros((rows, left, 0)),
        np.zeros((rows, 0, 0)),
    )

"""The likelihood of choices as a function of one scale: what `palate.stats.calibrations.calibration` fits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.duels import pair_index
from palate.errors import DataError
from palate.stats.intervals import Column

Floats = NDArray[np.float64]
Block = tuple[NDArray[np.int64], Floats, Floats]
"""Answers between the same number of images: their rows, and scores and targets, images × answers."""

HumanTies = Literal["half", "drop"]

_TINY: Final = 1e-12


class ChoiceModel:
    """The likelihood of answers as a function of the scale, and its two derivatives.

    A block holds the answers between n images: scores and targets, images × answers; the targets of an answer sum
    to 1. Scores count from their mean under the targets, so that the loss of an answer is the logarithm of
    Σ exp(scale · score).
    """

    def __init__(self, blocks: list[tuple[Floats, Floats]]) -> None:
        self.blocks = blocks
        self.centred = [s - (s * y).sum(axis=0) for s, y in blocks]
        squares = sum(float(2 * s.var(axis=0, ddof=1).sum()) for s, _ in blocks)
        self.count = sum(s.shape[1] for s, _ in blocks)
        self.typical = math.sqrt(squares / self.count)

    def kept(self, mask: NDArray[np.bool_]) -> ChoiceModel:
        """Return the model of some of the answers."""
        return ChoiceModel(
            [(s[:, m], y[:, m]) for (s, y), m in zip(self.blocks, self._cut(mask), strict=True)]
        )

    def parts(self, scales: Floats) -> tuple[Floats, Floats, Floats]:
        """Loss, slope and curvature of every answer, each at its own scale."""
        found = []
        for own, scale in zip(self.centred, self._cut(scales), strict=True):
            logits = scale * own
            top = logits.max(axis=0)
            raised = np.exp(logits - top)
            total = raised.sum(axis=0)
            mean = (raised * own).sum(axis=0) / total
            square = (raised * own**2).sum(axis=0) / total
            found.append((top + np.log(total), mean, square - mean**2))
        loss, slope, curve = (np.concatenate(column) for column in zip(*found, strict=True))
        return loss, slope, curve

    def probabilities(self, scales: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Share and target of every image, block by block, images × answers."""
        for (values, targets), scale in zip(self.blocks, self._cut(scales), strict=True):
            logits = scale * values
            raised = np.exp(logits - logits.max(axis=0))
            yield raised / raised.sum(axis=0), targets

    def fit(self, bound: float | None, start: float = 0.0) -> tuple[float, bool]:
        """Return the scale of most likelihood, and whether it is the bound."""
        self._refuse_flat()
        end = self._endless()
        if end and bound is None:
            often = "never wrong" if end > 0 else "never right"
            raise DataError(
                f"the scorer is {often} on {self.count} answers, so that no finite scale fits best; "
                "give a bound or more answers"
            )
        limit = math.inf if bound is None else bound / self.typical
        scale = math.copysign(limit, end) if end else self._newton(start)
        return (math.copysign(limit, scale), True) if abs(scale) >= limit else (scale, False)

    def _newton(self, start: float) -> float:
        """Find where the slope is 0; the loss is convex, so a bracket keeps every step safe."""
        low, high, here = -math.inf, math.inf, start
        for _ in range(200):
            _, slopes, curves = self.parts(np.full(self.count, here))
            slope, curve = float(slopes.sum()), float(curves.sum())
            low, high = (low, here) if slope > 0 else (here, high)
            there = here - slope / curve if curve > 0 else math.nan
            if not low <= there <= high:
                reach = max(abs(here), 1 / self.typical)
                ends = (max(low, here - 4 * reach), min(high, here + 4 * reach))
                there = (ends[0] + ends[1]) / 2 if slope else here
            if abs(there - here) <= 1e-12 * max(abs(there), 1e-3 / self.typical):
                return there
            here = there
        return here

    def _refuse_flat(self) -> None:
        if self.typical == 0:
            raise DataError(
                f"all images of each of {self.count} answers have the same score: every scale fits as well"
            )

    def _endless(self) -> int:
        """Return 1 where every answer has the highest score, -1 where the lowest, and else 0."""
        noise = _TINY * self.typical
        if all((own.max(axis=0) <= noise).all() for own in self.centred):
            return 1
        if all((own.min(axis=0) >= -noise).all() for own in self.centred):
            return -1
        return 0

    def _cut(self, column: NDArray[Any]) -> list[NDArray[Any]]:
        return np.split(column, np.cumsum([s.shape[1] for s, _ in self.blocks])[:-1])


def flat_choices(
    scores: Column, ranks: Column, offsets: Column
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Check flat scores and ranks of choices, and the offsets that cut them."""
    values, places = np.asarray(scores, dtype=np.float64), np.asarray(ranks, dtype=np.int64)
    bounds = np.asarray(offsets, dtype=np.int64)
    if values.shape != places.shape or values.ndim != 1:
        raise DataError(f"{values.shape} scores do not match {places.shape} ranks")
    sizes = np.diff(bounds)
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != len(values) or sizes.min() < 2:
        raise DataError(
            "the offsets do not cut the scores into choices between at least two images"
        )
    if not np.isfinite(values).all():
        raise DataError("a score is not a finite number")
    return values, places, bounds


def choice_blocks(
    values: Floats, places: NDArray[np.int64], bounds: NDArray[np.int64]
) -> Iterator[Block]:
    """Choices of each size: their rows, scores, and targets that share 1 among the images put first."""
    sizes = np.diff(bounds)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        flat = bounds[rows] + np.arange(size)[:, None]
        own = places[flat]
        best = (own == own.min(axis=0)).astype(np.float64)
        yield rows, values[flat], best / best.sum(axis=0)


def pair_blocks(left: Floats, right: Floats, won: Floats) -> list[Block]:
    """Duels as choices between two images."""
    rows = np.arange(len(won), dtype=np.int64)
    return [(rows, np.stack([left, right]), np.stack([won, 1 - won]))]


def decided(block: Block, human_ties: HumanTies) -> Block:
    """Keep the answers that count under the tie rule."""
    rows, values, targets = block
    if human_ties == "half":
        return block
    kept = targets.max(axis=0) == 1
    return rows[kept], values[:, kept], targets[:, kept]


def outcome_of(left: NDArray[np.int64], right: NDArray[np.int64]) -> Floats:
    """Return 1 where the left rank is better, 0 where the right one is, and 0.5 at a tie."""
    return np.where(left == right, 0.5, (left < right).astype(np.float64))


def compared_duels(
    places: NDArray[np.int64], bounds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Choice, first and second image of every duel in the order of `duels`, and which were answered.

    Who picks one of four leaves three images with equal ranks, and has not compared these.
    """
    choice, first, second = pair_index(np.diff(bounds))
    left, right = bounds[choice] + first, bounds[choice] + second
    best = np.minimum.reduceat(places, bounds[:-1])
    tied = (places[left] == places[right]) & (places[left] > best[choice])
    return choice, left, right, ~(tied & picks_of(places, bounds)[choice])


def picks_of(places: NDArray[np.int64], bounds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which choices tell a best from a rest and no more: no rank lies between the best and the last."""
    best, last = (ends.reduceat(places, bounds[:-1]) for ends in (np.minimum, np.maximum))
    owner = np.repeat(np.arange(len(best)), np.diff(bounds))
    between = (places > best[owner]) & (places < last[owner])
    return ~np.logical_or.reduceat(between, bounds[:-1])

"""Strengths from rankings and from picks of one among several: Plackett and Luce's model.

Sources: Luce (1959, "Individual Choice Behavior"); Plackett (1975, "The analysis of permutations"). Ties:
Firth, Kosmidis and Turner (2019, "Davidson-Luce model for multi-item choice with ties") and Efron (1977,
"The efficiency of Cox's likelihood function for censored data").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.accuracy import Groups
from palate.stats.intervals import Column
from palate.stats.rankings.connectivity import (
    Connectivity,
    connect,
    item_codes,
    only_used,
    refuse_many,
)
from palate.stats.rankings.duel_table import checked_weights
from palate.stats.rankings.likelihood import Codes, Floats, clusters_of
from palate.stats.rankings.order_likelihood import OrderLikelihood, Orders, OrderTies, Stages
from palate.stats.rankings.strengths import FitData, FitSettings, Strengths, fitted


@dataclass(frozen=True, slots=True)
class OrderSettings(FitSettings):
    """How rankings are fitted.

    `ties`: `davidson-luce` gives ties of every size that occurs a parameter, as Davidson does for
    duels; `efron` has none and takes tied items one after another, in no order. `last` says what
    equal ranks at the end mean: the items are `tied`, or their order is `open`, because nobody asked
    for it. `stages` counts only so many choices from the top: 1 for "pick the best", after which all
    order is open (None: all).
    """

    ties: OrderTies = "davidson-luce"
    last: Literal["tied", "open"] = "tied"
    stages: int | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        FitSettings.__post_init__(self)
        if self.stages is not None and self.stages < 1:
            raise DataError(f"{self.stages} stages of a ranking, expected at least 1")


def plackett_luce(
    items: Column,
    ranks: Column,
    offsets: Column,
    weights: Column | None = None,
    prompts: Column | None = None,
    people: Column | None = None,
    *,
    covariates: Mapping[str, Column] | None = None,
    settings: OrderSettings | None = None,
) -> Strengths:
    """Strengths of items from rankings; higher is better, and they sum to zero.

    `items` (labels) and `ranks` (lowest is best) are flat, and ranking i owns the entries
    `offsets[i]:offsets[i + 1]`, in the order shown; `weights`, `prompts` and `people` have one entry per
    ranking, and an unknown person (None, an empty text, a number below 0) is another one each time. A ranking need not hold all items, and may hold one twice. At each stage an item is
    chosen among those left with a probability proportional to exp(strength); a set of t tied
    items with one proportional to ν_t · exp(mean strength), in `davidson-luce`. `side` adds an
    effect to the item shown first. `covariates` have one value per entry ("style control"). Rankings that
    say nothing (one image, one item only, all order open) are left out and counted. The errors of the
    `model` take rankings for independent. Raises `DataError` where there is no finite maximum, in a
    sentence that names the items, unless a prior is set.
    """
    rules = settings or OrderSettings()
    table = _Rankings(items, ranks, offsets, rules)
    design, names, scales = table.design(covariates, rules)
    weight = checked_weights(weights, table.count)
    kept = table.told & (weight > 0)
    if not kept.any():
        raise DataError(f"none of {table.count} rankings says which of its items is better")
    orders, connectivity = table.orders(kept, weight, design)
    answers = FitData(
        model="Plackett-Luce",
        items=orders.items,
        clusters=clusters_of(prompts, people, kept),
        connectivity=connectivity,
        n_duels=table.duels(kept),
        n_choices=int(kept.sum()),
        left_out=int((~kept).sum()),
        rule=_rule(rules),
        scales=scales,
    )
    return fitted(OrderLikelihood(orders, names, rules.ties), answers, rules)


def top1_choices(
    items: Column,
    ranks: Column,
    offsets: Column,
    weights: Column | None = None,
    prompts: Column | None = None,
    people: Column | None = None,
    *,
    settings: OrderSettings | None = None,
) -> Strengths:
    """Strengths of items from picks of the best among several: the first stage of Plackett and Luce.

    Picking one of four is ranks (2, 1, 2, 2); which of the others is better stays open. Columns are those
    of `plackett_luce`. A choice whose images all tie picks nothing and is left out.
    """
    rules = settings or OrderSettings()
    told = {name: getattr(rules, name) for name in ("side", "prior", "errors", "level", "ties")}
    only = OrderSettings(**told, last="open", stages=1)
    return plackett_luce(items, ranks, offsets, weights, prompts, people, settings=only)


def _rule(settings: OrderSettings) -> str:
    ties = {"davidson-luce": "ties by Davidson and Luce", "efron": "ties by Efron's rule"}
    parts = [ties[settings.ties]]
    if settings.stages is not None:
        parts.append(
            "the first choice only" if settings.stages == 1 else f"{settings.stages} choices"
        )
    elif settings.last == "open":
        parts.append("the order of the last is open")
    return ", ".join(parts)


class _Rankings:
    """Rankings in the order of their ranks, cut into blocks of equal ranks."""

    def __init__(
        self, items: Column, ranks: Column, offsets: Column, settings: OrderSettings
    ) -> None:
        groups = Groups(np.zeros(len(items)), ranks, offsets)
        self.labels, (codes,) = item_codes(items)
        self.starts, self.sizes, self.owner = groups.starts, groups.sizes, groups.owner
        self.count = len(groups.sizes)
        # Position of the k-th best entry; within equal ranks the order shown is kept, which means nothing.
        self.order: Codes = np.lexsort((groups.ranks, self.owner)).astype(np.int64)
        self.codes = codes[self.order]
        sorted_ranks = groups.ranks[self.order]
        fresh = np.ones(len(codes), dtype=bool)
        fresh[1:] = (sorted_ranks[1:] != sorted_ranks[:-1]) | (self.owner[1:] != self.owner[:-1])
        number = np.cumsum(fresh) - 1
        block = number - number[self.starts][self.owner]
        if settings.stages is not None:
            block = np.minimum(block, settings.stages)
        self.block: Codes = block.astype(np.int64)
        last = self.block[self.starts + self.sizes - 1][self.owner]
        self.open: NDArray[np.bool_] = (settings.last == "open") & (self.block == last)
        if settings.stages is not None:
            self.open |= self.block == settings.stages
        different = np.maximum.reduceat(self.codes, self.starts) > np.minimum.reduceat(
            self.codes, self.starts
        )
        self.told: NDArray[np.bool_] = different & ~self.open[self.starts]

    def design(
        self, covariates: Mapping[str, Column] | None, settings: OrderSettings
    ) -> tuple[Floats | None, tuple[str, ...], Floats]:
        """Columns of side and covariates in the sorted order; their names and divisors."""
        names, columns = [], []
        if settings.side:
            first = np.zeros(len(self.codes))
            first[self.starts] = 1.0
            names.append("side")
            columns.append(first[self.order])
        for name, column in (covariates or {}).items():
            values = np.asarray(column, dtype=np.float64)
            if values.shape != self.codes.shape or not np.isfinite(values).all():
                raise DataError(
                    f"covariate {name!r} of {values.shape}, expected a finite number for each of "
                    f"{len(self.codes)} entries"
                )
            names.append(str(name))
            columns.append(values[self.order])
        if not columns:
            return None, (), np.ones(0)
        design = np.stack(columns, axis=1)
        # Only differences within a ranking count, so columns are centred before they are scaled.
        means = np.add.reduceat(design, self.starts, axis=0) / self.sizes[:, None]
        design = design - means[self.owner]
        scales = np.sqrt((design**2).mean(axis=0))
        if (scales < 1e-12).any():
            name = names[int(np.argmin(scales))]
            raise DataError(f"covariate {name!r} is the same for all items of every ranking")
        return design / scales, tuple(names), scales

    def orders(
        self, kept: NDArray[np.bool_], weight: Floats, design: Floats | None
    ) -> tuple[Orders, Connectivity]:
        """The rankings that are kept, with their stages, and how they tie the items together."""
        rows = kept[self.owner]
        items, (codes,) = only_used(self.labels, self.codes[rows])
        refuse_many(items)
        owner = (np.cumsum(kept) - 1)[self.owner[rows]]
        block, opened = self.block[rows], self.open[rows]
        orders = Orders(
            items=items,
            codes=codes,
            owner=owner,
            weight=weight[kept],
            design=None if design is None else design[rows],
            stages=tuple(_stages(owner, block, opened)),
        )
        return orders, connect(items, *_edges(codes, owner, block, opened))

    def duels(self, kept: NDArray[np.bool_]) -> int:
        """How many pairs of different items have an answer, ties included."""
        rows = np.flatnonzero(kept[self.owner])
        total = int((self.sizes[kept] * (self.sizes[kept] - 1) // 2).sum())
        own = self.owner[rows]
        for key in (own * len(self.labels) + self.codes[rows], own[self.open[rows]]):
            total -= _pairs_of(key)
        # Pairs of one item inside an open block were taken off twice.
        inside = rows[self.open[rows]]
        return total + _pairs_of(self.owner[inside] * len(self.labels) + self.codes[inside])


def _pairs_of(keys: Codes) -> int:
    counts = np.unique(keys, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _stages(owner: Codes, block: Codes, opened: NDArray[np.bool_]) -> list[Stages]:
    """Stages by the number of items left and chosen; a last item alone is no choice."""
    size = np.bincount(owner)
    end = np.cumsum(size)[owner]
    place = np.arange(len(owner))
    left = end - place
    head = np.ones(len(owner), dtype=bool)
    head[1:] = (block[1:] != block[:-1]) | (owner[1:] != owner[:-1])
    heads = np.flatnonzero(head)
    chosen = np.diff(np.append(heads, len(owner)))
    real = ~opened[heads] & (left[heads] > 1)
    heads, chosen = heads[real], chosen[real]
    found = []
    wide = int(size.max()) + 1
    kinds = left[heads] * wide + chosen
    for kind in np.unique(kinds).tolist():
        remaining, tied = divmod(kind, wide)
        begin = heads[kinds == kind]
        flat = begin[:, None] + np.arange(remaining)
        found.append(Stages(flat.astype(np.int64), tied, owner[begin]))
    return found


def _edges(
    codes: Codes, owner: Codes, block: Codes, opened: NDArray[np.bool_]
) -> tuple[Codes, Codes]:
    """Pairs (better, worse) that reach as far as all pairs would; ties stand there both ways."""
    there = np.flatnonzero((owner[1:] == owner[:-1]) & ~opened[1:])
    tied = there[block[there] == block[there + 1]]
    better = [codes[there], codes[tied + 1]]
    worse = [codes[there + 1], codes[tied]]
    # Whoever is last in no order stands below the one before them all.
    below = np.flatnonzero(opened)
    first = np.zeros(len(codes), dtype=bool)
    first[1:] = opened[1:] & (~opened[:-1] | (owner[1:] != owner[:-1]))
    above = np.flatnonzero(first)[np.cumsum(first)[below] - 1] - 1
    return np.concatenate([*better, codes[above]]), np.concatenate([*worse, codes[below]])

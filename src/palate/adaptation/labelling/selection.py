"""The best of each prompt's images, by a softmax over them: the arithmetic of `label`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from palate.runs import seed_for

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Groups:
    """Scores sorted by prompt and, within it, by image key; one group of rows for each prompt."""

    images: list[str]
    prompts: list[str]
    values: Floats
    rows: Ints
    """Where each of them stands in the table that was grouped."""
    starts: Ints
    """The first row of each group."""
    sizes: Ints
    left_out: Ints
    """Rows of that table whose prompts have too few images; they are not among the rows here."""

    def number(self, rows: Ints) -> Ints:
        """Give the number of the group that each row belongs to."""
        return np.searchsorted(self.starts, rows, side="right") - 1


@dataclass(frozen=True, slots=True)
class Extreme:
    """The row with the highest logit of each group, and whether its probability was enough."""

    rows: Ints
    probability: Floats
    passed: Bools


def group_rows(scores: Any, min_images: int) -> Groups:
    """Sort scores into prompts, and leave out the prompts with fewer than ``min_images``."""
    keys = [("prompt", "ascending"), ("image", "ascending")]
    order = pc.sort_indices(scores, sort_keys=keys).to_numpy().astype(np.int64)
    ordered = scores.select(["prompt", "image", "value"]).take(order)
    codes = pc.rank(ordered["prompt"], tiebreaker="dense") if len(ordered) else []
    codes = np.asarray(codes, dtype=np.int64)
    _, counts = np.unique(codes, return_counts=True)
    large = np.repeat(counts >= min_images, counts)
    kept = ordered.take(np.flatnonzero(large))
    sizes = counts[counts >= min_images].astype(np.int64)
    return Groups(
        images=kept["image"].to_pylist(),
        prompts=kept["prompt"].to_pylist(),
        values=kept["value"].to_numpy().astype(np.float64),
        rows=order[large],
        starts=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)[: len(sizes)],
        sizes=sizes,
        left_out=order[~large],
    )


def pick_extreme(
    groups: Groups, logits: Floats, alpha: float, nearest: int | None = None
) -> Extreme:
    """Pick each group's highest logit; it passes if ``softmax(logits) > alpha / n``, strictly.

    The softmax is over all n logits of the group, as in HPS's `select_training_images.py`; with
    ``nearest`` = m, over the m highest of them, and the threshold is alpha / m. For the worst image,
    pass the negated logits. Ties go to the first row of the group, which is the smallest image key.
    """
    if not len(groups.sizes):
        nothing = np.zeros(0)
        return Extreme(nothing.astype(np.int64), nothing, nothing.astype(bool))
    group = np.repeat(np.arange(len(groups.sizes)), groups.sizes)
    top = np.maximum.reduceat(logits, groups.starts)
    weights, compared = np.exp(logits - top[group]), groups.sizes
    if nearest is not None:
        order = np.lexsort((-logits, group))
        place = np.arange(len(logits)) - groups.starts[group]
        weights = np.where(place < nearest, weights[order], 0.0)
        compared = np.minimum(groups.sizes, nearest)
    total = np.add.reduceat(weights, groups.starts)
    candidates = np.flatnonzero(logits == top[group])
    _, first = np.unique(group[candidates], return_index=True)
    probability = 1.0 / total
    return Extreme(candidates[first], probability, probability > alpha / compared)


def draw(images: list[str], share: float, seed: int, role: str) -> Ints:
    """Draw a share of images; give the places of those that stay, in their order.

    Each image's place in the draw comes from the seed, the role and its own key, so the order of the
    images is nothing, and a larger share keeps what a smaller one keeps.
    """
    keep = round(share * len(images))
    if keep == len(images):
        return np.arange(keep)
    places = [seed_for("label", seed, role, image) for image in images]
    return np.sort(np.argsort(places, kind="stable")[:keep])

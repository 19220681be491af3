"""The best of each prompt's images, by a softmax over them: the arithmetic of `label`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Groups:
    """Scores sorted by prompt and, within it, by image key; one group of rows for each prompt."""

    images: list[str]
    prompts: list[str]
    values: Floats
    starts: Ints
    """The first row of each group."""
    sizes: Ints
    left_out: int
    """Rows of prompts with too few images; they are not among the rows here."""


@dataclass(frozen=True, slots=True)
class Extreme:
    """The row with the highest logit of each group, and whether its probability was enough."""

    rows: Ints
    probability: Floats
    passed: Bools


def group_rows(scores: Any, min_images: int) -> Groups:
    """Sort scores into prompts, and leave out the prompts with fewer than ``min_images``."""
    ordered = scores.select(["prompt", "image", "value"]).sort_by(
        [("prompt", "ascending"), ("image", "ascending")]
    )
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
        starts=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)[: len(sizes)],
        sizes=sizes,
        left_out=len(ordered) - len(kept),
    )


def pick_extreme(groups: Groups, logits: Floats, alpha: float) -> Extreme:
    """Pick each group's highest logit; it passes if ``softmax(logits) > alpha / n``, strictly.

    The rule of HPS's `select_training_images.py`. For the worst image, pass the negated logits.
    Ties go to the first row of the group, which is the smallest image key.
    """
    if not len(groups.sizes):
        nothing = np.zeros(0)
        return Extreme(nothing.astype(np.int64), nothing, nothing.astype(bool))
    group = np.repeat(np.arange(len(groups.sizes)), groups.sizes)
    top = np.maximum.reduceat(logits, groups.starts)
    total = np.add.reduceat(np.exp(logits - top[group]), groups.starts)
    candidates = np.flatnonzero(logits == top[group])
    _, first = np.unique(group[candidates], return_index=True)
    probability = 1.0 / total
    return Extreme(candidates[first], probability, probability > alpha / groups.sizes)

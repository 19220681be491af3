"""How well a score orders the images of each choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.data.duels import pair_index
from palate.errors import DataError
from palate.stats.intervals import Average, Bootstrap, Column, Estimate, mean_estimate


@dataclass(frozen=True, slots=True)
class Correlation:
    """A mean rank correlation with its interval; `left_out` choices have none."""

    measure: str
    estimate: Estimate
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"measure": self.measure, **self.estimate.to_dict(), "left_out": self.left_out}


def kendall(
    scores: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Correlation:
    """Mean of Kendall's tau-b between scores and answers over the choices.

    1 is the person's order, -1 the reverse (Kendall 1945, ties in the denominator). `scores` and
    `ranks` are flat and `offsets` cuts them into choices; higher scores and lower ranks are
    better. Choices whose ranks or scores are all equal have no tau and are left out.
    """
    values, places = np.asarray(scores, dtype=np.float64), np.asarray(ranks)
    bounds = np.asarray(offsets, dtype=np.int64)
    if values.shape != places.shape or bounds[-1] != len(values):
        raise DataError(f"{values.shape} scores, {places.shape} ranks and the offsets do not match")
    if np.isnan(values).any():
        raise DataError("a score is not a number")
    sizes = np.diff(bounds)
    group, first, second = pair_index(sizes)
    left, right = bounds[group] + first, bounds[group] + second
    by_score = np.sign(values[left] - values[right])
    by_rank = np.sign(places[right].astype(np.int64) - places[left])
    count = len(sizes)
    agree = np.bincount(group, weights=by_score * by_rank, minlength=count)
    score_pairs = np.bincount(group, weights=by_score != 0, minlength=count)
    rank_pairs = np.bincount(group, weights=by_rank != 0, minlength=count)
    kept = (score_pairs > 0) & (rank_pairs > 0)
    if not kept.any():
        raise DataError(f"none of {count} choices has an order to correlate with")
    tau = agree[kept] / np.sqrt(score_pairs[kept] * rank_pairs[kept])
    labels = None if prompts is None else np.asarray(prompts)[kept]
    estimate = mean_estimate(tau, labels, average=average, bootstrap=bootstrap)
    return Correlation("Kendall tau-b", estimate, int((~kept).sum()))

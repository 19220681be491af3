"""From variances by prompt and by person to one standard error and an interval.

The formulas only, for one study or for an array of simulated ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
VARIANCES: Final = ("both", "prompts", "people", "answers")
"""The names of the variances that `jackknife_error` chooses from."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of a mean when whole clusters are left out, and how many clusters there were.

    `prompts`, `people` and `cells` are the variances by prompt, by person and by meeting of the
    two; a part that is not clustered by is 0 and its size infinite. The sizes are effective
    numbers: (sum of n)² over the sum of n², the plain number where all clusters are of one size.
    """

    prompts: float | Floats
    people: float | Floats
    cells: float | Floats
    prompt_size: float
    person_size: float
    cell_size: float


def sandwich_error(spread: Spread, prompts: int, people: int) -> tuple[float, float, str]:
    """Standard error, degrees of freedom and variance as Cameron, Gelbach and Miller combine them.

    V(prompts) + V(people) - V(prompts and people) where that is positive, else the larger of the
    first two; degrees of freedom are one less than the smaller number of clusters.
    """
    used = {}
    if math.isfinite(spread.prompt_size):
        used["prompts"] = float(spread.prompts), prompts
    if math.isfinite(spread.person_size):
        used["people"] = float(spread.people), people
    freedom = float(min(size for _, size in used.values()) - 1)
    both = float(spread.prompts + spread.people - spread.cells)
    if len(used) == 2 and both > 0:
        return math.sqrt(both), freedom, "both"
    largest = max(used, key=lambda name: used[name])
    return math.sqrt(used[largest][0]), freedom, largest


Floor = Literal["all", "smaller", "prompts"]
"""Which variances that of both ways together must not fall below."""


def jackknife_error(spread: Spread, floor: Floor = "all") -> tuple[Any, Any, Any]:
    """Standard error, degrees of freedom, and which variance is the largest (see `VARIANCES`).

    Parts of the spread may be arrays with one entry per simulated study, and so are the results.
    The variance is that of both ways together, or a larger floor: each way alone and independent
    answers (`all`), the smaller way alone (`smaller`: two samples that share prompts or people
    are less apart than independent answers), or prompts alone. Degrees of freedom are
    Satterthwaite's: V² over the sum of part² / (size - 1), and not below the smallest size minus
    one, nor below 1.
    """
    both = spread.prompts + spread.people - spread.cells
    floors = np.array(np.broadcast_arrays(spread.prompts, spread.people, spread.cells))
    sizes = (spread.prompt_size, spread.person_size, spread.cell_size)
    terms = sum(part**2 / (size - 1) for part, size in zip(floors, sizes, strict=True))
    if floor != "all":
        floors[2] = 0
    if math.isfinite(max(sizes[:2])):
        if floor == "smaller":
            floors[:2] = np.where(floors[:2] <= floors[:2].min(axis=0), floors[:2], 0)
        elif floor == "prompts":
            floors[1] = 0
    parts = np.concatenate([[both + 0 * floors[0]], floors])
    variance = parts.max(axis=0)
    least = max(min(sizes[:2]) - 1, 1.0)
    freedom = variance**2 / np.where(terms > 0, terms, np.inf)
    return np.sqrt(variance), np.maximum(freedom, least), parts.argmax(axis=0)


def wilson_bounds(value: Any, independent: Any, quantile: Any) -> tuple[Any, Any]:
    """Wilson's interval of a share worth so many independent answers, for a quantile of t."""
    weight = quantile**2 / independent
    middle = (value + weight / 2) / (1 + weight)
    half = np.sqrt(weight * (value * (1 - value) + weight / 4)) / (1 + weight)
    return middle - half, middle + half


def t_quantile(freedom: float, probability: float) -> float:
    """Quantile of Student's t; of the normal distribution for infinite degrees of freedom."""
    from scipy.special import ndtri, stdtrit

    if math.isinf(freedom):
        return float(ndtri(probability))
    return float(stdtrit(freedom, probability))

"""Each annotator on their own: how far they agree with the rest, and whether they favour a side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data.position import wilson
from palate.errors import DataError
from palate.stats.agreements.ceiling import MajorityTies, rest_credit
from palate.stats.agreements.units import Units
from palate.stats.intervals import Column, person_codes

__all__ = [
    "Annotator",
    "Annotators",
    "SideBias",
    "annotator_agreement",
    "side_bias",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Annotator:
    """How often one annotator gives the answer of the majority of the others.

    `name` is the label of the person, `clusters` the number of prompts (or items) answered. `outlier`
    is None for a person with too few answers to tell.
    """

    name: Any
    agreement: float
    low: float
    high: float
    answers: int
    clusters: int
    outlier: bool | None


@dataclass(frozen=True, slots=True)
class Annotators:
    """All annotators, those who agree least first, and the rule that names outliers.

    An outlier agrees less than `fence`: the first quartile of the people with at least
    `minimum_answers`, less `reach` times the distance between the quartiles. `fence` is not a number
    where there are fewer than four such people. `left_out` counts answers that could not be held
    against others, or whose author is unknown.
    """

    people: tuple[Annotator, ...]
    fence: float
    reach: float
    minimum_answers: int
    ties: str
    level: float
    left_out: int

    @property
    def outliers(self) -> tuple[Annotator, ...]:
        """The annotators who agree with the rest less than the rule allows."""
        return tuple(person for person in self.people if person.outlier)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not a number is None."""
        return {
            "people": [asdict(person) for person in self.people],
            "fence": None if np.isnan(self.fence) else self.fence,
            "rule": f"below the first quartile by more than {self.reach:g} interquartile ranges",
            "minimum_answers": self.minimum_answers,
            "ties": self.ties,
            "level": self.level,
            "left_out": self.left_out,
        }


def annotator_agreement(
    items: Column,
    values: Column,
    raters: Column,
    prompts: Column | None = None,
    *,
    ties: MajorityTies = "expected",
    reach: float = 1.5,
    minimum_answers: int = 10,
    level: float = 0.95,
) -> Annotators:
    """Agreement of each annotator with the majority of the others, and who falls out of line.

    The credit of an answer is that of `palate.stats.agreements.ceiling.one_person` against the rest. Intervals
    are Student's t on prompts (Wilson's, with prompts for trials, where a person's prompts show no
    spread; 0 to 1 for a single prompt). Outliers are those below Tukey's lower fence, the rule of
    pwcmp: first quartile - 1.5 (third - first). Who agrees more than the others is no outlier. Raises
    `DataError` where nobody is known by name.
    """
    units = Units.of(items, values, raters, prompts)
    if not units.known:
        raise DataError("no annotator is known by name")
    credit, kept = rest_credit(units, people="rest", ties=ties)
    kept &= units.person < units.known
    person, cluster = units.person[kept], units.cluster[units.item[kept]]
    shares, spreads, answers, clusters = _shares(person, cluster, credit[kept], units.known)
    enough = answers >= minimum_answers
    fence = np.nan
    if enough.sum() >= 4:
        first, third = np.quantile(shares[enough], [0.25, 0.75])
        fence = float(first - reach * (third - first))
    rows = []
    for k in np.flatnonzero(answers).tolist():
        low, high = _interval(float(shares[k]), float(spreads[k]), int(clusters[k]), level)
        odd = bool(shares[k] < fence) if enough[k] and not np.isnan(fence) else None
        name, share = units.names[k], float(shares[k])
        rows.append(Annotator(name, share, low, high, int(answers[k]), int(clusters[k]), odd))
    rows.sort(key=lambda row: (row.agreement, str(row.name)))
    lost = len(np.asarray(values)) - int(kept.sum())
    return Annotators(tuple(rows), fence, reach, minimum_answers, ties, level, lost)


@dataclass(frozen=True, slots=True)
class SideBias:
    """How often one annotator prefers the image shown first.

    `z` is the distance from one half in standard errors, `p_value` that of the exact two-sided
    binomial test, and `biased` whether z is beyond the limit.
    """

    name: Any
    first: float
    low: float
    high: float
    answers: int
    z: float
    p_value: float
    biased: bool


def side_bias(
    outcome: Column, raters: Column, *, limit: float = 3.0, level: float = 0.95
) -> tuple[SideBias, ...]:
    """Test of each annotator for a favourite side, the most one-sided first.

    `outcome` has one entry per choice between two images, in the order shown: 1 where the first is
    preferred, 0 where the second is, 0.5 for a tie, which says nothing here. z = (k - n/2) / sqrt(n/4),
    and |z| > 3 is the rule (`limit`). It needs sides that were balanced by design: where the better
    image stands first more often, an honest annotator looks biased. Unknown people are left out.
    """
    won: Any = np.asarray(outcome, dtype=np.float64)
    if not np.isin(won, (0.0, 0.5, 1.0)).all():
        raise DataError("an outcome is not 1, 0 or 0.5")
    person, names = person_codes(raters, len(won))
    use = (won != 0.5) & (person < len(names))
    counts = np.bincount(person[use], minlength=len(names))
    firsts = np.bincount(person[use], weights=won[use], minlength=len(names)).astype(np.int64)
    rows = [
        _side(name, int(firsts[k]), int(counts[k]), limit, level)
        for k, name in enumerate(names)
        if counts[k]
    ]
    return tuple(sorted(rows, key=lambda row: (-abs(row.z), str(row.name))))


def _side(name: Any, firsts: int, count: int, limit: float, level: float) -> SideBias:
    from scipy.special import bdtr

    z = (firsts - count / 2) / np.sqrt(count / 4)
    tail = float(bdtr(min(firsts, count - firsts), count, 0.5))
    low, high = wilson(float(firsts), count, level)
    return SideBias(
        name=name,
        first=firsts / count,
        low=low,
        high=high,
        answers=count,
        z=float(z),
        p_value=min(1.0, 2 * tail),
        biased=bool(abs(z) > limit),
    )


def _shares(person: Any, cluster: Any, credit: Floats, count: int) -> tuple[Any, Any, Any, Any]:
    """Share, standard error by cluster (CR1), answers and clusters of every person."""
    answers = np.bincount(person, minlength=count)
    shares = np.bincount(person, weights=credit, minlength=count) / np.maximum(answers, 1)
    width = int(cluster.max(initial=0)) + 1
    cells, which = np.unique(person * width + cluster, return_inverse=True)
    residuals = np.bincount(which, weights=credit - shares[person], minlength=len(cells))
    owner = cells // width
    clusters = np.bincount(owner, minlength=count)
    squares = np.bincount(owner, weights=residuals**2, minlength=count)
    spread = np.sqrt(squares * clusters / np.maximum(clusters - 1, 1)) / np.maximum(answers, 1)
    return shares, spread, answers, clusters


def _interval(share: float, spread: float, clusters: int, level: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    if clusters < 2:
        return 0.0, 1.0
    if spread < 1e-12:
        return wilson(share * clusters, clusters, level)
    half = float(stdtrit(clusters - 1, (1 + level) / 2)) * spread
    return max(0.0, share - half), min(1.0, share + half)

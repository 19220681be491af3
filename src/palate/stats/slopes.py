"""Does a covariate go along with who wins? Logit slopes whose errors allow for answers about one prompt.

The model is P(first wins) = logistic(slope · x + …), where x is the difference of a covariate between the two
images of a duel. Without an intercept, swapping the images of a duel changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.intervals import Column, cluster_codes, person_codes
from palate.stats.numbers import logistic

Floats = NDArray[np.float64]

LARGEST: Final = 12.0
"""A slope beyond this, for a typical difference, means that no finite slope fits best."""

_RIDGE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Slope:
    """Change of the log-odds of winning for one typical step of a covariate.

    `step` is that step in the covariate's own unit: its root mean square over the duels, or its standard
    deviation where there is an intercept. The interval is that of the sandwich over `clusters` (and over
    `people` where they are known, else 0) with the t quantile; it is None for one cluster, and where
    `separated` says that the covariate (or another regressor) decides every duel: the best slope is then
    infinite, and `value` only has its sign. `p_value` is that of the score test over the same clusters,
    which needs no finite slope.
    """

    value: float
    low: float | None
    high: float | None
    p_value: float
    step: float
    rows: int
    clusters: int
    people: int
    separated: bool
    level: float
    error: float | None

    @property
    def p_of_interval(self) -> float:
        """The p-value of 0 by the interval: below 1 - level exactly where it leaves 0 out.

        Where there is no interval it is that of the score test.
        """
        from scipy.special import stdtr

        if self.error is None:
            return self.p_value
        fewest = min(self.clusters, self.people or self.clusters)
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stdtr(fewest - 1, -abs(self.value) / self.error))

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0; where there is none, whether the test refuses 0 at its level."""
        if self.low is None or self.high is None:
            return self.separated and self.p_value < 1 - self.level
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def logit_slope(
    covariate: Column,
    outcome: Column,
    clusters: Column | None = None,
    *,
    people: Column | None = None,
    beside: Column | None = None,
    intercept: bool = False,
    level: float = 0.95,
) -> Slope:
    """Fit the slope of a covariate in a logit by maximum likelihood, with errors that allow for clusters.

    `covariate` and `outcome` (1, 0, or one half for a tie) have one value per row, and so has every column of
    `beside`, regressors that are held fixed (one, or rows × several). The variance is the sandwich A⁻¹ B A⁻¹
    with B = G / (G - 1) · Σ u u' over G clusters (CR1; Liang and Zeger 1986). Where two `people` or more are
    known it is V(clusters) + V(people) - V(both together), and not below one of the first two (Cameron,
    Gelbach and Miller 2011); degrees of freedom are the smaller number less one. The test is the score test
    with the same clusters: U / √Σ u², where u is a cluster's part of the slope of the likelihood at 0, less
    what the others explain (Boos 1992).
    Where the likelihood has no maximum, a ridge of 0.01 keeps the slope finite. Raises `DataError` where the
    covariate is the same in all rows, or is a combination of the others.
    """
    design, won, step = _design(covariate, outcome, beside, intercept=intercept)
    ways = _Ways.of(clusters, people, len(won))
    if np.linalg.matrix_rank(design.T @ design / len(won), tol=1e-10) < design.shape[1]:
        raise DataError("the covariate goes exactly along with the other regressors")
    slopes, separated = _fit(design, won)
    low, high, error = None, None, None
    if not separated and ways.fewest > 1:
        error = _error(design, won, ways, slopes)
        half = ways.quantile(level) * error
        low, high = float(slopes[0]) - half, float(slopes[0]) + half
    return Slope(
        value=float(slopes[0]),
        low=low,
        high=high,
        p_value=_score_test(design, won, ways),
        step=step,
        rows=len(won),
        clusters=ways.sizes[0],
        people=ways.sizes[1] if len(ways.sizes) > 1 else 0,
        separated=separated,
        level=level,
        error=error,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Ways:
    """The clusters of every row: by prompt, and where people are known by person and by both together."""

    codes: tuple[NDArray[np.int64], ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, clusters: Column | None, people: Column | None, count: int) -> _Ways:
        """Number the clusters; people count where two or more are known by name."""
        first = cluster_codes(clusters, count)
        person, known = person_codes(people, count)
        if people is None or len(known) < 2:
            return cls((first,), (len(np.unique(first)),))
        both = np.unique(first * (int(person.max()) + 1) + person, return_inverse=True)[1]
        codes = (first, np.unique(person, return_inverse=True)[1], both)
        return cls(codes, tuple(len(np.unique(one)) for one in codes))

    @property
    def fewest(self) -> int:
        """The smaller number of clusters."""
        return min(self.sizes[:2])

    def quantile(self, level: float) -> float:
        """Of Student's t, for half an interval."""
        from scipy.special import stdtrit

        return float(stdtrit(self.fewest - 1, (1 + level) / 2))

    def variance(self, parts: Floats, *, corrected: bool) -> float:
        """Variance of a sum of the parts of rows, not below that by prompts or by people alone."""
        found = []
        for codes, size in zip(self.codes, self.sizes, strict=True):
            factor = size / (size - 1) if corrected and size > 1 else 1.0
            found.append(factor * float((np.bincount(codes, weights=parts) ** 2).sum()))
        if len(found) == 1:
            return found[0]
        return max(found[0] + found[1] - found[2], *found[:2])


def holm(p_values: Column) -> Floats:
    """Adjust p-values for their number, so that one false find in all has at most their chance (Holm 1979).

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted


def _design(
    covariate: Column, outcome: Column, beside: Column | None, *, intercept: bool
) -> tuple[Floats, Floats, float]:
    """Regressors side by side, each by its typical size, the outcome, and the step of the covariate."""
    x, won = np.asarray(covariate, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    others = np.zeros((len(x), 0)) if beside is None else np.asarray(beside, dtype=np.float64)
    columns = [x, *(others.T if others.ndim > 1 else [others])]
    if any(column.shape != won.shape for column in columns) or won.ndim != 1 or not len(won):
        raise DataError(f"{x.shape} covariates do not match {won.shape} outcomes")
    if not all(np.isfinite(column).all() for column in columns):
        raise DataError("a covariate is not a finite number")
    if not ((won >= 0) & (won <= 1)).all():
        raise DataError("an outcome is not between 0 and 1")
    if intercept:
        columns = [column - column.mean() for column in columns]
    steps = [math.sqrt(float((column**2).mean())) for column in columns]
    if steps[0] <= 1e-12 * max(1.0, float(np.abs(x).max())):
        raise DataError("the covariate is the same in all rows")
    scaled = [column / step for column, step in zip(columns, steps, strict=True) if step > 0]
    if intercept:
        scaled.append(np.ones(len(won)))
    return np.stack(scaled, axis=1), won, steps[0]


def _fit(design: Floats, won: Floats) -> tuple[Floats, bool]:
    """Slopes of most likelihood, and whether they had to be kept finite by a ridge."""
    slopes = _newton(design, won, 0.0)
    if np.abs(slopes).max() <= LARGEST:
        return slopes, False
    return _newton(design, won, _RIDGE), True


def _newton(design: Floats, won: Floats, ridge: float) -> Floats:
    """Maximise the likelihood by Newton's steps, halved where they overshoot; stop where it has no maximum."""
    slopes = np.zeros(design.shape[1])
    best = _likelihood(design, won, slopes, ridge)
    for _ in range(100):
        said = logistic(design @ slopes)
        gradient = design.T @ (won - said) - ridge * slopes
        curvature = (design * (said * (1 - said))[:, None]).T @ design
        curvature += ridge * np.eye(len(slopes))
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        there = _likelihood(design, won, slopes + step, ridge)
        while there < best - 1e-12 * abs(best) and np.abs(step).max() > 1e-10:
            step /= 2
            there = _likelihood(design, won, slopes + step, ridge)
        slopes, best = slopes + step, there
        endless = not ridge and np.abs(slopes).max() > LARGEST
        if endless or np.abs(step).max() <= 1e-10:
            break
    return slopes


def _likelihood(design: Floats, won: Floats, slopes: Floats, ridge: float) -> float:
    logits = design @ slopes
    loss = np.logaddexp(0, logits) - won * logits
    return -float(loss.sum()) - ridge * float(slopes @ slopes) / 2


def _error(design: Floats, won: Floats, ways: _Ways, slopes: Floats) -> float:
    """Standard error of the first slope."""
    said = logistic(design @ slopes)
    inverse = np.linalg.inv((design * (said * (1 - said))[:, None]).T @ design)
    parts = (design @ inverse[0]) * (won - said)
    return math.sqrt(ways.variance(parts, corrected=True))


def _score_test(design: Floats, won: Floats, ways: _Ways) -> float:
    """p-value that the first slope is 0; 1 where nothing is left to test, or there is one cluster."""
    from scipy.special import stdtr

    others = design[:, 1:]
    x, said = design[:, 0], np.full(len(won), 0.5)
    if others.shape[1]:
        said = logistic(others @ _fit(others, won)[0])
        weight = said * (1 - said)
        inner = (others * weight[:, None]).T
        x = x - others @ np.linalg.lstsq(inner @ others, inner @ x, rcond=None)[0]
    parts = x * (won - said)
    spread = math.sqrt(ways.variance(parts, corrected=False))
    if ways.fewest < 2 or spread <= 1e-9 * math.sqrt(len(won)):
        return 1.0
    return float(2 * stdtr(ways.fewest - 1, -abs(float(parts.sum())) / spread))

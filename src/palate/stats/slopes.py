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
from palate.stats.intervals import Column, cluster_codes
from palate.stats.numbers import logistic

Floats = NDArray[np.float64]

LARGEST: Final = 12.0
"""A slope beyond this, for a typical difference, means that no finite slope fits best."""

_RIDGE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Slope:
    """Change of the log-odds of winning for one typical step of a covariate.

    `step` is that step in the covariate's own unit: its root mean square over the duels, or its standard
    deviation where there is an intercept. The interval is that of the sandwich over clusters with the t
    quantile; it is None for one cluster, and where `separated` says that the covariate (or another
    regressor) decides every duel: the best slope is then infinite, and `value` only has its sign.
    `p_value` is that of the score test over clusters, which needs no finite slope.
    """

    value: float
    low: float | None
    high: float | None
    p_value: float
    step: float
    rows: int
    clusters: int
    separated: bool
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def logit_slope(
    covariate: Column,
    outcome: Column,
    clusters: Column | None = None,
    *,
    beside: Column | None = None,
    intercept: bool = False,
    level: float = 0.95,
) -> Slope:
    """Fit the slope of a covariate in a logit by maximum likelihood, with errors that allow for clusters.

    `covariate` and `outcome` (1, 0, or one half for a tie) have one value per row, and so has `beside`, a
    second regressor that is held fixed. The variance is the sandwich A⁻¹ B A⁻¹ with B = G / (G - 1) · Σ u u'
    over G clusters (Liang and Zeger 1986). The test is the score test with the same clusters: U / √Σ u²,
    where u is a cluster's part of the slope of the likelihood at 0, less what the others explain (Boos 1992).
    Where the likelihood has no maximum, a ridge of 0.01 keeps the slope finite. Raises `DataError` where the
    covariate is the same in all rows, or is a combination of the others.
    """
    design, won, step = _design(covariate, outcome, beside, intercept=intercept)
    codes = cluster_codes(clusters, len(won))
    if np.linalg.matrix_rank(design.T @ design / len(won), tol=1e-10) < design.shape[1]:
        raise DataError("the covariate goes exactly along with the other regressors")
    slopes, separated = _fit(design, won)
    total = int((np.bincount(codes) > 0).sum())
    low, high = None, None
    if not separated and total > 1:
        half = _half_width(design, won, codes, slopes, level, total)
        low, high = float(slopes[0]) - half, float(slopes[0]) + half
    return Slope(
        value=float(slopes[0]),
        low=low,
        high=high,
        p_value=_score_test(design, won, codes, total),
        step=step,
        rows=len(won),
        clusters=total,
        separated=separated,
        level=level,
    )


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
    columns = [x] if beside is None else [x, np.asarray(beside, dtype=np.float64)]
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


def _half_width(
    design: Floats,
    won: Floats,
    codes: NDArray[np.int64],
    slopes: Floats,
    level: float,
    total: int,
) -> float:
    from scipy.special import stdtrit

    said = logistic(design @ slopes)
    inverse = np.linalg.inv((design * (said * (1 - said))[:, None]).T @ design)
    parts = design * (won - said)[:, None]
    sums = np.stack([np.bincount(codes, weights=column) for column in parts.T], axis=1)
    variance = inverse @ (sums.T @ sums) @ inverse * total / (total - 1)
    return float(stdtrit(total - 1, (1 + level) / 2)) * math.sqrt(float(variance[0, 0]))


def _score_test(design: Floats, won: Floats, codes: NDArray[np.int64], total: int) -> float:
    """p-value that the first slope is 0; 1 where nothing is left to test, or there is one cluster."""
    from scipy.special import stdtr

    others = design[:, 1:]
    x, said = design[:, 0], np.full(len(won), 0.5)
    if others.shape[1]:
        said = logistic(others @ _fit(others, won)[0])
        weight = said * (1 - said)
        inner = (others * weight[:, None]).T
        x = x - others @ np.linalg.lstsq(inner @ others, inner @ x, rcond=None)[0]
    sums = np.bincount(codes, weights=x * (won - said))
    spread = math.sqrt(float((sums**2).sum()))
    if total < 2 or spread <= 1e-9 * math.sqrt(len(won)):
        return 1.0
    return float(2 * stdtr(total - 1, -abs(float(sums.sum())) / spread))

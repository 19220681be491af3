"""How sure a mean, a share or a difference is when prompts and people both repeat.

Answers about one prompt are alike, and so are answers of one person. An interval that forgets
either is too short: with 20 people on 100 prompts the plain binomial one covers the truth half
the time. Sources: Cameron, Gelbach and Miller (2011, "Robust inference with multiway clustering");
MacKinnon, Nielsen and Webb (2024, on the jackknife for two ways of clustering); Owen (2007, "The
pigeonhole bootstrap"); Korn and Graubard (1998) for shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from palate.errors import DataError
from palate.stats.intervals import Average, Column, expanded_tail, refuse_resamples, wilson
from palate.stats.numbers import finite
from palate.stats.two_way.crossed import Crossed, Sample, crossed
from palate.stats.two_way.spread import (
    VARIANCES,
    Floor,
    jackknife_error,
    sandwich_error,
    t_quantile,
    wilson_bounds,
)

__all__ = [
    "ClusterSettings",
    "Clustered",
    "Comparison",
    "Decision",
    "Method",
    "Sample",
    "clustered_difference",
    "clustered_mean",
    "clustered_share",
    "compare_generators",
    "compare_scorers",
]

Method = Literal["jackknife", "sandwich", "bootstrap", "pigeonhole", "wilson"]
Decision = Literal["higher", "lower", "not separable"]


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How an interval is made: the method, its level, and the resamples of a bootstrap.

    `jackknife` (recommended) leaves out one prompt, or one person, at a time. `sandwich` is the
    textbook formula. `bootstrap` takes its shape from the pigeonhole bootstrap and its width from
    the jackknife; `pigeonhole` is the bare one, which counts the noise of single answers three
    times and is too wide. `wilson` takes answers for independent and accepts no clusters.
    """

    method: Method = "jackknife"
    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that give no interval."""
        if not 0 < self.level < 1:
            raise DataError(f"an interval of level {self.level}, expected between 0 and 1")
        refuse_resamples(self.resamples)


@dataclass(frozen=True, slots=True)
class Clustered:
    """A value with its interval, and how both were made.

    `error` is the standard error and `freedom` the degrees of freedom of Student's t. `low`,
    `high`, `error` and `freedom` are not a number where fewer than two clusters show no spread.
    `people` counts the unknown ones too, and is 0 where nobody is known. `clusters` names what was
    clustered by, `variance` which variance was the largest and so used ("both" ways, "prompts",
    "people", or single "answers"). `share` tells that the interval is
    Wilson's, at the number of independent answers that would have this error (`independent`).
    """

    value: float
    low: float
    high: float
    error: float
    freedom: float
    count: int
    prompts: int
    people: int
    unknown: int
    clusters: tuple[str, ...]
    variance: str
    independent: float
    share: bool
    average: Average
    settings: ClusterSettings

    def p_value(self, null: float) -> float:
        """Two-sided p-value of the hypothesis that the true value is `null`.

        It is below 1 - level exactly where the interval leaves `null` out. Not a number for the
        two bootstraps, and where the interval is.
        """
        from scipy.special import ndtr, stdtr

        if self.settings.method in {"bootstrap", "pigeonhole"} or math.isnan(self.error):
            return math.nan
        spread = self.error
        if self.share and 0 < null < 1:
            spread = math.sqrt(null * (1 - null) / self.independent)
        gap = abs(self.value - null)
        if spread == 0:
            return 1.0 if gap == 0 else 0.0
        if math.isinf(self.freedom):
            return float(2 * ndtr(-gap / spread))
        return float(2 * stdtr(self.freedom, -gap / spread))

    def decision(self, null: float) -> Decision:
        """Whether the value is higher or lower than `null`, or cannot be told from it."""
        if self.low > null:
            return "higher"
        return "lower" if self.high < null else "not separable"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not a number is None."""
        drawn = self.settings.method in {"bootstrap", "pigeonhole"}
        numbers = ("value", "low", "high", "error", "freedom")
        counts = ("count", "prompts", "people", "unknown")
        return {
            **{name: finite(getattr(self, name)) for name in numbers},
            **{name: getattr(self, name) for name in counts},
            "clusters": list(self.clusters),
            "variance": self.variance,
            "average": self.average,
            "method": self.settings.method,
            "level": self.settings.level,
            "resamples": self.settings.resamples if drawn else None,
            "seed": self.settings.seed if drawn else None,
        }


def clustered_mean(
    values: Column,
    prompts: Column | None = None,
    people: Column | None = None,
    *,
    average: Average = "micro",
    settings: ClusterSettings | None = None,
) -> Clustered:
    """Mean of values, with an interval that holds for other prompts and other people.

    Every row has a number, the label of its prompt and that of its person. Either may be missing:
    without both the rows are independent, with one the clustering is one-way. Unknown people
    (None, an empty text) are each another person; if all are unknown, or all answers are of one
    person, only prompts count. `micro` averages the rows, `macro` the means of prompts.

    The variance is V = V(prompts) + V(people) - V(prompts and people), and never below one of the
    three. Degrees of freedom are Satterthwaite's over effective numbers of clusters, at least
    the smaller of these minus one. `sandwich` differs: V where it is positive and else the larger
    one-way variance, with min(prompts, people) - 1 degrees. Where all values are equal the interval has
    no width. Raises `DataError` for no rows and for values that are no numbers.
    """
    table = crossed([Sample(values, prompts, people)], [1.0], average)
    return _estimate(table, average, settings or ClusterSettings(), "mean")


def clustered_share(
    values: Column,
    prompts: Column | None = None,
    people: Column | None = None,
    *,
    average: Average = "micro",
    settings: ClusterSettings | None = None,
) -> Clustered:
    """Share, accuracy or win rate, with an interval that holds for other prompts and people.

    Values lie from 0 to 1: 1 for a win, 0 for a loss and 0.5 for a tie; leave a tie out to drop
    it, or give it 0 to count it as a loss. Clusters and variance are those of `clustered_mean`.
    The interval is Wilson's, with Student's t and the number of independent answers that would
    have the same variance (Korn and Graubard 1998): it stays within 0 and 1, keeps its tails equal
    near the ends, and where all answers agree takes every cluster of the scarcer kind for one
    answer. `sandwich` and `pigeonhole` are cut at 0 and 1 instead.
    """
    table = crossed([Sample(values, prompts, people)], [1.0], average)
    rows = np.asarray(values, dtype=np.float64)
    if rows.min() < 0 or rows.max() > 1:
        raise DataError(f"a share of values from {rows.min()} to {rows.max()}, expected 0 to 1")
    return _estimate(table, average, settings or ClusterSettings(), "share")


def clustered_difference(
    a: Sample,
    b: Sample,
    *,
    average: Average = "micro",
    settings: ClusterSettings | None = None,
) -> Clustered:
    """Difference mean(a) - mean(b) of two samples that may share prompts and people.

    The samples need no pairs and may differ in length. A prompt or a person in both moves both
    means, and is left out, or drawn again, in both at once. Clusters are those of `clustered_mean`
    and so is the variance, which only must not fall below the smaller one-way variance.
    """
    table = crossed([a, b], [1.0, -1.0], average)
    return _estimate(table, average, settings or ClusterSettings(), "difference")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two means, their difference a - b with its interval, and whether they can be told apart.

    `better` is "a", "b" or "not separable": the interval of the difference decides.
    """

    mean_a: float
    mean_b: float
    difference: Clustered
    p_value: float
    better: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "mean_a": self.mean_a,
            "mean_b": self.mean_b,
            "a_minus_b": self.difference.to_dict(),
            "p_value": finite(self.p_value),
            "better": self.better,
        }


def compare_scorers(
    a: Column,
    b: Column,
    prompts: Column | None = None,
    people: Column | None = None,
    *,
    average: Average = "micro",
    settings: ClusterSettings | None = None,
) -> Comparison:
    """Compare how often two scorers are right about the same choices.

    `a[i]` and `b[i]` are what each earned on choice i: 1 right, 0 wrong, between for a tie. Only
    choices on which they differ say anything, as in McNemar's test, but prompts and people may
    repeat. Higher is better.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise DataError(f"pairs of {left.shape} and {right.shape} values do not match")
    found = clustered_mean(left - right, prompts, people, average=average, settings=settings)
    means = [clustered_mean(side, prompts, people, average=average).value for side in (left, right)]
    return _compared(means, found)


def compare_generators(
    a: Sample, b: Sample, *, settings: ClusterSettings | None = None
) -> Comparison:
    """Compare scores or ratings of two generators' images on the same prompts.

    Each sample has a score per image (or a rating per image and person), the prompt, and the
    person if there is one. The value is the mean over prompts of the difference between the two
    means of a prompt, so every prompt has the same weight, whatever the number of its images. Only
    prompts that both have count: another set of prompts is another exam. Raises `DataError` where
    the two share no prompt.
    """
    if a.prompts is None or b.prompts is None:
        raise DataError("generators are compared on the same prompts: both samples need prompts")
    both = set(np.asarray(a.prompts).tolist()) & set(np.asarray(b.prompts).tolist())
    if not both:
        raise DataError("the two samples share no prompt")
    left, right = (_kept(sample, both) for sample in (a, b))
    table = crossed([left, right], [1.0, -1.0], "macro")
    found = _estimate(table, "macro", settings or ClusterSettings(), "generators")
    return _compared([float(mean) for mean in table.means], found)


def _kept(sample: Sample, prompts: set[Any]) -> Sample:
    labels = np.asarray(sample.prompts)
    kept = np.array([label in prompts for label in labels.tolist()], dtype=bool)
    people = None if sample.people is None else np.asarray(sample.people)[kept]
    return Sample(np.asarray(sample.values)[kept], labels[kept], people)


def _compared(means: list[float], difference: Clustered) -> Comparison:
    decided = difference.decision(0.0)
    better = {"higher": "a", "lower": "b"}.get(decided, decided)
    return Comparison(means[0], means[1], difference, difference.p_value(0.0), better)


_Kind = Literal["mean", "share", "difference", "generators"]
_FLOORS: Final[dict[_Kind, Floor]] = {
    "mean": "all",
    "share": "all",
    "difference": "smaller",
    "generators": "prompts",
}


def _estimate(
    table: Crossed, average: Average, settings: ClusterSettings, kind: _Kind
) -> Clustered:
    """The value of a table with the interval that the settings ask for."""
    named = (("prompts", table.by_prompts), ("people", table.by_people))
    clusters = tuple(name for name, used in named if used)
    certain = _certainty(table, settings.method, kind)
    # The textbook forms know no shares.
    wilsons = kind == "share" and settings.method in {"jackknife", "bootstrap", "wilson"}
    low, high = _bounds(table, certain, settings, share=wilsons)
    if kind == "share":
        low, high = (float(bound) for bound in np.clip((low, high), 0.0, 1.0))
    return Clustered(
        value=table.value,
        low=low,
        high=high,
        error=certain.error,
        freedom=certain.freedom,
        count=table.rows,
        prompts=table.prompts,
        people=table.people if table.known else 0,
        unknown=table.unknown,
        clusters=clusters,
        variance=certain.variance,
        independent=certain.independent,
        share=wilsons,
        average=average,
        settings=settings,
    )


@dataclass(frozen=True, slots=True)
class _Certainty:
    """Standard error, degrees of freedom, which variance it was, and the answers it is worth."""

    error: float
    freedom: float
    variance: str
    independent: float


def _certainty(table: Crossed, method: Method, kind: _Kind) -> _Certainty:
    if method == "wilson":
        if table.known or table.prompts < table.rows or kind != "share":
            raise DataError(
                "Wilson's interval is that of a share of independent answers: give it no clusters"
            )
        error = math.sqrt(table.value * (1 - table.value) / table.rows)
        return _Certainty(error, math.inf, "binomial", float(table.rows))
    if not (table.by_prompts or table.by_people):
        return _Certainty(math.nan, math.nan, "none", math.nan)
    if method == "sandwich":
        return _Certainty(*sandwich_error(table.sandwich(), table.prompts, table.people), math.nan)
    spread = table.jackknife()
    if kind == "generators":
        # What prompts add to the difference is theirs already; what people add does not need it.
        rest = table.levelled().jackknife()
        spread = replace(spread, people=rest.people, cells=rest.cells)
    error, freedom, which = (part.item() for part in jackknife_error(spread, _FLOORS[kind]))
    scarce = min(spread.prompt_size, spread.person_size)
    worth = table.value * (1 - table.value) / error**2 if error > 0 else 0.0
    return _Certainty(
        error,
        freedom,
        "none" if math.isnan(error) else VARIANCES[which],
        float(worth if worth > 0 else scarce),
    )


def _bounds(
    table: Crossed, certain: _Certainty, settings: ClusterSettings, *, share: bool
) -> tuple[float, float]:
    if math.isnan(certain.error):
        return math.nan, math.nan
    tail = (1 - settings.level) / 2
    value, quantile = table.value, t_quantile(certain.freedom, 1 - tail)
    if settings.method == "wilson":
        return wilson(float(table.sums.sum()), table.rows, settings.level)
    if settings.method in {"jackknife", "sandwich"} or (share and certain.error == 0):
        if share:
            low, high = wilson_bounds(value, certain.independent, quantile)
            return float(low), float(high)
        return value - quantile * certain.error, value + quantile * certain.error
    drawn = table.resampled(settings.resamples, settings.seed)
    drawn = drawn[np.isfinite(drawn)]
    if settings.method == "pigeonhole":
        # Hesterberg's wider tail for few clusters, as `mean_estimate` has it.
        used = ((table.prompts, table.by_prompts), (table.people, table.by_people))
        tail = expanded_tail(min(size for size, drawn in used if drawn), settings.level)
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return float(low), float(high)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    wanted = quantile * certain.error
    found = t_quantile(math.inf, 1 - tail) * float(drawn.std())
    scale = wanted / found if found > 0 else 0.0
    return value + scale * float(low - value), value + scale * float(high - value)

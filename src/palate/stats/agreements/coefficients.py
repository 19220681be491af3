"""How far people agree with each other, beyond chance or not, when not everybody answers everything.

Answers come in long form: the item, the person and the value of each. An item needs two values to say
anything about agreement; items with one are left out of everything and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.agreements.unit_intervals import interval_of
from palate.stats.agreements.units import Units, ratio
from palate.stats.intervals import Average, Bootstrap, Column, cluster_codes
from palate.stats.numbers import finite

__all__ = [
    "Coefficient",
    "Measure",
    "Scale",
    "Weights",
    "coefficient_of",
    "cohen_kappa",
    "fleiss_kappa",
    "gwet_ac1",
    "krippendorff_alpha",
    "percent_agreement",
]

Scale = Literal["nominal", "ordinal", "interval"]
Weights = Literal["none", "linear", "quadratic"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A coefficient of agreement with its interval, and what it was counted from.

    `value` is 1 where people agree fully. A coefficient corrected for chance is 0 where they agree as
    often as chance has it, and not a number (None in JSON) where everybody gave one and the same
    value: nothing then tells agreement from chance. `observed` and `expected` are the agreement found
    and that by chance; for alpha and Cohen's kappa the disagreements, as their equations count them.
    `items` counts those with two values or more, `left_out` the others, `values` the values in use,
    `raters` the known people, 0 where nobody is known. `two_way` tells that the interval holds for
    other people too.
    """

    measure: str
    value: float
    low: float
    high: float
    observed: float
    expected: float
    items: int
    left_out: int
    values: int
    raters: int
    categories: int
    clusters: int
    undefined_resamples: int
    two_way: bool
    bootstrap: Bootstrap

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not a number is None."""
        numbers = ("value", "low", "high", "observed", "expected")
        counts = ("items", "left_out", "values", "raters", "categories", "clusters")
        method = "bootstrap over items"
        if self.two_way:
            method += ", widened by a jackknife over people"
        return {
            "measure": self.measure,
            **{name: finite(getattr(self, name)) for name in numbers},
            **{name: getattr(self, name) for name in counts},
            "undefined_resamples": self.undefined_resamples,
            "two_way": self.two_way,
            "method": method,
            "level": self.bootstrap.level,
            "resamples": self.bootstrap.resamples,
            "seed": self.bootstrap.seed,
        }


def percent_agreement(
    items: Column,
    values: Column,
    raters: Column | None = None,
    *,
    clusters: Column | None = None,
    average: Average = "micro",
    two_way: bool = False,
    bootstrap: Bootstrap | None = None,
) -> Coefficient:
    """Share of pairs of people on the same item who gave the same value, from 0 to 1.

    `micro` counts all pairs alike, so that an item with many people weighs more; `macro` averages
    within each item first. Nothing is corrected for chance: with two answers to choose from, guessing
    gets one half (`expected` is what the shares of the values get). With everybody agreed it is 1.
    """
    units = Units.of(items, values, raters, clusters)
    places = ("agreeing", "pairs") if average == "micro" else ("agreement", "one")
    measure = Measure("percent agreement", places, "share", agreed_beside(_squares), _plain)
    return coefficient_of(units, measure, two_way=two_way, bootstrap=bootstrap)


def fleiss_kappa(
    items: Column,
    values: Column,
    raters: Column | None = None,
    *,
    clusters: Column | None = None,
    two_way: bool = False,
    bootstrap: Bootstrap | None = None,
) -> Coefficient:
    """Fleiss' kappa: agreement beyond that of people who draw values by their overall shares.

    kappa = (P - Pe) / (1 - Pe). P is the mean over items of the share of agreeing pairs, Pe the sum of
    the squares of the shares of the values, each the mean over items of its share in the item (Fleiss
    1971; for varying numbers of people Gwet 2014, "Handbook of inter-rater reliability", chapter 2,
    but items with a single value count nowhere here). Where everybody gave one value it is 0/0 and not
    a number. It collapses where one value is far more common than the others: read it next to
    `gwet_ac1` and `percent_agreement`.
    """
    units = Units.of(items, values, raters, clusters)
    parts = agreed_beside(_squares)
    measure = Measure("Fleiss' kappa", ("agreement", "one"), "share", parts, beyond_chance)
    return coefficient_of(units, measure, two_way=two_way, bootstrap=bootstrap)


def gwet_ac1(
    items: Column,
    values: Column,
    raters: Column | None = None,
    *,
    categories: int | None = None,
    clusters: Column | None = None,
    two_way: bool = False,
    bootstrap: Bootstrap | None = None,
) -> Coefficient:
    """Gwet's AC1: agreement beyond chance that stays steady where one value is far more common.

    AC1 = (P - Pe) / (1 - Pe) with P as in `fleiss_kappa` and Pe = sum of s (1 - s) / (q - 1) over the
    shares s of q values (Gwet 2008, "Computing inter-rater reliability and its variance in the
    presence of high agreement"). `categories` is q, the number of values that people could give (None:
    those that were given). Where everybody gave one value, Pe is 0 and AC1 is 1.
    """
    units = Units.of(items, values, raters, clusters)
    count = units.categories if categories is None else categories
    if count < units.categories:
        raise DataError(f"{count} categories, but {units.categories} different values were given")

    def chance_of(shares: Floats) -> Any:
        return (1 - _squares(shares)) / max(count - 1, 1)

    parts = agreed_beside(chance_of)
    measure = Measure("Gwet's AC1", ("agreement", "one"), "share", parts, beyond_chance)
    return coefficient_of(units, measure, two_way=two_way, bootstrap=bootstrap, categories=count)


def krippendorff_alpha(
    items: Column,
    values: Column,
    raters: Column | None = None,
    *,
    scale: Scale = "nominal",
    clusters: Column | None = None,
    two_way: bool = False,
    bootstrap: Bootstrap | None = None,
) -> Coefficient:
    """Krippendorff's alpha: 1 minus observed over expected disagreement, with values missing at will.

    alpha = 1 - Do / De, both the mean squared difference of two values: Do of two people on one item
    (an item with m values weighs m), De of any two of all n values (Krippendorff 2011, "Computing
    Krippendorff's alpha-reliability"). The difference is 0 or 1 on a `nominal` scale, that of the
    numbers on an `interval` scale, and on an `ordinal` one that of the middle ranks among all values.
    The sums over the coincidence matrix are taken in closed form, so a million values take seconds.
    Where all values are equal De is 0, and alpha is not a number: no value could have differed.
    Resamples keep the middle ranks of all data.
    """
    units = Units.of(items, values, raters, clusters, numbers=scale != "nominal")
    if scale == "ordinal":
        units = units.with_middle_ranks()
    places = ("disagreement", "size") if scale == "nominal" else ("spread", "size", "sum", "square")

    def disagreements(scalars: Floats, sums: Floats) -> tuple[Floats, Floats]:
        total = scalars[:, 1]
        if scale == "nominal":
            apart = total**2 - (sums**2).sum(axis=1)
        else:
            apart = 2 * (total * scalars[:, 3] - scalars[:, 2] ** 2)
            # what is left of rounding where all values are equal
            apart = np.where(apart < 1e-12 * total * np.maximum(scalars[:, 3], 1e-300), 0, apart)
        return ratio(scalars[:, 0], total), ratio(apart, total * (total - 1))

    kind: Literal["none", "count"] = "count" if scale == "nominal" else "none"
    name = f"Krippendorff's alpha, {scale}"
    measure = Measure(name, places, kind, disagreements, less_than_chance)
    return coefficient_of(units, measure, two_way=two_way, bootstrap=bootstrap)


def cohen_kappa(
    first: Column,
    second: Column,
    *,
    weights: Weights = "none",
    clusters: Column | None = None,
    bootstrap: Bootstrap | None = None,
) -> Coefficient:
    """Cohen's kappa of two people who answered the same items: `first[i]` and `second[i]`.

    kappa = 1 - Do / De: the share of items on which they differ over that of two people who draw
    values by their own shares (Cohen 1960). Weighted, a difference counts as the distance of the two
    values in sorted order, or its square (`linear`, `quadratic`; Cohen 1968). Where both gave one and
    the same value everywhere it is 0/0 and not a number; where each gave one value and the two
    differ, it is 0.
    """
    left, right = np.asarray(first), np.asarray(second)
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise DataError(f"{left.shape} and {right.shape} answers do not match, or there are none")
    count = len(left)
    codes = cluster_codes(np.concatenate([left, right]), 2 * count)
    groups = np.arange(count) if clusters is None else cluster_codes(clusters, count)
    items = np.tile(np.arange(count), 2)
    people = np.repeat([0, 1], count)
    units = Units.of(items, codes, people, np.tile(groups, 2), numbers=True)
    size = units.categories
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float64)
    apart = {"none": np.sign(apart), "linear": apart, "quadratic": apart**2}[weights]
    table = units.one_hot(codes[:count] * size + codes[count:], size * size)

    def parts(scalars: Floats, sums: Floats) -> tuple[Floats, Floats]:
        met = ratio(sums, scalars[:, :1]).reshape(len(sums), size, size)
        rows, columns = met.sum(axis=2), met.sum(axis=1)
        return (met * apart).sum(axis=(1, 2)), ((rows @ apart) * columns).sum(axis=1)

    name = "Cohen's kappa" if weights == "none" else f"Cohen's kappa, {weights}"
    measure = Measure(name, ("one",), table, parts, less_than_chance)
    return coefficient_of(units, measure, bootstrap=bootstrap)


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """How a coefficient is counted from sums over items, as `interval_of` takes them.

    `parts` gives what was observed and what chance has, and `value` the coefficient from these two.
    """

    name: str
    places: tuple[str, ...]
    kind: Any
    parts: Callable[[Floats, Floats], tuple[Floats, Floats]]
    value: Callable[[Floats, Floats], Floats]


def coefficient_of(
    units: Units,
    measure: Measure,
    *,
    two_way: bool = False,
    bootstrap: Bootstrap | None = None,
    categories: int | None = None,
) -> Coefficient:
    """Count a coefficient with its interval."""

    def statistic(scalars: Floats, sums: Floats) -> Floats:
        return measure.value(*measure.parts(scalars, sums))

    found = interval_of(
        units, measure.places, measure.kind, statistic, two_way=two_way, bootstrap=bootstrap
    )
    observed, expected = measure.parts(*units.totals(measure.places, measure.kind))
    return Coefficient(
        measure=measure.name,
        value=found.value,
        low=found.low,
        high=found.high,
        observed=float(observed[0]),
        expected=float(expected[0]),
        items=len(units.sizes),
        left_out=units.left_out,
        values=len(units.code),
        raters=units.known,
        categories=units.categories if categories is None else categories,
        clusters=found.clusters,
        undefined_resamples=found.undefined,
        two_way=two_way,
        bootstrap=bootstrap or Bootstrap(),
    )


def agreed_beside(
    chance: Callable[[Floats], Floats],
) -> Callable[[Floats, Floats], tuple[Floats, Floats]]:
    """The agreement found, and the `chance` that the shares of the values have."""

    def parts(scalars: Floats, sums: Floats) -> tuple[Floats, Floats]:
        shares = ratio(sums, sums.sum(axis=1, keepdims=True))
        return ratio(scalars[:, 0], scalars[:, 1]), chance(shares)

    return parts


def beyond_chance(observed: Floats, expected: Floats) -> Floats:
    """Agreement beyond chance, over all that there could be."""
    return ratio(observed - expected, 1 - expected)


def less_than_chance(observed: Floats, expected: Floats) -> Floats:
    """1 minus disagreement over that by chance."""
    return 1.0 - ratio(observed, expected)


def _plain(observed: Floats, _: Floats) -> Floats:
    return observed


def _squares(shares: Floats) -> Any:
    return (shares**2).sum(axis=-1)

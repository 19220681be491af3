"""Strengths of generators, images or tuning methods from choices: what every fit of them gives.

`bradley_terry` fits duels, `plackett_luce` rankings and picks of one among several, `separation`
says what may be printed as an order. A strength is a logarithm: the higher the better, and an item
with one unit more than another is preferred with odds of 2.718 to 1. There is no Elo: answers do not
come in an order that matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from palate.errors import DataError
from palate.stats.numbers import finite
from palate.stats.rankings.connectivity import Connectivity
from palate.stats.rankings.likelihood import (
    Clusters,
    Codes,
    Errors,
    Floats,
    Likelihood,
    chosen_errors,
    inverse,
    maximise,
    sandwich,
)

Model = Literal["Bradley-Terry", "Davidson", "Rao-Kupper", "Plackett-Luce"]


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How strengths are fitted and how sure they are said to be.

    `side` adds the advantage of the item shown first. `prior` is the number of pseudo-ties given
    to every item, spread evenly over the others (0: none): it makes every strength finite and pulls them
    together; it is not counted in the errors. `errors` are those of the `model` (independent
    answers), clustered by `prompts`, by `people` or `two-way`; `auto` takes all labels that are
    given and differ. `level` is that of the intervals.
    """

    side: bool = False
    prior: float = 0.0
    errors: Errors = "auto"
    level: float = 0.95

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not 0 < self.level < 1:
            raise DataError(f"an interval of level {self.level}, expected between 0 and 1")
        if not (self.prior >= 0 and math.isfinite(self.prior)):
            raise DataError(f"a prior of {self.prior} pseudo-ties, expected 0 or more")


@dataclass(frozen=True, slots=True)
class Effect:
    """A parameter beside the strengths, with its standard error and interval.

    Effects of the side and of covariates are on the scale of the strengths. Tie parameters are
    given as they stand in the equation (Davidson's ν, Rao and Kupper's θ); their interval is made on
    the logarithm. Error and bounds are not a number where a tie parameter lies on its bound because
    there are no ties.
    """

    name: str
    value: float
    error: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not finite is None."""
        return {
            "name": self.name,
            "value": self.value,
            "error": finite(self.error),
            "low": finite(self.low),
            "high": finite(self.high),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Strengths:
    """Strengths of items on a log scale (higher is better, their sum is zero), and how sure they are.

    `items` are in the order of their labels, not of their strengths: what may be said of the order is
    `palate.stats.rankings.separation`'s to say. `errors`, `low` and `high` are pointwise and about the mean
    of all items; `freedom` are the degrees of Student's t (infinite for the model's errors).
    Where items fall into groups that never met (possible with a prior only), `group` numbers them,
    strengths are comparable within a group only, the covariance is about the mean of the group, and
    errors are infinite. `ties` holds the tie parameters, `effects` those of side and covariates.
    `n_duels` counts pairs of different items with an answer (equal ranks included), `n_choices` the
    answers; `left_out` the answers that say nothing. `n_prompts` and `n_people` are 0 where not given.
    """

    model: Model
    items: tuple[Any, ...]
    strengths: Floats
    errors: Floats
    low: Floats
    high: Floats
    covariance: Floats
    group: Codes
    ties: tuple[Effect, ...]
    effects: tuple[Effect, ...]
    connectivity: Connectivity
    log_likelihood: float
    n_duels: int
    n_choices: int
    n_prompts: int
    n_people: int
    left_out: int
    method: str
    clustered: Errors
    freedom: float
    settings: FitSettings

    def __getitem__(self, item: Any) -> float:
        """The strength of an item by its label."""
        return float(self.strengths[self.place(item)])

    def place(self, item: Any) -> int:
        """Where an item stands in `items`."""
        try:
            return self.items.index(item)
        except ValueError:
            raise DataError(f"there is no item {item!r} among the {len(self.items)}") from None

    def difference_errors(self) -> Floats:
        """Standard error of every difference of two strengths: items × items.

        Infinite between items that never met, not even through others.
        """
        own = np.diag(self.covariance)
        squares = own[:, None] + own[None, :] - 2 * self.covariance
        found: Floats = np.sqrt(np.maximum(squares, 0.0))
        np.fill_diagonal(found, 0.0)
        found[self.group[:, None] != self.group[None, :]] = np.inf
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not finite is None."""
        rows = zip(self.items, self.strengths, self.errors, self.low, self.high, strict=True)
        return {
            "model": self.model,
            "method": self.method,
            "items": [
                {
                    "item": item,
                    "strength": float(strength),
                    "error": finite(error),
                    "low": finite(low),
                    "high": finite(high),
                }
                for item, strength, error, low, high in rows
            ],
            "covariance": self.covariance.tolist(),
            "ties": [effect.to_dict() for effect in self.ties],
            "effects": [effect.to_dict() for effect in self.effects],
            "connectivity": self.connectivity.to_dict(),
            "log_likelihood": self.log_likelihood,
            "n_duels": self.n_duels,
            "n_choices": self.n_choices,
            "n_prompts": self.n_prompts,
            "n_people": self.n_people,
            "left_out": self.left_out,
            "errors": self.clustered,
            "freedom": finite(self.freedom),
            "level": self.settings.level,
            "prior": self.settings.prior,
            "side": self.settings.side,
        }


@dataclass(frozen=True, slots=True, eq=False)
class FitData:
    """What a fit is made of, beside its likelihood: items, clusters, counts and a name."""

    model: Model
    items: tuple[Any, ...]
    clusters: Clusters
    connectivity: Connectivity
    n_duels: int
    n_choices: int
    left_out: int
    rule: str
    scales: Floats
    """What each effect was divided by, so that Newton's method meets numbers of one size."""


def fitted(likelihood: Likelihood, answers: FitData, settings: FitSettings) -> Strengths:
    """Fit a likelihood and say how sure its strengths are. Raises `DataError` without a maximum."""
    if not answers.connectivity.connected and settings.prior == 0:
        raise DataError(
            f"no finite strengths: {answers.connectivity.sentence()}; give a prior, or leave items out"
        )
    found = maximise(likelihood, settings.prior)
    groups = likelihood.met()
    bread = inverse(found, groups, likelihood.names)
    kind = chosen_errors(settings.errors, answers.clusters)
    covariance = bread
    if kind != "model":
        covariance = sandwich(bread, likelihood.scores(found.theta), answers.clusters, kind)
    freedom = _freedom(answers.clusters, kind)
    count, width = len(answers.items), quantile(settings.level, freedom)
    theta = found.theta.copy()
    theta[:count] -= theta[:count].mean()
    apart = len(np.unique(groups)) > 1
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    own = np.full(count, np.inf) if apart else errors[:count]
    return Strengths(
        model=answers.model,
        items=answers.items,
        strengths=theta[:count],
        errors=own,
        low=theta[:count] - width * own,
        high=theta[:count] + width * own,
        covariance=covariance[:count, :count],
        group=groups,
        ties=_ties(likelihood, theta, errors, width),
        effects=_effects(likelihood, theta, errors, (answers.scales, width)),
        connectivity=answers.connectivity,
        log_likelihood=found.value,
        n_duels=answers.n_duels,
        n_choices=answers.n_choices,
        n_prompts=answers.clusters.size("prompts"),
        n_people=answers.clusters.size("people"),
        left_out=answers.left_out,
        method=_method(answers, settings, kind),
        clustered=kind,
        freedom=freedom,
        settings=settings,
    )


def _freedom(clusters: Clusters, kind: Errors) -> float:
    """Degrees of freedom: the smaller number of clusters, minus one."""
    if kind == "model":
        return math.inf
    kinds: list[Literal["prompts", "people"]] = ["prompts", "people"]
    used = [clusters.size(one) for one in kinds if kind in {one, "two-way"}]
    return float(min(used) - 1)


def quantile(level: float, freedom: float) -> float:
    """How many standard errors make half an interval: of Student's t, or normal without a limit."""
    from scipy.special import ndtri, stdtrit

    tail = (1 + level) / 2
    return float(ndtri(tail) if math.isinf(freedom) else stdtrit(freedom, tail))


def _ties(
    likelihood: Likelihood, theta: Floats, errors: Floats, width: float
) -> tuple[Effect, ...]:
    found = []
    for place in range(len(theta) - likelihood.tie_count, len(theta)):
        value, error = math.exp(theta[place]), float(errors[place])
        low, high = value * math.exp(-width * error), value * math.exp(width * error)
        found.append(Effect(likelihood.names[place], value, value * error, low, high))
    return tuple(found)


def _effects(
    likelihood: Likelihood, theta: Floats, errors: Floats, options: tuple[Floats, float]
) -> tuple[Effect, ...]:
    scales, width = options
    found = []
    for number, scale in enumerate(scales.tolist()):
        place = likelihood.items + number
        value, error = float(theta[place]) / scale, float(errors[place]) / scale
        bounds = (value - width * error, value + width * error)
        found.append(Effect(likelihood.names[place], value, error, *bounds))
    return tuple(found)


def _method(answers: FitData, settings: FitSettings, kind: Errors) -> str:
    parts = [answers.model, answers.rule]
    if settings.side:
        parts.append("with the side")
    if settings.prior:
        parts.append(f"prior of {settings.prior:g} pseudo-ties per item, not in the errors")
    told = {
        "model": "errors of the model",
        "prompts": "sandwich errors by prompts",
        "people": "sandwich errors by people",
        "two-way": "sandwich errors by prompts and people",
    }
    return ", ".join([*parts, told[kind]])

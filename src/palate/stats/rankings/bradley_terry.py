"""Strengths from duels: Bradley and Terry's model, with three ways to treat ties.

The difference of two strengths is the logarithm of the odds that one is preferred. Sources: Bradley and
Terry (1952); Davidson (1970, "On extending the Bradley-Terry model to accommodate ties"); Rao and Kupper
(1967, "Ties in paired-comparison experiments").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from palate.errors import DataError
from palate.stats.intervals import Column
from palate.stats.rankings.connectivity import Connectivity, ties_say_more
from palate.stats.rankings.duel_likelihood import TIE_NAMES, DuelLikelihood, DuelTies
from palate.stats.rankings.duel_table import DuelTable, duel_table
from palate.stats.rankings.likelihood import Floats, NoMaximumError, clusters_of
from palate.stats.rankings.strengths import Effect, FitData, FitSettings, Model, Strengths, fitted

_MODELS: Final[dict[str, tuple[Model, str]]] = {
    "half": ("Bradley-Terry", "a tie is half a win"),
    "drop": ("Bradley-Terry", "ties are left out"),
    "davidson": ("Davidson", "ties have a parameter"),
    "rao-kupper": ("Rao-Kupper", "ties have a threshold"),
}


@dataclass(frozen=True, slots=True)
class DuelSettings(FitSettings):
    """How duels are fitted; `ties` says what a tie means.

    `half`: half a win for each. `drop`: left out. `davidson`: P(tie) grows with a parameter ν, most
    between equals. `rao-kupper`: a difference below the threshold log θ is not seen.
    """

    ties: DuelTies = "half"


def bradley_terry(
    first: Column,
    second: Column,
    outcome: Column,
    weights: Column | None = None,
    prompts: Column | None = None,
    people: Column | None = None,
    *,
    covariates: Mapping[str, Column] | None = None,
    settings: DuelSettings | None = None,
) -> Strengths:
    """Strengths of items from duels; higher is better, and they sum to zero.

    One row per duel: the labels of the two items, `first` shown first (or left), and the `outcome`, 1
    where the first is better, 0 where the second is, 0.5 for a tie. A row counts `weights` times.
    With η = s(first) - s(second) + side + Σ effect · covariate:

    - half, drop: P(first) = 1 / (1 + exp(-η)); a tie is half a win and half a loss, or left out.
    - davidson: P(first) : P(tie) : P(second) = exp(η/2) : ν : exp(-η/2).
    - rao-kupper: P(first) = 1 / (1 + θ exp(-η)), P(second) = 1 / (1 + θ exp(η)), θ > 1.

    `covariates` are columns of differences, first minus second ("style control": prompt length,
    brightness); an effect is what one unit adds to η. `prompts` and `people` label the clusters
    of the errors; an unknown person (None, an empty text, a number below 0) is another one in each row. Duels taken from one ranking depend on each other: cluster them. Without ties ν is
    0 and θ is 1, as in Bradley and Terry's model. Raises `DataError` where strengths have no
    finite maximum, in a sentence that names the items, unless a prior is set.
    """
    rules = settings or DuelSettings()
    table = duel_table(first, second, outcome, weights, drop_ties=rules.ties == "drop")
    (model, rule), tie = _MODELS[rules.ties], TIE_NAMES.get(rules.ties)
    connectivity = table.connectivity()
    rated = tie is not None and _has_tie_parameter(table, connectivity, rules, covariates)
    design, names, scales = _design(table, rules, covariates)
    likelihood = DuelLikelihood(table, design, names, rules.ties if rated else "half")
    answers = FitData(
        model=model,
        items=table.items,
        clusters=clusters_of(prompts, people, table.kept),
        connectivity=connectivity,
        n_duels=len(table.first),
        n_choices=len(table.first),
        left_out=int((~table.kept).sum()),
        rule=rule,
        scales=scales,
    )
    found = fitted(likelihood, answers, rules)
    if tie is None or rated:
        return found
    bound = 0.0 if tie == "nu" else 1.0
    return replace(found, ties=(Effect(tie, bound, math.nan, math.nan, math.nan),))


def _has_tie_parameter(
    table: DuelTable,
    connectivity: Connectivity,
    settings: DuelSettings,
    covariates: Mapping[str, Column] | None,
) -> bool:
    """Whether there are ties to fit a parameter to; refuses those that give no finite one."""
    tied = table.outcome == 0.5
    if not tied.any():
        return False
    if tied.all():
        raise DataError(f"all {len(tied)} duels tie: a tie parameter has no finite maximum")
    free = settings.prior == 0 and connectivity.connected and not settings.side and not covariates
    pairs = table.pairs(tied=False), table.pairs(tied=True)
    if free and not ties_say_more(len(table.items), *pairs):
        raise NoMaximumError(
            "no finite maximum: wins never contradict each other beyond the ties, so that strengths "
            "and the tie parameter grow for ever; count ties half, or give a prior"
        )
    return True


def _design(
    table: DuelTable, settings: DuelSettings, covariates: Mapping[str, Column] | None
) -> tuple[Floats | None, tuple[str, ...], Floats]:
    """Columns of side and covariates, each divided by its root mean square; names and divisors."""
    names, columns = [], []
    if settings.side:
        names.append("side")
        columns.append(np.ones(len(table.first)))
    for name, column in (covariates or {}).items():
        values = np.asarray(column, dtype=np.float64)
        if values.shape != table.kept.shape:
            raise DataError(f"{len(table.kept)} duels but covariate {name!r} of {values.shape}")
        if not np.isfinite(values).all():
            raise DataError(f"covariate {name!r} holds a value that is not a finite number")
        if not values[table.kept].any():
            raise DataError(f"covariate {name!r} is 0 in every duel: it has no effect to find")
        names.append(str(name))
        columns.append(values[table.kept])
    if not columns:
        return None, (), np.ones(0)
    design = np.stack(columns, axis=1)
    scales = np.sqrt((design**2).mean(axis=0))
    return design / scales, tuple(names), scales

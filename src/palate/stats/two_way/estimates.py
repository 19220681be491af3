"""A share or a mean with the interval that its answers allow: by prompts and people where people are known.

One rule for every accuracy, so that no interval forgets that one person answered often, and none shrinks to a
point because a few answers agree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palate.errors import DataError
from palate.stats.intervals import Average, Bootstrap, Column, Estimate, mean_estimate, person_codes
from palate.stats.two_way.clusters import (
    Clustered,
    ClusterSettings,
    clustered_mean,
    clustered_share,
)

TWO_WAY = "jackknife over prompts and people"
AGREED = "Wilson's interval for one answer per cluster, as all answers agree"


def share_estimate(
    values: Column,
    prompts: Column | None = None,
    people: Column | None = None,
    *,
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Estimate:
    """Mean of values from 0 to 1, with an interval that holds for other prompts and, if known, other people.

    Where two people are known by name (labels that are neither None nor empty) the interval is that of
    `clustered_share`: the two-way jackknife in Wilson's form. Else it is that of `mean_estimate`, which
    resamples prompts; where all answers are right, or all are wrong, resampling would give a point, and the
    interval is Wilson's with Student's t for as many answers as there are clusters. Answers that
    are worth the same by a rule for ties keep their point.
    """
    found = mean_estimate(values, prompts, average=average, bootstrap=bootstrap, drawn=False)
    rows = np.asarray(values, dtype=np.float64)
    if rows.min() < 0 or rows.max() > 1:
        raise DataError(f"a share of values from {rows.min()} to {rows.max()}, expected 0 to 1")
    settings = ClusterSettings(level=found.bootstrap.level)
    agreed, known = rows.min() == rows.max(), _known(people)
    decided = not agreed or rows[0] in {0.0, 1.0}
    if decided and known > 1:
        its = clustered_share(rows, prompts, people, average=average, settings=settings)
        return _with(found, its, known, AGREED if agreed else TWO_WAY)
    if decided and agreed and found.clusters > 1:
        its = clustered_share(rows, prompts, average=average, settings=settings)
        return _with(found, its, 0, AGREED)
    return mean_estimate(values, prompts, average=average, bootstrap=bootstrap)


def signed_estimate(
    values: Column,
    prompts: Column | None = None,
    people: Column | None = None,
    *,
    average: Average = "micro",
    bootstrap: Bootstrap | None = None,
) -> Estimate:
    """The same for a mean of values from -1 to 1, such as correlations: `clustered_mean`, cut at both ends."""
    known = _known(people)
    if known < 2:
        return mean_estimate(values, prompts, average=average, bootstrap=bootstrap)
    found = mean_estimate(values, prompts, average=average, bootstrap=bootstrap, drawn=False)
    settings = ClusterSettings(level=found.bootstrap.level)
    its = clustered_mean(values, prompts, people, average=average, settings=settings)
    cut = replace(its, low=max(-1.0, its.low), high=min(1.0, its.high))
    return _with(found, cut, known, TWO_WAY)


def _with(found: Estimate, its: Clustered, people: int, method: str) -> Estimate:
    return replace(found, low=its.low, high=its.high, people=people, method=method)


def _known(people: Column | None) -> int:
    """How many different people are known by name."""
    return 0 if people is None else len(person_codes(people, len(people))[1])

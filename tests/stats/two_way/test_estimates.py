"""One interval for every accuracy: by people where they are known, and never a point because answers agree."""

from __future__ import annotations

import numpy as np
import pytest

from palate.errors import DataError
from palate.stats.intervals import RESAMPLED, Bootstrap, mean_estimate
from palate.stats.two_way.clusters import ClusterSettings, clustered_share
from palate.stats.two_way.estimates import AGREED, TWO_WAY, share_estimate, signed_estimate

QUICK = Bootstrap(resamples=200)


def answers(people=8, prompts=60, seed=0):
    rng = np.random.default_rng(seed)
    lean = rng.normal(0, 1.5, people)
    who = np.tile(np.arange(people), prompts)
    won = rng.random(len(who)) < 1 / (1 + np.exp(-lean[who]))
    return won * 1.0, np.repeat(np.arange(prompts), people), [f"x{k}" for k in who]


def test_people_who_differ_widen_the_interval_and_are_named() -> None:
    values, prompts, people = answers()
    alone = share_estimate(values, prompts, bootstrap=QUICK)
    both = share_estimate(values, prompts, people, bootstrap=QUICK)
    assert alone.to_dict() == mean_estimate(values, prompts, bootstrap=QUICK).to_dict()
    assert (alone.method, alone.people) == (RESAMPLED, 0)
    assert (both.method, both.people, both.value) == (TWO_WAY, 8, alone.value)
    assert both.high - both.low > 2 * (alone.high - alone.low)
    told = clustered_share(values, prompts, people, settings=ClusterSettings())
    assert (both.low, both.high) == (told.low, told.high)
    assert both.to_dict()["resamples"] is None


def test_unknown_people_change_nothing() -> None:
    values, prompts, _ = answers()
    nobody = share_estimate(values, prompts, [None] * len(values), bootstrap=QUICK)
    assert nobody.to_dict() == share_estimate(values, prompts, bootstrap=QUICK).to_dict()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("people", [None, ["a", "b", "c"] * 4])
def test_all_right_is_no_certainty(value, people) -> None:
    found = share_estimate([value] * 12, np.arange(12), people, bootstrap=QUICK)
    assert found.method == AGREED
    assert found.value == value
    assert 0.15 < found.high - found.low < 1
    fewer = share_estimate([value] * 6, np.arange(6), bootstrap=QUICK)
    assert fewer.high - fewer.low > share_estimate([value] * 12, bootstrap=QUICK).high - 0.95


def test_worth_fixed_by_a_rule_keeps_its_point() -> None:
    found = share_estimate([0.5] * 12, bootstrap=QUICK)
    assert (found.low, found.high, found.method) == (0.5, 0.5, RESAMPLED)


def test_signed_means_stay_within_their_bounds() -> None:
    values, prompts, people = answers(people=3, prompts=4)
    found = signed_estimate(2 * values - 1, prompts, people, bootstrap=QUICK)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.method == TWO_WAY


def test_what_is_no_share_is_refused() -> None:
    with pytest.raises(DataError, match=r"a share of values from 0\.0 to 2\.0"):
        share_estimate([0.0, 2.0])

"""One interval for every accuracy: by people where they are known, and never a point because answers agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 1.0]),
            st.sampled_from("abc"),
            st.sampled_from(["x", "y", "", None]),
        ),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from(["micro", "macro"]),
)
def test_nothing_is_drawn_where_the_interval_is_another(triples, average) -> None:
    values, prompts, people = (list(column) for column in zip(*triples, strict=True))
    found = share_estimate(values, prompts, people, average=average, bootstrap=QUICK)
    drawn = mean_estimate(values, prompts, average=average, bootstrap=QUICK)
    known, agreed = len({who for who in people if who}), len(set(values)) == 1
    options = {"average": average, "settings": ClusterSettings()}
    its, method = drawn, RESAMPLED
    if values[0] != 0.5 or not agreed:
        if known > 1:
            its = clustered_share(values, prompts, people, **options)
            method = AGREED if agreed else TWO_WAY
        elif agreed and len(set(prompts)) > 1:
            its, method = clustered_share(values, prompts, **options), AGREED
    bounds = (found.value, found.low, found.high)
    assert np.array_equal(bounds, (drawn.value, its.low, its.high), equal_nan=True)
    assert (found.method, found.clusters) == (method, drawn.clusters)
    assert found.people == (known if its is not drawn and known > 1 else 0)
    without = mean_estimate(values, prompts, average=average, bootstrap=QUICK, drawn=False)
    assert np.isnan([without.low, without.high]).all()

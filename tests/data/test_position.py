"""Position bias is counted as the accuracies of `palate.stats` count it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from palate_strategies import choices
from scipy.stats import chisquare

from palate.data.position import position_bias, share
from palate.data.records import Choice, pick_ranks
from palate.data.tables import to_table
from palate.stats.accuracy import chance_top1, top1
from palate.stats.intervals import Bootstrap, wilson


@given(st.lists(choices(rank=3, max_images=4), max_size=8))
def test_the_audit_and_the_statistics_agree(rows: list[Choice]) -> None:
    found = position_bias(to_table(rows, "choices"))
    if not any(len(set(row.ranks)) > 1 for row in rows):
        assert found is None
        return
    ranks = [rank for row in rows for rank in row.ranks]
    offsets = [0, *itertools.accumulate(len(row.ranks) for row in rows)]
    assert found is not None
    assert found.chance == pytest.approx(chance_top1(ranks, offsets))
    places = np.arange(len(ranks))
    for scores, counted in ((-places, found.always_first), (places, found.always_last)):
        other = top1(scores, ranks, offsets, bootstrap=Bootstrap(resamples=100))
        assert counted.value == pytest.approx(other.value)


@given(st.lists(choices(rank=3, max_images=4), min_size=1, max_size=8))
def test_the_places_are_counted_one_by_one(rows: list[Choice]) -> None:
    found = position_bias(to_table(rows, "choices"))
    for slots in () if found is None else found.sizes:
        own = [row for row in rows if len(row.images) == slots.size]
        single = [
            row.ranks.index(min(row.ranks)) for row in own if row.ranks.count(min(row.ranks)) == 1
        ]
        assert slots.counts == tuple(single.count(place) for place in range(slots.size))
        assert slots.choices + slots.ties == len(own)


def picks(places: list[int], size: int = 4) -> list[Choice]:
    keys = tuple("abcdef"[:size])
    return [Choice(f"c{k}", "p", keys, pick_ranks(size, place)) for k, place in enumerate(places)]


def test_a_panel_that_loves_the_last_place_is_seen() -> None:
    rng = np.random.default_rng(0)
    fair = position_bias(to_table(picks(rng.integers(0, 4, 400).tolist()), "choices"))
    odd = position_bias(
        to_table(picks(rng.choice(4, 400, p=[0.2, 0.2, 0.2, 0.4]).tolist()), "choices")
    )
    assert fair is not None
    assert odd is not None
    assert fair.sizes[0].p_value > 0.01
    assert odd.sizes[0].p_value < 1e-6
    assert odd.always_last.low > odd.chance == 0.25 == fair.chance


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_the_test_of_equal_shares_is_scipys(places: list[int]) -> None:
    found = position_bias(to_table(picks(places), "choices"))
    assert found is not None
    assert found.sizes[0].p_value == pytest.approx(chisquare(found.sizes[0].counts).pvalue)


def test_no_choices_have_no_position() -> None:
    assert position_bias(to_table([], "choices")) is None
    tied = Choice("c", "p", ("a", "b"), (1, 1))
    assert position_bias(to_table([tied], "choices")) is None


def test_shares_are_wilsons() -> None:
    found = share(30, 100)
    assert (found.low, found.high) == pytest.approx(wilson(30.0, 100))
    assert share(0, 0).high == 1

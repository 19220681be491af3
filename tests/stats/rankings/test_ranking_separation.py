"""An order is claimed only where intervals of all differences, which hold at once, say so."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from palate.errors import DataError
from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry
from palate.stats.rankings.separation import (
    Separation,
    SeparationSettings,
    critical_value,
    separate,
)
from palate.stats.rankings.strengths import Strengths

QUICK = SeparationSettings(draws=1000)


def make_duels(count: int, strength, seed: int = 0):
    rng = np.random.default_rng(seed)
    items = len(strength)
    first = rng.integers(0, items, count)
    second = (first + rng.integers(1, items, count)) % items
    chance = 1 / (1 + np.exp(strength[second] - strength[first]))
    names = np.array([f"g{number}" for number in range(items)])
    return names[first], names[second], (rng.random(count) < chance) * 1.0


def fitted(count: int = 2000, strength=(0.0, 0.1, 1.0, 2.0), seed: int = 0) -> Strengths:
    return bradley_terry(*make_duels(count, np.array(strength), seed))


def made_up(strengths, errors, freedom: float = math.inf) -> Strengths:
    """Independent strengths with known errors."""
    some = fitted(300, np.zeros(len(strengths)))
    return replace(
        some,
        strengths=np.array(strengths, dtype=float),
        covariance=np.diag(np.square(errors).astype(float)),
        freedom=freedom,
    )


def test_the_order_is_printed_only_where_it_is_certain() -> None:
    found = separate(fitted())
    assert found.sentence() == "g3 > g2 > (g0, g1)"
    assert found.tiers() == (("g3",), ("g2",), ("g0", "g1"))
    assert found.groups() == (("g3",), ("g2",), ("g0", "g1"))
    assert found.rank_low.tolist() == [3, 3, 2, 1]
    assert found.rank_high.tolist() == [4, 4, 2, 1]
    assert found.compare("g3", "g0") == "higher"
    assert found.compare("g0", "g3") == "lower"
    assert found.compare("g0", "g1") == "not separable"
    assert "| g0 | 3 to 4 | 0 | 2 |" in found.to_markdown()
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(DataError, match="there is no item 'x' among the 4"):
        found.compare("x", "g0")


def test_few_answers_give_no_order() -> None:
    found = separate(fitted(30, (0.0, 0.1, 0.2, 0.3)))
    assert found.sentence() == "not separable into an order: g0, g1, g2, g3"
    assert found.groups() == (("g0", "g1", "g2", "g3"),)
    assert found.rank_low.tolist() == [1] * 4
    assert found.rank_high.tolist() == [4] * 4
    # Equal rank intervals stand by label, so that the table shows no order either.
    rows = found.to_markdown().splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| g0", "| g1", "| g2", "| g3"]


def test_an_item_may_stand_in_two_groups() -> None:
    found = separate(made_up([0, 1, 2], [0.3, 0.3, 0.3]), QUICK)
    assert found.groups() == (("g1", "g2"), ("g0", "g1"))
    assert found.sentence() == "not separable into an order: g0, g1, g2"
    assert found.compare("g2", "g0") == "higher"


@pytest.mark.parametrize("freedom", [math.inf, 7.0])
def test_critical_values_are_the_known_ones(freedom: float) -> None:
    """Independent equal errors are Tukey's range; two items are one plain interval."""
    draws = SeparationSettings(draws=400_000)
    degrees = 1e9 if math.isinf(freedom) else freedom
    found = critical_value(made_up([0] * 5, [1] * 5, freedom), draws)
    wanted = stats.studentized_range.ppf(0.95, 5, degrees) / math.sqrt(2)
    assert found == pytest.approx(wanted, rel=0.01)
    two = critical_value(made_up([0] * 2, [1] * 2, freedom), draws)
    assert two == pytest.approx(stats.t.ppf(0.975, degrees), rel=0.01)
    bonferroni = SeparationSettings(method="bonferroni")
    ten = critical_value(made_up([0] * 5, [1] * 5, freedom), bonferroni)
    assert ten == pytest.approx(stats.t.ppf(1 - 0.025 / 10, degrees))
    assert ten > found


def test_all_intervals_cover_together() -> None:
    """Among items that are equal, an order is claimed in about one of twenty studies."""
    false = sum(
        bool(separate(fitted(600, np.zeros(6), seed), SeparationSettings(draws=4000)).better.any())
        for seed in range(200)
    )
    assert 3 <= false <= 19


def make_study(seed: int, prompts: int = 100, each: int = 20, raters: int = 20):
    """Duels in which both prompts and people lean to items, which are equal on the whole."""
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(prompts), each)
    person = rng.integers(0, raters, len(prompt))
    first = rng.integers(0, 4, len(prompt))
    second = (first + rng.integers(1, 4, len(prompt))) % 4
    lean = rng.normal(0, 0.7, (prompts, 4))[prompt] + rng.normal(0, 0.35, (raters, 4))[person]
    every = np.arange(len(prompt))
    chance = 1 / (1 + np.exp(lean[every, second] - lean[every, first]))
    return first, second, (rng.random(len(prompt)) < chance) * 1.0, prompt, person


@pytest.mark.slow
def test_two_way_intervals_cover_together_where_those_of_the_model_do_not() -> None:
    claims = {"model": 0, "two-way": 0}
    for seed in range(150):
        first, second, outcome, prompts, people = make_study(seed)
        for errors in claims:
            fit = bradley_terry(
                *(first, second, outcome, None, prompts, people),
                settings=DuelSettings(errors=errors),
            )
            claims[errors] += bool(separate(fit, SeparationSettings(draws=2000)).better.any())
    assert claims["two-way"] <= 15
    assert claims["model"] >= 45


def slow_cliques(alike) -> set[tuple[int, ...]]:
    """Every group of items, tried one by one."""
    size = len(alike)
    every = [group for k in range(1, size + 1) for group in combinations(range(size), k)]
    fine = [group for group in every if all(alike[a][b] for a, b in combinations(group, 2))]
    return {g for g in fine if not any(set(g) < set(other) for other in fine)}


@given(st.integers(2, 7), st.integers(0, 10_000))
def test_two_items_share_a_group_exactly_where_they_cannot_be_told_apart(size, seed) -> None:
    rng = np.random.default_rng(seed)
    better = np.triu(rng.random((size, size)) < 0.4, 1)
    base = np.zeros((size, size))
    found = Separation(
        items=tuple(range(size)),
        difference=np.linspace(1, -1, size)[:, None] - np.linspace(1, -1, size)[None, :],
        low=base,
        high=base,
        better=better,
        rank_low=np.ones(size, dtype=np.int64),
        rank_high=np.ones(size, dtype=np.int64),
        critical=1.0,
        settings=QUICK,
    )
    assert set(found.groups()) == slow_cliques(~(better | better.T))
    for tier, after in pairwise(found.tiers()):
        assert all(better[a, b] for a in tier for b in after)


@given(st.integers(0, 1000))
def test_laws_of_separation(seed: int) -> None:
    fit = fitted(200, (0.0, 0.5, 1.0), seed)
    found = separate(fit, QUICK)
    assert (found.low == -found.high.T).all()
    assert not (found.better & found.better.T).any()
    assert (found.rank_low <= found.rank_high).all()
    place = np.argsort(np.argsort(-fit.strengths)) + 1
    assert ((found.rank_low <= place) & (place <= found.rank_high)).all()
    again = separate(fit, QUICK)
    assert again.to_dict() == found.to_dict()
    wider = separate(fit, SeparationSettings(method="bonferroni", level=0.999))
    assert not (wider.better & ~found.better).any()


def test_what_never_met_is_never_separable() -> None:
    won = [("a", "b")] * 60 + [("b", "a")] * 20 + [("c", "d")] * 60 + [("d", "c")] * 20
    first, second = zip(*won, strict=True)
    fit = bradley_terry(list(first), list(second), [1.0] * 160, settings=DuelSettings(prior=1.0))
    found = separate(fit, QUICK)
    assert found.compare("a", "b") == "higher"
    assert found.compare("a", "d") == "not separable"
    assert found.to_dict()["low"][0][2] is None
    assert found.rank_low.tolist() == [1, 2, 1, 2]


def test_settings_that_give_no_interval_are_refused() -> None:
    with pytest.raises(DataError, match="intervals of level 1"):
        SeparationSettings(level=1.0)
    with pytest.raises(DataError, match="10 draws, expected at least 1000"):
        SeparationSettings(draws=10)

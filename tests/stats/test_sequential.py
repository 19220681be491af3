"""Confidence sequences hold at every look, equal slow twins, and say what they assume."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from palate.errors import DataError
from palate.stats.sequential import (
    SequentialSettings,
    cluster_means,
    confidence_sequence,
    mixture,
    mixture_bounds,
)
from palate.stats.two_way.clusters import clustered_share

BETTING = SequentialSettings(method="betting")
votes = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60)


# -------------------------------------------------------------------------------- the mixture


@pytest.mark.parametrize(("wins", "count", "rate"), [(3, 10, 0.5), (40, 41, 0.7), (0, 5, 0.2)])
def test_the_mixture_is_the_ratio_of_two_known_distributions(wins, count, rate):
    top = stats.betabinom.logpmf(wins, count, 10, 10)
    assert mixture(wins, count, rate) == pytest.approx(
        top - stats.binom.logpmf(wins, count, rate), rel=1e-9
    )


def test_the_mixture_is_the_average_of_bets_on_every_rate():
    total, count, null = 12.5, 20, 0.4

    def bet(rate: float) -> float:
        ratio = (rate / null) ** total * ((1 - rate) / (1 - null)) ** (count - total)
        return ratio * stats.beta.pdf(rate, 10, 10)

    whole, _ = integrate.quad(bet, 0, 1)
    assert math.exp(mixture(total, count, null)) == pytest.approx(whole, rel=1e-7)


@pytest.mark.parametrize("rate", [0.3, 0.5])
@pytest.mark.parametrize("tied", [0.0, 0.3, 0.6])
def test_no_mixture_of_wins_ties_and_losses_grows_on_average(rate, tied):
    """Over all sequences of six votes of the true rate, the mean evidence is at most one."""
    won = rate - tied / 2
    chance = {1.0: won, 0.5: tied, 0.0: 1 - won - tied}
    assert min(chance.values()) >= 0
    mean = 0.0
    for path in product(chance, repeat=6):
        weight = math.prod(chance[vote] for vote in path)
        mean += weight * math.exp(mixture(sum(path), 6, rate, 2.0))
    assert mean == pytest.approx(1, abs=1e-12) if tied == 0 else mean < 1


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([1.0, 10.0, 50.0]))
def test_the_bounds_are_the_roots(count, share, prior):
    total = round(share * count * 2) / 2
    low, high = mixture_bounds(total, count, math.log(20), prior)
    mean = total / count

    def gap(rate: float) -> float:
        return float(mixture(total, count, rate, prior)) - math.log(20)

    expected = [0.0, 1.0]
    if mean > 0 and gap(1e-12) > 0:
        expected[0] = optimize.brentq(gap, 1e-12, mean)
    if mean < 1 and gap(1 - 1e-12) > 0:
        expected[1] = optimize.brentq(gap, mean, 1 - 1e-12)
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-8)


# ------------------------------------------------------------------------------------- slow twins


def slow_betting(values: list[float], level: float) -> tuple[float, float]:
    """One rate at a time, one value at a time; the interval after the last value."""
    low, high = 0.0, 1.0
    for rate in np.linspace(0, 1, 1001):
        up = down = 0.5
        total, squares = 0.5, 0.25
        for number, value in enumerate(values, start=1):
            size = math.sqrt(
                2 * math.log(2 / (1 - level)) / (squares / number * number * math.log(number + 1))
            )
            up *= 1 + min(size, 0.5 / rate if rate else math.inf) * (value - rate)
            down *= 1 - min(size, 0.5 / (1 - rate) if rate < 1 else math.inf) * (value - rate)
            total += value
            squares += (value - total / (number + 1)) ** 2
            if up >= 1 / (1 - level):
                low = max(low, float(rate))
            if down >= 1 / (1 - level):
                high = min(high, float(rate))
    return low, high


@pytest.mark.parametrize("block", [2_000_000, 5005])
def test_betting_is_the_obvious_one(block, monkeypatch):
    monkeypatch.setattr("palate.stats.sequential._BLOCK", block)
    values = np.clip(np.random.default_rng(2).normal(0.65, 0.2, 60), 0, 1)
    found = confidence_sequence(values, BETTING)
    assert (found.low[-1], found.high[-1]) == slow_betting(values.tolist(), 0.95)
    assert 0 < found.low[-1] < 0.65 < found.high[-1] < 1


def test_full_clusters_are_the_obvious_ones():
    rng = np.random.default_rng(0)
    values, prompts = rng.choice([0.0, 0.5, 1.0], 200), rng.integers(0, 30, 200)
    seen: dict[int, list[float]] = {}
    means, spare = [], 0
    for value, prompt in zip(values, prompts, strict=True):
        own = seen.setdefault(int(prompt), [])
        spare += len(own) >= 6
        own.append(value)
        if len(own) == 6:
            means.append(sum(own) / 6)
    found = cluster_means(values, prompts, 6)
    assert found.means.tolist() == pytest.approx(means)
    assert found.spare == spare
    assert found.open_votes == 200 - spare - 6 * len(means)
    assert found.size == 6


# ------------------------------------------------------------------------------------------- laws


@given(votes, st.sampled_from(["mixture", "betting"]))
def test_what_was_ruled_out_stays_out_and_the_future_changes_no_past(values, method):
    settings = SequentialSettings(method=method)
    found = confidence_sequence(values, settings)
    assert (np.diff(found.low) >= 0).all()
    assert (np.diff(found.high) <= 0).all()
    part = confidence_sequence(values[: len(values) // 2 + 1], settings)
    if found.consistent:
        assert found.low[: part.count].tolist() == part.low.tolist()
    assert found.evidence[: part.count].tolist() == part.evidence.tolist()
    assert found.mean[-1] == pytest.approx(sum(values) / len(values))


@given(votes, st.sampled_from(["mixture", "betting"]))
def test_swapping_sides_turns_the_sequence_round(values, method):
    settings = SequentialSettings(method=method)
    there = confidence_sequence(values, settings)
    back = confidence_sequence([1 - value for value in values], settings)
    assert there.low == pytest.approx(1 - back.high, abs=1e-3 if method == "betting" else 1e-9)
    assert there.evidence == pytest.approx(back.evidence, rel=1e-9)


@given(votes)
def test_the_mixture_needs_only_totals(values):
    found = confidence_sequence(values)
    low, high = mixture_bounds(sum(values), len(values), math.log(20))
    if found.count == 1:
        assert (found.low[-1], found.high[-1]) == (low, high)
    assert found.low[-1] >= low
    assert found.high[-1] <= high


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_evidence_reaches_twenty_where_the_interval_leaves_out_the_null(wins, losses):
    values = [1.0] * wins + [0.0] * losses
    if not values:
        return
    found = confidence_sequence(values)
    assert (found.stopped is not None) == (found.evidence.max() >= 20)
    assert (found.p_value <= 0.05) == (found.stopped is not None)


# ----------------------------------------------------------------------------------- false alarms


@pytest.mark.parametrize(("method", "tied"), [("mixture", 0.0), ("mixture", 0.3), ("betting", 0.3)])
def test_equals_are_seldom_told_apart_however_often_one_looks(method, tied):
    rng = np.random.default_rng(0)
    settings = SequentialSettings(method=method)
    alarms = 0
    for _ in range(100):
        values = (rng.random(300) < 0.5) * 1.0
        values[rng.random(300) < tied] = 0.5
        alarms += confidence_sequence(values, settings).stopped is not None
    assert stats.binomtest(alarms, 100, 0.05, alternative="greater").pvalue > 0.01


def test_a_sequence_is_wider_than_an_interval_for_one_look_and_finds_what_is_there():
    values = (np.random.default_rng(1).random(3000) < 0.6) * 1.0
    found = confidence_sequence(values)
    assert found.decision == "higher"
    assert found.stopped is not None
    assert found.stopped < 600
    fixed = clustered_share(values)
    assert found.high[-1] - found.low[-1] > fixed.high - fixed.low
    assert found.low[-1] <= 0.6 <= found.high[-1]


def test_means_of_many_votes_are_bet_on_with_less_waste():
    means = np.clip(np.random.default_rng(3).normal(0.55, 0.12, 400), 0, 1)
    tight, loose = confidence_sequence(means, BETTING), confidence_sequence(means)
    assert tight.high[-1] - tight.low[-1] < 0.5 * (loose.high[-1] - loose.low[-1])


def test_a_drift_is_told_and_the_last_interval_kept():
    found = confidence_sequence([0.0] * 300 + [1.0] * 3000)
    assert not found.consistent
    assert found.low[-1] <= found.high[-1] < 0.5
    assert found.to_dict()["consistent"] is False
    steady = confidence_sequence([0.0, 1.0] * 50)
    assert steady.consistent
    assert steady.decision == "not separable"
    assert steady.to_dict()["stopped"] is None


def test_a_single_certainty_is_no_proof():
    for value in (0.0, 0.5, 1.0):
        found = confidence_sequence([value], BETTING)
        assert (found.low[-1], found.high[-1]) == (0, 1)
        assert found.p_value > 0.4


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: confidence_sequence([]), "a column of at least one"),
        (lambda: confidence_sequence([1.2]), "not a number from 0 to 1"),
        (lambda: confidence_sequence([math.nan]), "not a number from 0 to 1"),
        (lambda: cluster_means([1.0], ["a"], 0), "clusters of 0 votes"),
        (lambda: cluster_means([1.0, 0.0], ["a", "b"], 2), "none of 2 clusters has 2 votes"),
        (lambda: SequentialSettings(level=0.0), "a sequence of level 0.0"),
        (lambda: SequentialSettings(null=1.0), "a win rate of 1.0 as the null"),
        (lambda: SequentialSettings(prior=0.0), "a prior of 0.0"),
    ],
)
def test_what_gives_no_sequence_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(DataError, match=sentence):
        call()

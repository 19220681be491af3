"""Intervals resample clusters, cover the truth, and do not depend on the order of the rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from palate.errors import DataError
from palate.stats.intervals import (
    Bootstrap,
    mean_estimate,
    paired_difference,
    wilson,
)
from palate.stats.wins import win_rate

QUICK = Bootstrap(resamples=100)
numbers = st.floats(-100, 100)
rows = st.lists(st.tuples(numbers, st.sampled_from("abcd")), min_size=1, max_size=20)


def slow_mean(values: list[float], labels: list[str], average: str) -> float:
    if average == "micro":
        return sum(values) / len(values)
    means = []
    for label in sorted(set(labels)):
        own = [value for value, its in zip(values, labels, strict=True) if its == label]
        means.append(sum(own) / len(own))
    return sum(means) / len(means)


@given(rows, st.sampled_from(["micro", "macro"]))
def test_the_mean_is_the_obvious_one(pairs: list[tuple[float, str]], average: str) -> None:
    values, labels = [list(column) for column in zip(*pairs, strict=True)]
    found = mean_estimate(values, labels, average=average, bootstrap=QUICK)
    assert found.value == pytest.approx(slow_mean(values, labels, average), abs=1e-9)
    assert found.count == len(values)
    assert found.clusters == len(set(labels))


@given(rows.filter(lambda pairs: len({label for _, label in pairs}) > 1), st.randoms())
def test_the_order_of_the_rows_does_not_matter(pairs, random) -> None:
    there = mean_estimate(*zip(*pairs, strict=True), bootstrap=QUICK)
    random.shuffle(pairs)
    back = mean_estimate(*zip(*pairs, strict=True), bootstrap=QUICK)
    assert (there.low, there.high) == pytest.approx((back.low, back.high), abs=1e-9)


def slow_interval(values, labels, bootstrap: Bootstrap) -> tuple[float, float]:
    """One resample at a time, by name of the cluster."""
    names = sorted(set(labels))
    own = {
        name: [v for v, its in zip(values, labels, strict=True) if its == name] for name in names
    }
    rng = np.random.default_rng(bootstrap.seed)
    means = []
    for _ in range(bootstrap.resamples):
        drawn = [v for k in rng.integers(0, len(names), len(names)) for v in own[names[k]]]
        means.append(sum(drawn) / len(drawn))
    total = len(names)
    tail = stats.norm.cdf(
        math.sqrt(total / (total - 1)) * stats.t.ppf((1 - bootstrap.level) / 2, total - 1)
    )
    return float(np.quantile(means, tail)), float(np.quantile(means, 1 - tail))


def test_the_interval_is_the_obvious_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 9, 60).astype(str).tolist()
    values = rng.normal(size=60).tolist()
    whole = mean_estimate(values, labels, bootstrap=QUICK)
    assert (whole.low, whole.high) == pytest.approx(slow_interval(values, labels, QUICK))
    monkeypatch.setattr("palate.stats.intervals._BLOCK", 30)
    assert mean_estimate(values, labels, bootstrap=QUICK) == whole


@pytest.mark.parametrize("clusters", [8, 60])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(clusters: int) -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        centres = np.repeat(rng.normal(size=clusters), 5)
        values = centres + rng.normal(size=5 * clusters) * 0.2
        labels = np.repeat(np.arange(clusters), 5)
        found = mean_estimate(values, labels, bootstrap=Bootstrap(resamples=400))
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_ignoring_the_clusters_would_be_too_sure() -> None:
    rng = np.random.default_rng(3)
    values = np.repeat(rng.normal(size=30), 20)
    labels = np.repeat(np.arange(30), 20)
    by_prompt = mean_estimate(values, labels)
    by_row = mean_estimate(values)
    assert by_prompt.high - by_prompt.low > 3 * (by_row.high - by_row.low)


def test_one_cluster_has_no_interval() -> None:
    found = mean_estimate([0.0, 1.0], ["a", "a"])
    assert found.value == 0.5
    assert math.isnan(found.low)
    assert found.to_dict()["low"] is None


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        ([], None, "0 rows"),
        ([math.nan], None, "not a finite number"),
        ([1.0], ["a", "b"], "1 values but clusters of shape"),
    ],
)
def test_bad_columns_are_refused(values, labels, message) -> None:
    with pytest.raises(DataError, match=message):
        mean_estimate(values, labels)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(DataError, match=r"level 95\.0"):
        Bootstrap(level=95.0)
    with pytest.raises(DataError, match="3 resamples, expected 100 to 1,000,000"):
        Bootstrap(resamples=3)


@given(st.integers(1, 500), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(count: int, data: st.DataObject, level: float) -> None:
    successes = data.draw(st.integers(0, count))
    reference = stats.binomtest(successes, count).proportion_ci(level, method="wilson")
    assert wilson(float(successes), count, level) == pytest.approx(tuple(reference), abs=1e-12)


def test_wilson_refuses_what_is_no_share() -> None:
    with pytest.raises(DataError, match=r"3\.0 successes in 2 trials"):
        wilson(3.0, 2)


pairs = st.lists(st.tuples(numbers, numbers, st.sampled_from("abc")), min_size=1, max_size=20)


@given(pairs, st.sampled_from(["micro", "macro"]))
def test_the_difference_turns_round_with_its_sides(rows, average) -> None:
    a, b, labels = [list(column) for column in zip(*rows, strict=True)]
    there = paired_difference(a, b, labels, average=average, bootstrap=QUICK)
    back = paired_difference(b, a, labels, average=average, bootstrap=QUICK)
    assert there.estimate.value == pytest.approx(-back.estimate.value, abs=1e-9)
    assert there.estimate.value == pytest.approx(there.mean_a - there.mean_b, abs=1e-9)
    assert there.mean_a == pytest.approx(slow_mean(a, labels, average), abs=1e-9)


def test_pairing_is_narrower_than_the_spread_between_prompts() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=50) * 10
    found = paired_difference(base + 0.5, base + rng.normal(size=50) * 0.1)
    assert found.estimate.low > 0.4
    assert found.estimate.high < 0.6


@given(pairs, st.floats(0, 5))
def test_win_rates_count_every_pair_once(rows, tolerance) -> None:
    a, b, labels = zip(*rows, strict=True)
    found = win_rate(a, b, labels, tolerance=tolerance, bootstrap=QUICK)
    wins = sum(x - y > tolerance for x, y, _ in rows)
    losses = sum(y - x > tolerance for x, y, _ in rows)
    ties = len(rows) - wins - losses
    assert (found.wins, found.ties, found.losses) == (wins, ties, losses)
    assert found.estimate.value == pytest.approx((wins + ties / 2) / len(rows))
    strict = win_rate(a, b, labels, ties="loss", tolerance=tolerance, bootstrap=QUICK)
    assert strict.estimate.value == pytest.approx(wins / len(rows))


def test_dropped_ties_leave_the_decided_pairs() -> None:
    found = win_rate([1, 2, 3], [1, 1, 4], ties="drop", bootstrap=QUICK)
    assert found.estimate.value == 0.5
    assert found.estimate.count == 2
    with pytest.raises(DataError, match="all 2 pairs tie"):
        win_rate([1, 2], [1, 2], ties="drop")
    with pytest.raises(DataError, match="do not match"):
        win_rate([1, 2], [1])


def test_many_clusters_of_few_kinds_are_drawn_as_kinds() -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(30_000), rng.integers(1, 4, 30_000))
    values = rng.integers(0, 2, len(codes)).astype(float)
    quick = mean_estimate(values, codes, bootstrap=Bootstrap(resamples=2000))
    sums, counts = np.bincount(codes, weights=values), np.bincount(codes)
    mean = sums.sum() / counts.sum()
    # the delta method's standard error of a ratio, which so many clusters follow
    error = np.sqrt(((sums - mean * counts) ** 2).sum()) / counts.sum()
    assert quick.value == mean
    assert (quick.high - quick.low) / 2 == pytest.approx(1.96 * error, rel=0.05)

"""Correlations equal SciPy's: within each choice or prompt, and over all images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from palate.errors import DataError
from palate.stats.correlation import (
    _concordance,
    correlation_by_prompt,
    kendall,
    overall_correlation,
)
from palate.stats.intervals import Bootstrap

QUICK = Bootstrap(resamples=100)
group = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=2, max_size=6)


@given(st.lists(group, min_size=1, max_size=8))
def test_tau_is_scipys(rows) -> None:
    scores = [float(score) for row in rows for score, _ in row]
    ranks = np.array([rank for row in rows for _, rank in row], np.int16)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    taus = []
    for row in rows:
        own_scores, own_ranks = zip(*row, strict=True)
        if len(set(own_scores)) > 1 and len(set(own_ranks)) > 1:
            taus.append(stats.kendalltau(own_scores, [-rank for rank in own_ranks]).statistic)
    if not taus:
        with pytest.raises(DataError, match="has an order to correlate with"):
            kendall(scores, ranks, offsets, bootstrap=QUICK)
        return
    found = kendall(scores, ranks, offsets, bootstrap=QUICK)
    assert found.estimate.value == pytest.approx(np.mean(taus))
    assert found.left_out == len(rows) - len(taus)


def test_higher_scores_and_lower_ranks_are_better() -> None:
    assert kendall([3, 2, 1], [1, 2, 3], [0, 3]).estimate.value == 1
    assert kendall([1, 2, 3], [1, 2, 3], [0, 3]).to_dict()["value"] == -1


def test_bad_columns_are_refused() -> None:
    with pytest.raises(DataError, match="do not match"):
        kendall([1.0], [1, 2], [0, 2])
    with pytest.raises(DataError, match="not a number"):
        kendall([1.0, np.nan], [1, 2], [0, 2])


columns = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)
ORACLES = {"kendall": stats.kendalltau, "spearman": stats.spearmanr, "pearson": stats.pearsonr}


@given(columns, st.sampled_from(sorted(ORACLES)))
def test_over_all_images_it_is_scipys(rows, measure: str) -> None:
    first, second = (list(map(float, column)) for column in zip(*rows, strict=True))
    found = overall_correlation(first, second, measure=measure)
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert math.isnan(found.value)
        assert found.to_dict()["value"] is None
        return
    assert found.value == pytest.approx(ORACLES[measure](first, second).statistic, abs=1e-9)


def tau_b(first, second) -> float:
    return overall_correlation(first, second).value


@given(columns)
def test_each_images_pairs_are_those_of_a_slow_loop(rows) -> None:
    first, second = (np.array(column, float) for column in zip(*rows, strict=True))
    slow = np.sign(first[:, None] - first) * np.sign(second[:, None] - second)
    assert _concordance(first, second).tolist() == slow.sum(axis=1).tolist()
    assert tau_b(first, second) == pytest.approx(tau_b(second, first), abs=1e-12, nan_ok=True)
    turned = tau_b(-first, second)
    assert turned == pytest.approx(-tau_b(first, second), abs=1e-12, nan_ok=True)


def test_many_images_are_scipys_too() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=5000).round(1)
    second = first + rng.normal(size=5000)
    assert tau_b(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 5)), min_size=2),
    st.sampled_from(sorted(ORACLES)),
)
def test_by_prompt_it_is_the_mean_of_scipys(rows, measure: str) -> None:
    prompts, scores, targets = (np.array(column) for column in zip(*rows, strict=True))
    told = []
    for prompt in np.unique(prompts):
        own = scores[prompts == prompt], targets[prompts == prompt]
        if all(len(set(column.tolist())) > 1 for column in own):
            told.append(ORACLES[measure](*own).statistic)
    if not told:
        with pytest.raises(DataError, match="has an order to correlate with"):
            correlation_by_prompt(scores, targets, prompts, measure=measure, bootstrap=QUICK)
        return
    found = correlation_by_prompt(scores, targets, prompts, measure=measure, bootstrap=QUICK)
    assert found.estimate.value == pytest.approx(np.mean(told), abs=1e-9)
    assert found.left_out == len(np.unique(prompts)) - len(told)
    assert found.estimate.clusters == len(told)


@pytest.mark.parametrize("measure", ["kendall", "pearson"])
def test_the_interval_leaves_out_one_prompt_at_a_time(measure: str) -> None:
    rng = np.random.default_rng(3)
    prompts = rng.integers(0, 12, 60)
    scores = rng.integers(0, 9, 60) + prompts / 3
    targets = scores + rng.normal(size=60).round(1) * 3
    found = overall_correlation(scores, targets, prompts, measure=measure)
    left = [
        ORACLES[measure](scores[prompts != k], targets[prompts != k]).statistic
        for k in np.unique(prompts)
    ]
    error = math.sqrt(sum((one - found.value) ** 2 for one in left) * 11 / 12)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 11) * error)
    assert found.value - found.low == pytest.approx(stats.t.ppf(0.975, 11) * error)
    assert (found.clusters, found.count) == (12, 60)


def test_the_ranks_that_spearman_keeps_change_the_interval_little() -> None:
    rng = np.random.default_rng(4)
    prompts = np.repeat(np.arange(40), 5)
    scores = rng.normal(size=200) + np.repeat(rng.normal(size=40), 5)
    targets = scores + rng.normal(size=200)
    found = overall_correlation(scores, targets, prompts, measure="spearman")
    left = [
        stats.spearmanr(scores[prompts != k], targets[prompts != k]).statistic for k in range(40)
    ]
    error = math.sqrt(sum((one - found.value) ** 2 for one in left) * 39 / 40)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 39) * error, rel=0.1)


@pytest.mark.parametrize("measure", sorted(ORACLES))
def test_order_of_rows_and_scale_do_not_matter(measure: str) -> None:
    rng = np.random.default_rng(5)
    prompts, scores = rng.integers(0, 6, 40), rng.integers(0, 9, 40) * 1.0
    targets = scores + rng.normal(size=40)
    mixed = rng.permutation(40)
    for verb, options in ((overall_correlation, {}), (correlation_by_prompt, {"bootstrap": QUICK})):
        told = verb(scores, targets, prompts, measure=measure, **options).to_dict()
        again = verb(
            scores[mixed], targets[mixed], prompts[mixed], measure=measure, **options
        ).to_dict()
        assert again == told
        scaled = verb(4 * scores + 2, targets, prompts, measure=measure, **options).to_dict()
        assert scaled["value"] == pytest.approx(told["value"])


def test_one_prompt_has_no_interval_and_faults_are_named() -> None:
    found = overall_correlation([1, 2, 3], [1, 3, 2], ["p"] * 3)
    assert found.value == pytest.approx(1 / 3)
    assert found.to_dict()["low"] is None
    with pytest.raises(DataError, match="do not match, or are none"):
        overall_correlation([], [])
    with pytest.raises(DataError, match="not a finite number"):
        correlation_by_prompt([1.0, math.inf], [1, 2], ["p", "p"])
    with pytest.raises(DataError, match="an interval of level 95"):
        overall_correlation([1, 2], [1, 2], level=95.0)

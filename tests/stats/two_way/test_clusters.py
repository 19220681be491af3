"""Two-way clustered intervals equal slow twins and statsmodels, keep their laws, and refuse."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from palate.errors import DataError
from palate.stats.two_way.clusters import (
    Clustered,
    ClusterSettings,
    Sample,
    clustered_difference,
    clustered_mean,
    clustered_share,
    compare_generators,
    compare_scorers,
)
from palate.stats.two_way.crossed import crossed

METHODS = ("jackknife", "sandwich", "bootstrap", "pigeonhole")
rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from("abcd"), st.sampled_from(["x", "y", "z"])
    ),
    min_size=1,
    max_size=25,
)


def quick(method: str = "jackknife") -> ClusterSettings:
    return ClusterSettings(method, resamples=100)


def columns(triples) -> tuple[list, list, list]:
    return tuple(list(column) for column in zip(*triples, strict=True))


def study(seed: int = 0, prompts: int = 30, each: int = 4, people: int = 9):
    """Uneven votes with effects of prompts and people."""
    rng = np.random.default_rng(seed)
    count = prompts * each
    prompt = rng.integers(0, prompts, count)
    person = (people * rng.random(count) ** 2).astype(int)
    chance = 0.55 + 0.2 * rng.normal(size=prompts)[prompt] + 0.1 * rng.normal(size=people)[person]
    return (rng.random(count) < chance) * 1.0, prompt, person


# ------------------------------------------------------------------------------------- slow twins


def left_out(values, labels) -> float:
    """Variance of leaving out one label at a time."""
    mean, names = sum(values) / len(values), sorted(set(labels))
    squares = 0.0
    for name in names:
        rest = [v for v, its in zip(values, labels, strict=True) if its != name]
        squares += (sum(rest) / len(rest) - mean) ** 2
    return squares * (len(names) - 1) / len(names)


def summed(values, labels) -> float:
    """Variance of the sums of residuals of each label."""
    mean, names = sum(values) / len(values), sorted(set(labels))
    squares = 0.0
    for name in names:
        own = [v - mean for v, its in zip(values, labels, strict=True) if its == name]
        squares += (sum(own) / len(values)) ** 2
    return squares * len(names) / (len(names) - 1)


def effective(labels) -> float:
    sizes = [labels.count(name) for name in set(labels)]
    return sum(sizes) ** 2 / sum(size**2 for size in sizes)


def slow_jackknife(values, prompts, people, level=0.95) -> tuple[float, float, float]:
    both = list(zip(prompts, people, strict=True))
    parts = [left_out(values, labels) for labels in (prompts, people, both)]
    sizes = [effective(labels) for labels in (prompts, people, both)]
    variance = max(parts[0] + parts[1] - parts[2], *parts)
    terms = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    freedom = max(variance**2 / terms, min(sizes[:2]) - 1, 1)
    half = stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(variance)
    mean = sum(values) / len(values)
    return mean - half, mean + half, freedom


@pytest.mark.parametrize("seed", range(4))
def test_the_jackknife_is_the_obvious_one(seed):
    values, prompts, people = (column.tolist() for column in study(seed))
    found = clustered_mean(values, prompts, people)
    low, high, freedom = slow_jackknife(values, prompts, people)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.freedom == pytest.approx(freedom)
    assert found.clusters == ("prompts", "people")


@pytest.mark.parametrize("seed", range(4))
def test_the_sandwich_is_the_obvious_one(seed):
    values, prompts, people = (column.tolist() for column in study(seed))
    both = list(zip(prompts, people, strict=True))
    found = clustered_mean(values, prompts, people, settings=quick("sandwich"))
    parts = [summed(values, labels) for labels in (prompts, people, both)]
    assert found.error**2 == pytest.approx(parts[0] + parts[1] - parts[2])
    assert found.freedom == min(len(set(prompts)), len(set(people))) - 1
    assert found.variance == "both"


def test_a_sandwich_that_is_not_positive_falls_back_to_one_way():
    # In a square whose rows and columns all have the same sum, only single answers vary.
    table = np.array([[1, 0, 0.5], [0.5, 1, 0], [0, 0.5, 1]])
    prompts, people = np.indices(table.shape)
    labels = prompts.ravel(), people.ravel()
    found = clustered_mean(table.ravel(), *labels, settings=quick("sandwich"))
    assert (found.variance, found.error) == ("prompts", 0)
    kept = clustered_mean(table.ravel(), *labels)
    assert kept.variance == "answers"
    assert kept.error == pytest.approx(math.sqrt(table.var(ddof=1) / 9))


@pytest.mark.parametrize("seed", range(3))
def test_statsmodels_gives_the_same_sandwich(seed):
    regression = pytest.importorskip("statsmodels.regression.linear_model")
    values, prompts, people = study(seed)
    ones = np.ones((len(values), 1))
    for groups, labels in (
        (prompts, (prompts,)),
        (np.column_stack([prompts, people]), (prompts, people)),
    ):
        fit = regression.OLS(values, ones).fit(cov_type="cluster", cov_kwds={"groups": groups})
        found = clustered_mean(values, *labels, settings=quick("sandwich"))
        assert found.value == pytest.approx(fit.params[0], abs=1e-9)
        assert found.error == pytest.approx(fit.bse[0], rel=1e-6)


def test_statsmodels_gives_the_same_sandwich_of_a_difference():
    regression = pytest.importorskip("statsmodels.regression.linear_model")
    values, prompts, people = study(5)
    first = np.arange(len(values)) % 3 == 0
    design = np.column_stack([np.ones(len(values)), first])
    groups = np.column_stack([prompts, people])
    fit = regression.OLS(values, design).fit(cov_type="cluster", cov_kwds={"groups": groups})
    sides = [Sample(values[side], prompts[side], people[side]) for side in (first, ~first)]
    found = clustered_difference(*sides, settings=quick("sandwich"))
    # statsmodels counts two coefficients: (n - 1) / (n - 2)
    scale = math.sqrt((len(values) - 1) / (len(values) - 2))
    assert found.value == pytest.approx(fit.params[1], abs=1e-9)
    assert found.error * scale == pytest.approx(fit.bse[1], rel=1e-6)


def slow_pigeonhole(values, prompts, people, resamples: int, seed: int) -> list[float]:
    """One resample at a time, one answer at a time."""
    names = sorted(set(prompts)), sorted(set(people))
    streams = [
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))
        for stream in range(2)
    ]
    means = []
    for _ in range(resamples):
        drawn = [
            rng.integers(0, len(own), len(own)).tolist()
            for rng, own in zip(streams, names, strict=True)
        ]
        total = count = 0.0
        for value, prompt, person in zip(values, prompts, people, strict=True):
            weight = drawn[0].count(names[0].index(prompt)) * drawn[1].count(names[1].index(person))
            total, count = total + weight * value, count + weight
        means.append(total / count)
    return means


@pytest.mark.parametrize("turned", [False, True])
def test_the_pigeonhole_bootstrap_is_the_obvious_one(turned, monkeypatch):
    values, first, second = (column.tolist() for column in study(1))
    prompts, people = (second, first) if turned else (first, second)
    table = crossed([Sample(values, prompts, people)], [1.0], "micro")
    found = table.resampled(25, seed=3)
    assert found == pytest.approx(slow_pigeonhole(values, prompts, people, 25, 3))
    monkeypatch.setattr("palate.stats.two_way.crossed._BLOCK", 70)
    monkeypatch.setattr("palate.stats.two_way.crossed._TURN", 7)
    assert table.resampled(25, seed=3).tolist() == found.tolist()


def test_the_bare_bootstrap_counts_the_noise_of_answers_three_times():
    rng = np.random.default_rng(0)
    values = rng.normal(size=6000)
    labels = np.repeat(np.arange(200), 30), np.tile(np.arange(30), 200)
    table = crossed([Sample(values, *labels)], [1.0], "micro")
    assert table.resampled(4000, 0).std() / values.std() * math.sqrt(6000) == pytest.approx(
        math.sqrt(3), rel=0.05
    )
    bare, fitted = (
        clustered_mean(values, *labels, settings=ClusterSettings(method))
        for method in ("pigeonhole", "bootstrap")
    )
    assert fitted.high - fitted.low < 0.75 * (bare.high - bare.low)


# ------------------------------------------------------------------------------------------- laws


def both_ends(found: Clustered) -> tuple[float, float]:
    return found.low, found.high


@given(rows, st.randoms(), st.sampled_from(METHODS), st.sampled_from(["micro", "macro"]))
def test_the_order_of_the_rows_does_not_matter_to_the_last_bit(triples, random, method, average):
    there = clustered_share(*columns(triples), average=average, settings=quick(method))
    random.shuffle(triples)
    back = clustered_share(*columns(triples), average=average, settings=quick(method))
    assert there.to_dict() == back.to_dict()


@given(rows, st.sampled_from(["jackknife", "sandwich"]))
def test_names_of_clusters_do_not_matter(triples, method):
    values, prompts, people = columns(triples)
    there = clustered_share(values, prompts, people, settings=quick(method))
    back = clustered_share(
        values, [-ord(p) for p in prompts], [f"u{ord('z') - ord(p)}" for p in people],
        settings=quick(method),
    )  # fmt: skip
    assert both_ends(there) == pytest.approx(both_ends(back), nan_ok=True)


@given(rows, st.sampled_from(["jackknife", "sandwich", "pigeonhole", "bootstrap"]))
def test_swapping_sides_turns_the_interval_round(triples, method):
    values, prompts, people = columns(triples)
    there = clustered_share(values, prompts, people, settings=quick(method))
    back = clustered_share([1 - v for v in values], prompts, people, settings=quick(method))
    assert both_ends(there) == pytest.approx((1 - back.high, 1 - back.low), nan_ok=True, abs=1e-9)


@given(rows)
def test_a_difference_turns_its_sign_with_its_sides(triples):
    values, prompts, people = columns(triples)
    a, b = Sample(values, prompts, people), Sample([v**2 for v in values], prompts, people)
    there, back = clustered_difference(a, b), clustered_difference(b, a)
    ends = both_ends(there)
    assert ends == pytest.approx((-back.high, -back.low), nan_ok=True, abs=1e-9)
    # The same rows on both sides are pairs.
    plain = quick("sandwich")
    paired = compare_scorers(a.values, b.values, prompts, people, settings=plain).difference
    apart = clustered_difference(a, b, settings=plain)
    assert both_ends(apart) == pytest.approx(both_ends(paired), nan_ok=True, abs=1e-9)


@given(rows)
def test_copied_answers_of_the_same_people_add_no_certainty(triples):
    once = clustered_mean(*columns(triples))
    thrice = clustered_mean(*columns(triples * 3))
    if once.variance in {"both", "prompts", "people"} and len(set(triples)) == len(triples):
        assert thrice.error == pytest.approx(once.error, abs=1e-9) or once.count < 4
    assert thrice.value == pytest.approx(once.value)


@given(rows, st.floats(0.05, 0.95), st.sampled_from(["jackknife", "sandwich"]))
def test_the_p_value_is_small_where_the_interval_leaves_out_the_null(triples, null, method):
    found = clustered_share(*columns(triples), settings=quick(method))
    if math.isnan(found.low) or min(abs(found.low - null), abs(found.high - null)) < 1e-9:
        return
    if found.low > 0 or found.high < 1:
        assert (found.p_value(null) < 0.05) == (found.decision(null) != "not separable")


@given(rows, st.sampled_from(METHODS))
def test_a_share_stays_within_zero_and_one(triples, method):
    found = clustered_share(*columns(triples), settings=quick(method))
    if not math.isnan(found.low):
        assert 0 <= found.low <= found.value + 1e-12
        assert found.value - 1e-12 <= found.high <= 1


def test_macro_gives_each_prompt_the_same_weight():
    values, prompts = [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]
    assert clustered_mean(values, prompts).value == 0.75
    assert clustered_mean(values, prompts, average="macro").value == 0.5


def test_macro_of_single_clusters_is_the_t_interval_of_their_means():
    values, prompts, _ = study(2)
    means = [values[prompts == name].mean() for name in np.unique(prompts)]
    ends = stats.t.interval(0.95, len(means) - 1, np.mean(means), stats.sem(means))
    assert both_ends(clustered_mean(values, prompts, average="macro")) == pytest.approx(ends)
    assert both_ends(clustered_mean(means)) == pytest.approx(ends)


# --------------------------------------------------------------------------------- who is unknown


def test_unknown_people_are_each_another_person():
    values, prompts, people = study(3)
    named = [f"u{p}" if p < 5 else None for p in people]
    own = [f"u{p}" if p < 5 else f"stranger {row}" for row, p in enumerate(people)]
    found = clustered_mean(values, prompts, named)
    assert both_ends(found) == pytest.approx(both_ends(clustered_mean(values, prompts, own)))
    assert found.unknown == sum(p >= 5 for p in people)
    blank = ["" if name is None else name for name in named]
    assert both_ends(clustered_mean(values, prompts, blank)) == both_ends(found)
    numbers = np.where(people < 5, people, np.nan)
    assert both_ends(clustered_mean(values, prompts, numbers)) == both_ends(found)


@pytest.mark.parametrize("people", [None, [None] * 120, ["one"] * 120])
def test_where_nobody_or_one_person_is_known_only_prompts_count(people):
    values, prompts, _ = study(3)
    found = clustered_mean(values, prompts, people)
    assert found.clusters == ("prompts",)
    assert found.error**2 == pytest.approx(left_out(values.tolist(), prompts.tolist()))


def test_without_labels_answers_are_independent():
    found = clustered_mean([1.0, 2.0, 4.0])
    ends = stats.t.interval(0.95, 2, 7 / 3, stats.sem([1, 2, 4]))
    assert both_ends(found) == pytest.approx(ends)
    assert found.people == 0


def test_wilson_is_the_plain_binomial_interval():
    votes = [1.0] * 30 + [0.0] * 20
    found = clustered_share(votes, settings=ClusterSettings("wilson"))
    oracle = stats.binomtest(30, 50).proportion_ci(method="wilson")
    assert both_ends(found) == pytest.approx((oracle.low, oracle.high))
    assert found.p_value(0.5) == pytest.approx(
        2 * stats.norm.sf(0.1 / math.sqrt(0.25 / 50)), abs=1e-12
    )


# ------------------------------------------------------------------------------------- degenerate


def test_one_cluster_shows_no_spread():
    found = clustered_share([1.0, 0.0], ["a", "a"], ["x", "x"])
    assert math.isnan(found.low)
    assert (found.variance, found.clusters) == ("none", ())
    assert found.to_dict()["low"] is None
    assert found.decision(0.1) == "not separable"
    assert math.isnan(found.p_value(0.5))


def test_where_all_agree_the_scarcer_clusters_count_as_answers():
    prompts, people = zip(*product(range(12), range(5)), strict=True)
    found = clustered_share([1.0] * 60, prompts, people)
    quantile = stats.t.ppf(0.975, 4) ** 2
    assert found.high == 1
    assert found.low == pytest.approx(5 / (5 + quantile))
    boot = clustered_share([1.0] * 60, prompts, people, settings=quick("bootstrap"))
    assert both_ends(boot) == both_ends(found)
    assert both_ends(clustered_mean([2.0] * 60, prompts, people)) == (2, 2)


def test_a_sample_within_one_cluster_gives_no_interval():
    a, b = Sample([1.0, 0.0], ["p", "q"]), Sample([1.0, 1.0], ["p", "p"])
    found = clustered_difference(a, b)
    assert math.isnan(found.low)
    assert found.value == -0.5


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: clustered_mean([]), "nothing to average: 0 rows"),
        (lambda: clustered_mean([1.0, math.nan]), "not a finite number"),
        (lambda: clustered_mean([1.0, 0.0], ["a"]), "2 values but clusters of shape"),
        (lambda: clustered_share([2.0, 0.0]), "values from 0.0 to 2.0, expected 0 to 1"),
        (
            lambda: clustered_share([1.0, 0.0], ["a", "a"], settings=ClusterSettings("wilson")),
            "give it no clusters",
        ),
        (lambda: clustered_mean([1.0], settings=ClusterSettings("wilson")), "give it no clusters"),
        (lambda: ClusterSettings(level=1.0), "interval of level 1.0"),
        (lambda: ClusterSettings(resamples=10), "10 resamples"),
        (
            lambda: clustered_difference(Sample([1.0], ["a"]), Sample([1.0])),
            "one sample has labels",
        ),
        (lambda: compare_scorers([1.0], [1.0, 0.0]), "do not match"),
        (lambda: compare_generators(Sample([1.0]), Sample([1.0])), "both samples need prompts"),
        (
            lambda: compare_generators(Sample([1.0], ["a"]), Sample([1.0], ["b"])),
            "share no prompt",
        ),
    ],
)
def test_what_cannot_be_estimated_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(DataError, match=sentence):
        call()


# ------------------------------------------------------------------------------------ comparisons


@pytest.mark.parametrize(("ours", "theirs"), [(40, 15), (30, 24), (12, 40), (5, 5)])
def test_scorers_on_independent_choices_are_decided_as_mcnemar_decides(ours, theirs):
    a = [1.0] * ours + [0.0] * theirs + [1.0] * 100
    b = [0.0] * ours + [1.0] * theirs + [1.0] * 100
    exact = stats.binomtest(ours, ours + theirs).pvalue
    # The exact test is discrete: half of the observed outcome's own chance is its known excess.
    middle = min(1.0, exact - stats.binom.pmf(ours, ours + theirs, 0.5))
    found = compare_scorers(a, b)
    if ours != theirs:
        assert found.p_value == pytest.approx(middle, rel=0.15, abs=0.001)
    assert (found.p_value < 0.05) == (exact < 0.05)
    expected = ("a" if ours > theirs else "b") if exact < 0.05 else "not separable"
    assert found.better == expected
    assert found.mean_a - found.mean_b == pytest.approx(found.difference.value)
    assert found.to_dict()["better"] == expected


def test_repeated_prompts_make_scorers_harder_to_tell_apart():
    rng = np.random.default_rng(0)
    gains = np.repeat(rng.choice([-1.0, 0.0, 1.0], size=40, p=[0.15, 0.5, 0.35]), 10)
    b = np.where(gains < 0, 1.0, 0.0)
    prompts = np.repeat(np.arange(40), 10)
    alone = compare_scorers(b + gains, b)
    together = compare_scorers(b + gains, b, prompts)
    assert alone.p_value < together.p_value / 10


def test_generators_are_compared_on_the_prompts_both_have():
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 15, 50), rng.integers(2, 18, 40)
    quality = rng.normal(size=18) * 3
    a = Sample(quality[first] + rng.normal(size=50), first, rng.integers(0, 6, 50))
    b = Sample(1.5 * quality[second] + rng.normal(size=40), second, rng.integers(0, 6, 40))
    both = sorted(set(first) & set(second))
    means = [[np.mean(side.values[side.prompts == name]) for name in both] for side in (a, b)]
    gaps = np.subtract(*means)
    alone = compare_generators(Sample(a.values, first), Sample(b.values, second))
    assert (alone.mean_a, alone.mean_b) == pytest.approx(tuple(np.mean(means, axis=1)))
    assert alone.difference.variance == "prompts"
    assert alone.difference.error == pytest.approx(stats.sem(gaps))
    assert alone.difference.prompts == len(both)
    assert compare_generators(a, b).difference.clusters == ("prompts", "people")


def test_what_prompts_have_in_common_leaves_the_difference_of_generators():
    """Strong prompts, people who each rate one of the two: the prompts still cancel."""
    rng = np.random.default_rng(0)
    level = np.repeat(rng.normal(size=60) * 20, 3)
    prompts = np.repeat(np.arange(60), 3)
    noise = rng.normal(size=(2, 180))
    people = rng.integers(0, 10, 180), rng.integers(10, 20, 180)
    found = compare_generators(
        Sample(level + 1 + noise[0], prompts, people[0]),
        Sample(level + noise[1], prompts, people[1]),
    )
    assert found.better == "a"
    assert found.difference.error < 0.25
    loose = clustered_difference(
        Sample(level + 1 + noise[0], prompts), Sample(level + noise[1], prompts)
    )
    assert (loose.variance, loose.decision(0.0)) == ("prompts", "higher")
    assert loose.error == pytest.approx(
        stats.sem((1 + noise[0] - noise[1]).reshape(60, 3).mean(axis=1))
    )

"""The scale is that of most likelihood, is judged on other prompts, and makes probabilities that come true."""

from __future__ import annotations

import json
import math
import re
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from palate.errors import DataError
from palate.stats.calibrations.calibration import (
    CalibrationSettings,
    calibrate_choices,
    calibrate_pairs,
    calibration_table,
    shares,
)
from palate.stats.calibrations.curve import brier, cluster_mean, reliability


def simulated(count=400, size=4, scale=1.3, prompts=60, seed=0):
    """Scores, ranks, offsets and prompts of people who choose by a softmax of scale · score."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(count, size))
    noisy = scale * scores + rng.gumbel(size=(count, size))
    ranks = np.argsort(np.argsort(-noisy, axis=1), axis=1) + 1
    labels = np.array([f"p{k:03d}" for k in rng.integers(0, prompts, count)])
    return scores.ravel(), ranks.ravel(), np.arange(0, count * size + 1, size), labels


def simulated_pairs(count=500, scale=0.7, prompts=50, seed=0, ties=0.1):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, count))
    won = (rng.random(count) < 1 / (1 + np.exp(-scale * (first - second)))).astype(float)
    won[rng.random(count) < ties] = 0.5
    return first, second, won, rng.integers(0, prompts, count)


def slow_loss(scale, scores, ranks, offsets, rule="first"):
    """One choice at a time: the negative log-likelihood of what was put first, or of every duel."""
    losses = []
    for start, end in pairwise(offsets):
        own, places = scores[start:end], ranks[start:end]
        if rule == "first":
            logs = [math.log(sum(math.exp(scale * (t - s)) for t in own)) for s in own]
            best = [log for log, rank in zip(logs, places, strict=True) if rank == min(places)]
            losses.append(sum(best) / len(best))
            continue
        is_pick = set(places) == {min(places), max(places)}
        for i in range(len(own)):
            for j in range(i + 1, len(own)):
                if places[i] == places[j] > min(places) and is_pick:
                    continue
                log = [math.log1p(math.exp(-scale * sign * (own[i] - own[j]))) for sign in (1, -1)]
                won = 0.5 if places[i] == places[j] else float(places[i] < places[j])
                losses.append(won * log[0] + (1 - won) * log[1])
    return losses


@pytest.mark.parametrize("rule", ["first", "pairs"])
@pytest.mark.parametrize("tie", [False, True])
def test_the_scale_is_where_a_slow_search_finds_it(rule, tie) -> None:
    scores, ranks, offsets, prompts = simulated(60)
    if tie:
        ranks = np.minimum(ranks, 2) if rule == "pairs" else np.maximum(ranks - 1, 1)
    found = calibrate_choices(scores, ranks, offsets, prompts, CalibrationSettings(rule=rule))

    def mean(scale):
        return float(np.mean(slow_loss(scale, scores, ranks, offsets, rule)))

    best = optimize.minimize_scalar(mean, bounds=(0, 5), options={"xatol": 1e-9}, method="bounded")
    assert found.fit.scale == pytest.approx(best.x, abs=1e-6)
    assert found.losses.after == pytest.approx(mean(found.fit.scale))
    assert found.losses.before == pytest.approx(mean(1.0))
    assert found.losses.chance == pytest.approx(math.log(4 if rule == "first" else 2))
    assert found.losses.after <= min(found.losses.before, found.losses.held_out)


def test_duels_equal_a_logit_of_statsmodels_with_clustered_errors() -> None:
    api = pytest.importorskip("statsmodels.api")
    first, second, won, prompts = simulated_pairs()
    found = calibrate_pairs(first, second, won, prompts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = api.GLM(won, (first - second)[:, None], family=api.families.Binomial())
        plain = model.fit(tol=1e-14)
        options = {"groups": prompts, "use_correction": False}
        clustered = model.fit(cov_type="cluster", cov_kwds=options, tol=1e-14)
    total = len(np.unique(prompts))
    assert found.fit.scale == pytest.approx(plain.params[0], abs=1e-6)
    assert found.fit.model_error == pytest.approx(plain.bse[0], abs=1e-6)
    error = clustered.bse[0] * math.sqrt(total / (total - 1))
    assert found.fit.standard_error == pytest.approx(error, abs=1e-6)
    half = stats.t.ppf(0.975, total - 1) * error
    assert found.fit.high - found.fit.low == pytest.approx(2 * half, abs=1e-6)


def test_picks_equal_a_conditional_logit_of_statsmodels() -> None:
    discrete = pytest.importorskip("statsmodels.discrete.conditional_models")
    scores, ranks, offsets, prompts = simulated(80)
    groups = np.repeat(np.arange(80), 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = discrete.ConditionalLogit(
            (ranks == 1).astype(float), scores[:, None], groups=groups
        )
        oracle = model.fit(disp=0, method="newton")
    found = calibrate_choices(scores, ranks, offsets, prompts)
    assert found.fit.scale == pytest.approx(oracle.params[0], abs=1e-6)
    assert found.fit.model_error == pytest.approx(oracle.bse[0], abs=1e-5)


def test_the_interval_covers_the_truth_and_grows_with_clusters() -> None:
    covered = 0
    for seed in range(200):
        data = simulated(80, size=3, scale=1.0, prompts=30, seed=seed)
        fit = calibrate_choices(*data).fit
        covered += fit.low <= 1.0 <= fit.high
    assert 0.91 <= covered / 200 <= 0.985
    first, second, won, _ = simulated_pairs(200, ties=0)
    once = calibrate_pairs(first, second, won, np.arange(200)).fit
    twice = (np.tile(column, 4) for column in (first, second, won, np.arange(200)))
    again = calibrate_pairs(*twice).fit
    assert again.scale == pytest.approx(once.scale)
    assert again.standard_error == pytest.approx(once.standard_error)
    assert again.model_error == pytest.approx(once.model_error / 2)


def test_a_prompt_is_never_fitted_and_judged_at_once() -> None:
    scores, ranks, offsets, prompts = simulated(200)
    found = calibrate_choices(scores, ranks, offsets, prompts)
    names = np.unique(prompts)
    order = np.random.default_rng(0).permutation(len(names))
    losses = []
    for number, scale in enumerate(found.fold_scales):
        inside = np.isin(prompts, names[order % 5 == number])
        rows = np.repeat(inside, 4)
        left = np.arange(0, 4 * (~inside).sum() + 1, 4)
        other = calibrate_choices(scores[~rows], ranks[~rows], left, prompts[~inside])
        assert scale == pytest.approx(other.fit.scale, abs=1e-8)
        bounds = np.arange(0, 4 * inside.sum() + 1, 4)
        losses += slow_loss(scale, scores[rows], ranks[rows], bounds)
    assert found.losses.held_out == pytest.approx(np.mean(losses))
    assert found.losses.gain.value == pytest.approx(found.losses.before - np.mean(losses))


def test_probabilities_come_true_after_calibration_and_not_before() -> None:
    data = simulated(6000, scale=0.4, prompts=1500)
    found = calibrate_choices(*data, CalibrationSettings(before=3.0))
    assert found.losses.gain.low > 0
    before, after = found.before.by_count, found.held_out.by_count
    assert before.error > 0.15
    assert before.error_if_calibrated is not None
    assert before.error > 5 * before.error_if_calibrated
    assert after.error < 2 * after.error_if_calibrated
    assert abs(after.squared_error) < before.squared_error / 50
    inside = [one.happened.low <= one.said <= one.happened.high for one in after.bins]
    assert sum(inside) >= len(inside) - 1
    assert found.held_out.brier.value < found.before.brier.value


@settings(max_examples=30)
@given(st.integers(0, 50), st.randoms())
def test_order_names_sides_and_units_do_not_matter(seed, random) -> None:
    first, second, won, prompts = simulated_pairs(60, seed=seed, prompts=12)
    there = calibrate_pairs(first, second, won, prompts)
    rows = list(range(60))
    random.shuffle(rows)
    swap = np.array([random.random() < 0.5 for _ in rows])
    left, right = np.where(swap, second, first), np.where(swap, first, second)
    names = np.array([f"n{number:02d}" for number in prompts])
    turned = (7 * left + 3, 7 * right + 3, np.where(swap, 1 - won, won), names)
    back = calibrate_pairs(*(column[rows] for column in turned), CalibrationSettings(before=1 / 7))
    assert 7 * back.fit.scale == pytest.approx(there.fit.scale, abs=1e-9)
    assert 7 * back.fit.standard_error == pytest.approx(there.fit.standard_error, abs=1e-9)
    assert back.losses.held_out == pytest.approx(there.losses.held_out)
    assert back.losses.before == pytest.approx(there.losses.before)
    assert back.before.brier.value == pytest.approx(there.before.brier.value)
    assert back.before.by_width.error == pytest.approx(there.before.by_width.error)


def test_duels_are_choices_between_two_images() -> None:
    first, second, won, prompts = simulated_pairs(80)
    ranks = np.stack([2 - won, 1 + won], axis=1)
    flat = np.where(won[:, None] == 0.5, 1, np.round(ranks)).astype(int).ravel()
    scores = np.stack([first, second], axis=1).ravel()
    offsets = np.arange(0, 161, 2)
    duels = calibrate_pairs(first, second, won, prompts)
    for rule in ("first", "pairs"):
        how = CalibrationSettings(rule=rule)
        choices = calibrate_choices(scores, flat, offsets, prompts, how)
        assert choices.fit == duels.fit
        assert choices.held_out == duels.held_out


def test_ties_are_half_or_left_out() -> None:
    first, second, won, prompts = simulated_pairs(120)
    half = calibrate_pairs(first, second, won, prompts)
    drop = calibrate_pairs(first, second, won, prompts, CalibrationSettings(human_ties="drop"))
    kept = won != 0.5
    alone = calibrate_pairs(first[kept], second[kept], won[kept], prompts[kept])
    assert drop.fit == alone.fit
    assert (drop.answers, drop.left_out) == (int(kept.sum()), int((~kept).sum()))
    assert (half.answers, half.left_out) == (120, 0)
    assert half.fit.scale < drop.fit.scale
    with pytest.raises(DataError, match="none of 120 answers has a decision"):
        tied = np.full(120, 0.5)
        calibrate_pairs(first, second, tied, prompts, CalibrationSettings(human_ties="drop"))
    assert calibrate_pairs(first, second, np.full(120, 0.5), prompts).fit.scale == pytest.approx(0)


def test_who_picks_one_of_four_has_not_compared_the_others() -> None:
    scores, ranks, offsets, prompts = simulated(50)
    picks = np.minimum(ranks, 2)
    found = calibrate_choices(scores, picks, offsets, prompts, CalibrationSettings(rule="pairs"))
    assert (found.answers, found.left_out) == (150, 150)
    three = np.minimum(ranks, 3)  # three ranks are an order, in which equal ranks are ties
    found = calibrate_choices(scores, three, offsets, prompts, CalibrationSettings(rule="pairs"))
    assert (found.answers, found.left_out) == (300, 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_scorer_that_is_never_wrong_or_never_right_is_refused_or_bounded(sign) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 40))
    won = (sign * (first - second) > 0).astype(float)
    often = "never wrong" if sign > 0 else "never right"
    with pytest.raises(DataError, match=rf"the scorer is {often} on 40 answers.*give a bound"):
        calibrate_pairs(first, second, won)
    found = calibrate_pairs(first, second, won, settings=CalibrationSettings(bound=20.0))
    assert found.fit.bounded
    assert found.fit.scale * found.fit.typical == pytest.approx(sign * 20)
    assert found.fit.standard_error is None
    assert found.fit.temperature == (pytest.approx(1 / found.fit.scale) if sign > 0 else None)
    assert "at its bound" in calibration_table(found)


def test_one_wrong_answer_is_missed_by_a_fold() -> None:
    gap = np.linspace(0.1, 2, 40)
    won = np.ones(40)
    won[0] = 0
    with pytest.raises(DataError, match=r"without fold \d of 5: the scorer is never wrong on 32"):
        calibrate_pairs(gap, np.zeros(40), won)
    found = calibrate_pairs(gap, np.zeros(40), won, settings=CalibrationSettings(bound=100.0))
    assert not found.fit.bounded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": np.zeros(3)}, "do not match"),
        ({"outcome": np.array([1.0, 0.2])}, "an outcome is not 1, 0 or 0.5"),
        ({"first": np.array([1.0, np.nan])}, "a score is not a finite number"),
        ({"first": np.zeros(2), "second": np.zeros(2)}, "have the same score"),
        ({"prompts": ["a", "a"]}, "all answers are about one prompt"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(change, message) -> None:
    given_ = {"first": np.array([1.0, 2.0]), "second": np.zeros(2), "outcome": np.array([1.0, 0.0])}
    with pytest.raises(DataError, match=message):
        calibrate_pairs(**(given_ | change))


def test_settings_and_offsets_that_give_nothing_are_refused() -> None:
    for name, value, message in (
        ("folds", 1, "1 folds"),
        ("bound", -1.0, "a bound of -1"),
        ("before", math.inf, "a scale of inf"),
    ):
        with pytest.raises(DataError, match=message):
            CalibrationSettings(**{name: value})
    with pytest.raises(DataError, match="at least two images"):
        calibrate_choices([1.0, 2.0, 3.0], [1, 2, 1], [0, 2, 3])
    with pytest.raises(DataError, match="do not match"):
        calibrate_choices([1.0, 2.0], [1, 2, 1], [0, 2])


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(-3, 3))
def test_shares_are_a_softmax_and_a_pair_is_a_logistic(values, scale) -> None:
    offsets = [0, 2, len(values)] if len(values) > 3 else [0, len(values)]
    found = shares(values, offsets, scale)
    slow = []
    for start, end in pairwise(offsets):
        raised = [math.exp(scale * value) for value in values[start:end]]
        slow += [one / sum(raised) for one in raised]
    assert found == pytest.approx(slow)
    pair = 1 / (1 + math.exp(-scale * (values[0] - values[1])))
    assert shares(values[:2], [0, 2], scale)[0] == pytest.approx(pair)


rows = st.lists(
    st.tuples(st.sampled_from([k / 8 for k in range(9)]), st.sampled_from([0.0, 0.5, 1.0])),
    min_size=1,
    max_size=40,
)


@given(rows, st.sampled_from(["count", "width"]), st.integers(1, 6), st.randoms())
def test_a_curve_is_the_obvious_one_in_any_order(pairs, by, bins, random) -> None:
    said, happened = (np.array(column) for column in zip(*pairs, strict=True))
    found = reliability(said, happened, bins=bins, by=by)
    assert sum(one.count for one in found.bins) == len(pairs)
    assert all(one.lowest <= one.said + 1e-12 <= one.highest + 2e-12 for one in found.bins)
    assert [one.lowest for one in found.bins] == sorted(one.lowest for one in found.bins)
    error = 0.0
    for one in found.bins:
        inside = (said >= one.lowest) & (said <= one.highest)
        assert inside.sum() == one.count
        error += inside.mean() * abs(said[inside].mean() - happened[inside].mean())
    assert found.error == pytest.approx(error)
    random.shuffle(pairs)
    again = reliability(*zip(*pairs, strict=True), bins=bins, by=by)
    assert [one.count for one in again.bins] == [one.count for one in found.bins]
    assert again.error == pytest.approx(found.error)


def test_bins_have_equal_counts_or_equal_widths() -> None:
    said = np.linspace(0, 1, 101) ** 2
    counts = [one.count for one in reliability(said, said.round(), bins=10).bins]
    assert max(counts) - min(counts) <= 1
    wide = reliability(said, said.round(), bins=4, by="width").bins
    assert [one.lowest >= 0.25 * k for k, one in enumerate(wide)] == [True] * 4
    assert reliability([1.0], [1.0], bins=4, by="width").bins[0].highest == 1


def test_the_expected_error_of_perfect_probabilities_is_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    errors, chance, squares = [], [], []
    for _ in range(200):
        said = rng.random(300)
        happened = (rng.random(300) < said).astype(float)
        found = reliability(said, happened)
        errors.append(found.error)
        chance.append(found.error_if_calibrated)
        squares.append(found.squared_error)
    assert np.mean(chance) == pytest.approx(np.mean(errors), rel=0.05)
    assert abs(np.mean(squares)) < 3 * np.std(squares) / math.sqrt(200)
    assert np.mean(errors) > 0.03  # what the debiased error is free of


def test_intervals_of_bins_allow_for_clusters_and_for_certainty() -> None:
    rng = np.random.default_rng(0)
    said = np.full(200, 0.5)
    prompt = np.repeat(np.arange(20), 10)
    happened = (rng.random(20) < 0.5).astype(float)[prompt]  # a prompt decides all its rows
    (narrow,), (wide,) = (reliability(said, happened, clusters).bins for clusters in (None, prompt))
    assert wide.happened.high - wide.happened.low > 2 * (narrow.happened.high - narrow.happened.low)
    (sure,) = reliability(said[:10], np.ones(10)).bins
    assert 0.6 < sure.happened.low < sure.happened.high == 1
    alone = reliability(said, happened, np.zeros(200))
    assert (alone.bins[0].happened.low, alone.error_if_calibrated) == (None, None)
    assert json.dumps(alone.to_dict())


def test_the_brier_score_and_means_are_those_of_other_libraries() -> None:
    first, second, won, prompts = simulated_pairs(ties=0)
    said = 1 / (1 + np.exp(second - first))
    assert brier(said, won).value == pytest.approx(np.mean((said - won) ** 2))
    both = brier(np.stack([said, 1 - said]).T.ravel(), np.stack([won, 1 - won]).T.ravel())
    assert both.value == pytest.approx(brier(said, won).value)
    assert brier([0.5, 0.5], [1.0, 0.0]).value == 0.25
    plain = cluster_mean(said, np.arange(len(said)))
    half = stats.t.ppf(0.975, len(said) - 1) * stats.sem(said)
    assert plain.high - plain.value == pytest.approx(half)
    api = pytest.importorskip("statsmodels.api")
    options = {"groups": prompts, "use_correction": False}
    fitted = api.OLS(said, np.ones((len(said), 1))).fit(cov_type="cluster", cov_kwds=options)
    total = len(np.unique(prompts))
    clustered = cluster_mean(said, np.unique(prompts, return_inverse=True)[1])
    error = fitted.bse[0] * math.sqrt(total / (total - 1)) * stats.t.ppf(0.975, total - 1)
    assert clustered.high - clustered.value == pytest.approx(error)


@pytest.mark.parametrize(
    ("said", "happened", "message"),
    [
        ([], [], "do not match"),
        ([0.5], [0.5, 1.0], "do not match"),
        ([1.5], [1.0], "a probability is not between 0 and 1"),
        ([0.5], [math.nan], "an outcome is not between 0 and 1"),
    ],
)
def test_what_is_no_probability_is_refused(said, happened, message) -> None:
    with pytest.raises(DataError, match=message):
        reliability(said, happened)


def test_a_result_is_plain_data_and_a_short_table() -> None:
    found = calibrate_choices(*simulated(100))
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["fit"]["temperature"] == pytest.approx(1 / found.fit.scale)
    assert told["settings"]["rule"] == "first"
    table = calibration_table(found)
    assert "100 answers on" in table
    assert f"{found.losses.held_out:.4f}" in table


@settings(max_examples=40)
@given(st.floats(0.01, 100), st.integers(0, 20))
def test_newton_finds_the_scale_whatever_its_size(scale, seed) -> None:
    rng = np.random.default_rng(seed)
    gap = rng.normal(size=60) / scale
    won = (rng.random(60) < 1 / (1 + np.exp(-2 * scale * gap))).astype(float)
    assume(np.sum(won != (gap > 0)) > 0)
    how = CalibrationSettings(bound=1000.0)
    found = calibrate_pairs(gap, np.zeros(60), won, settings=how).fit
    slope = np.sum(gap * (won - 1 / (1 + np.exp(-found.scale * gap))))
    assert abs(slope) * scale < 1e-6 or found.bounded


def test_the_example_of_the_page_runs(root: Path) -> None:
    page = (root / "docs" / "statistics" / "calibration.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (told,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["table"] == told.rstrip("\n")

"""Bradley and Terry's model and its ties: equal to slow twins and public libraries, and lawful."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from palate.errors import DataError
from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry
from palate.stats.rankings.duel_likelihood import DuelLikelihood
from palate.stats.rankings.duel_table import duel_table, win_rates
from palate.stats.rankings.expected_wins import expected_wins
from palate.stats.rankings.likelihood import NoMaximumError
from palate.stats.rankings.strengths import Strengths

RULES = ["half", "drop", "davidson", "rao-kupper"]


def make_duels(seed: int = 0, count: int = 400, items: int = 5, side: float = 0.0):
    """Make answers with ties, a first-shown advantage, prompts and people that repeat."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, items, count)
    second = (first + rng.integers(1, items, count)) % items
    strength = np.linspace(-1, 1, items)
    chance = 1 / (1 + np.exp(strength[second] - strength[first] - side))
    outcome = np.where(rng.random(count) < chance, 1.0, 0.0)
    outcome[rng.random(count) < 0.2] = 0.5
    names = np.array([f"g{number}" for number in range(items)])
    prompts, people = rng.integers(0, 40, count), rng.integers(0, 12, count)
    return names[first], names[second], outcome, prompts, people


def slow_probability(eta: float, outcome: float, rule: str, tie: float) -> float:
    """The probability of one outcome as the docstring states it."""
    if rule == "davidson":
        parts = {1.0: math.exp(eta / 2), 0.5: tie, 0.0: math.exp(-eta / 2)}
        return parts[outcome] / sum(parts.values())
    if rule == "rao-kupper":
        won, lost = 1 / (1 + tie * math.exp(-eta)), 1 / (1 + tie * math.exp(eta))
        return {1.0: won, 0.0: lost, 0.5: 1 - won - lost}[outcome]
    won = 1 / (1 + math.exp(-eta))
    return won**outcome * (1 - won) ** (1 - outcome)


def slow_likelihood(theta, duels, rule, items, side=None, covariate=None) -> float:
    first, second, outcome = duels
    place = {item: number for number, item in enumerate(items)}
    total, tie = 0.0, 1.0
    if rule == "davidson":
        tie = math.exp(theta[-1])
    if rule == "rao-kupper":
        tie = 1 + math.exp(theta[-1])
    for row, (a, b, won) in enumerate(zip(first, second, outcome, strict=True)):
        eta = theta[place[a]] - theta[place[b]]
        if side:
            eta += theta[len(items)]
        if covariate is not None:
            eta += theta[len(items) + bool(side)] * covariate[row]
        if rule == "drop" and won == 0.5:
            continue
        total += math.log(slow_probability(eta, won, rule, tie))
    return total


def slow_fit(duels, rule, side=None, covariate=None):
    items = sorted(set(duels[0]) | set(duels[1]))
    extra = bool(side) + (covariate is not None) + (rule in {"davidson", "rao-kupper"})

    def loss(theta) -> float:
        # A weak pull of the mean to zero fixes what differences leave open.
        own = slow_likelihood(theta, duels, rule, items, side, covariate)
        return -own + theta[: len(items)].mean() ** 2

    found = minimize(loss, np.zeros(len(items) + extra), method="BFGS", options={"gtol": 1e-7})
    return found.x, -found.fun


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("side", [False, True])
def test_a_slow_twin_finds_the_same_maximum(rule: str, side: bool) -> None:
    first, second, outcome, *_ = make_duels(count=60, items=3, side=0.4)
    covariate = np.random.default_rng(5).normal(3, 2, len(first))
    theta, value = slow_fit((first, second, outcome), rule, side, covariate)
    found = bradley_terry(
        first,
        second,
        outcome,
        covariates={"length": covariate},
        settings=DuelSettings(ties=rule, side=side),
    )
    assert found.log_likelihood == pytest.approx(value, abs=1e-7)
    assert found.strengths == pytest.approx(theta[:3], abs=2e-5)
    assert found.effects[-1].value == pytest.approx(theta[3 + side], abs=2e-5)
    if rule == "davidson":
        assert found.ties[0].value == pytest.approx(math.exp(theta[-1]), abs=2e-5)
    if rule == "rao-kupper":
        assert found.ties[0].value == pytest.approx(1 + math.exp(theta[-1]), abs=2e-5)


@pytest.mark.parametrize("rule", RULES)
def test_derivatives_agree_with_differences(rule: str) -> None:
    first, second, outcome, *_ = make_duels(count=80, items=4)
    table = duel_table(first, second, outcome, drop_ties=rule == "drop")
    rng = np.random.default_rng(3)
    design = rng.normal(size=(len(table.first), 2))
    likelihood = DuelLikelihood(table, design, ("x", "y"), rule)
    theta = rng.normal(0, 0.5, len(likelihood.names))
    theta[-1] = 0.4
    value, slope, curve = likelihood.evaluate(theta)
    scores = likelihood.scores(theta)
    summed = np.bincount(scores.parameter, weights=scores.value, minlength=len(theta))
    assert summed == pytest.approx(slope, abs=1e-10)
    for place in range(len(theta)):
        step = np.zeros(len(theta))
        step[place] = 1e-5
        above, below = likelihood.evaluate(theta + step), likelihood.evaluate(theta - step)
        assert (above[0] - below[0]) / 2e-5 == pytest.approx(slope[place], abs=1e-6)
        assert (below[1] - above[1]) / 2e-5 == pytest.approx(curve[:, place], abs=1e-6)
    assert value < 0


def test_choix_finds_the_same_strengths() -> None:
    choix = pytest.importorskip("choix")
    first, second, outcome, *_ = make_duels()
    items = sorted(set(first))
    place = {item: number for number, item in enumerate(items)}
    pairs = [
        (place[a], place[b]) if won == 1 else (place[b], place[a])
        for a, b, won in zip(first, second, outcome, strict=True)
        if won != 0.5
    ]
    found = bradley_terry(first, second, outcome, settings=DuelSettings(ties="drop"))
    newton = choix.opt_pairwise(len(items), pairs, alpha=0.0, tol=1e-12)
    spectral = choix.ilsr_pairwise(len(items), pairs, tol=1e-12)
    assert found.strengths == pytest.approx(newton - newton.mean(), abs=1e-6)
    assert found.strengths == pytest.approx(spectral - spectral.mean(), abs=1e-6)


def test_evalica_finds_the_same_strengths() -> None:
    evalica = pytest.importorskip("evalica")
    first, second, outcome, *_ = make_duels()
    kind = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    columns = list(first), list(second), [kind[won] for won in outcome.tolist()]
    half = evalica.bradley_terry(*columns, tolerance=1e-13, limit=100_000)
    told = np.log(half.scores.sort_index().to_numpy())
    found = bradley_terry(first, second, outcome)
    assert found.strengths == pytest.approx(told - told.mean(), abs=1e-6)
    newman = evalica.newman(*columns, tolerance=1e-13, limit=100_000)
    told = np.log(newman.scores.sort_index().to_numpy())
    found = bradley_terry(first, second, outcome, settings=DuelSettings(ties="davidson"))
    assert found.strengths == pytest.approx(told - told.mean(), abs=1e-6)
    # Newman's v is half of Davidson's ν.
    assert found.ties[0].value == pytest.approx(2 * newman.v, abs=1e-6)


def statsmodels_errors(design, outcome, groups=None):
    """Covariance of a logistic regression, without the corrections that we make ourselves."""
    api = pytest.importorskip("statsmodels.api")
    model = api.GLM(outcome, design, family=api.families.Binomial())
    if groups is None:
        return model.fit(tol=1e-13)
    options = {"groups": groups, "use_correction": False}
    return model.fit(tol=1e-13, cov_type="cluster", cov_kwds=options)


def test_statsmodels_gives_the_same_errors_effects_and_sandwich() -> None:
    first, second, outcome, prompts, people = make_duels(side=0.3)
    items = sorted(set(first))
    covariate = np.random.default_rng(1).normal(size=len(first))
    against = [(first == item) * 1.0 - (second == item) for item in items[1:]]
    design = np.stack([*against, np.ones(len(first)), covariate], axis=1)
    # From "item 0 is zero" to "their sum is zero".
    turn = np.eye(5)[:, 1:] - 1 / 5
    cells = np.unique(prompts * 1000 + people, return_inverse=True)[1]
    by = {"prompts": prompts, "people": people, "cells": cells}
    spread = {}
    for name, codes in by.items():
        size = len(np.unique(codes))
        own = statsmodels_errors(design, outcome, codes).cov_params()
        spread[name] = own * size / (size - 1)
    both = spread["prompts"] + spread["people"] - spread["cells"]
    wanted = {"prompts": spread["prompts"], "people": spread["people"], "two-way": both}
    wanted["model"] = statsmodels_errors(design, outcome).cov_params()
    for errors, covariance in wanted.items():
        found = bradley_terry(
            *(first, second, outcome, None, prompts, people),
            covariates={"x": covariate},
            settings=DuelSettings(side=True, errors=errors),
        )
        reference = statsmodels_errors(design, outcome)
        assert found.strengths == pytest.approx(turn @ reference.params[:4], abs=1e-6)
        assert [e.value for e in found.effects] == pytest.approx(reference.params[4:], abs=1e-6)
        # Their difference of matrices may have negative eigenvalues, which ours sets to zero.
        if np.linalg.eigvalsh(covariance).min() < 0:
            continue
        assert found.covariance == pytest.approx(turn @ covariance[:4, :4] @ turn.T, abs=1e-6)
        told = [effect.error for effect in found.effects]
        assert told == pytest.approx(np.sqrt(np.diag(covariance)[4:]), abs=1e-6)
        assert errors in {"model", "two-way"} or f"by {errors}" in found.method


def slow_sandwich(first, second, outcome, labels, found: Strengths):
    """One duel at a time, by name."""
    items = list(found.items)
    information = np.zeros((len(items), len(items)))
    sums = {}
    for a, b, won, label in zip(first, second, outcome, labels, strict=True):
        direction = np.zeros(len(items))
        direction[items.index(a)], direction[items.index(b)] = 1, -1
        chance = 1 / (1 + math.exp(-direction @ found.strengths))
        information += chance * (1 - chance) * np.outer(direction, direction)
        sums[label] = sums.get(label, 0) + (won - chance) * direction
    meat = sum(np.outer(vector, vector) for vector in sums.values())
    bread = np.linalg.pinv(information)
    return bread @ meat @ bread * len(sums) / (len(sums) - 1)


@pytest.mark.parametrize("labels", ["prompts", "people"])
def test_the_sandwich_is_the_obvious_one(labels: str) -> None:
    first, second, outcome, prompts, people = make_duels(seed=4, count=120)
    codes = {"prompts": prompts, "people": people}
    found = bradley_terry(
        *(first, second, outcome, None, prompts, people), settings=DuelSettings(errors=labels)
    )
    wanted = slow_sandwich(first, second, outcome, codes[labels], found)
    assert found.covariance == pytest.approx(wanted, abs=1e-9)
    assert found.freedom == len(set(codes[labels].tolist())) - 1
    assert found.errors == pytest.approx(np.sqrt(np.diag(wanted)))


def test_auto_takes_the_labels_that_differ() -> None:
    first, second, outcome, prompts, people = make_duels()
    same, nobody = ["one"] * len(first), [None] * len(first)
    wanted = [
        (prompts, people, "two-way"),
        (prompts, None, "prompts"),
        (prompts, nobody, "prompts"),
        (same, people, "people"),
        (same, nobody, "model"),
        (None, None, "model"),
    ]
    for by, who, kind in wanted:
        assert bradley_terry(first, second, outcome, None, by, who).clustered == kind
    with pytest.raises(DataError, match="errors by people need two people at least, there are 0"):
        settings = DuelSettings(errors="people")
        bradley_terry(first, second, outcome, None, prompts, nobody, settings=settings)


def test_unknown_people_are_each_another_person() -> None:
    first, second, outcome, prompts, people = make_duels(count=100)
    told = [str(code) if code > 3 else None for code in people]
    own = [str(code) if code > 3 else f"stranger {row}" for row, code in enumerate(people)]
    settings = DuelSettings(errors="people")
    given_ = bradley_terry(first, second, outcome, None, prompts, told, settings=settings)
    wanted = bradley_terry(first, second, outcome, None, prompts, own, settings=settings)
    assert given_.covariance == pytest.approx(wanted.covariance, abs=1e-12)
    assert given_.n_people == wanted.n_people == len(set(own))


duel_rows = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from("abcd"),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.integers(0, 5),
    ),
    min_size=8,
    max_size=40,
)


def fit_rows(rows, **settings) -> Strengths:
    first, second, outcome, prompts = [list(column) for column in zip(*rows, strict=True)]
    try:
        return bradley_terry(
            first, second, outcome, None, prompts, settings=DuelSettings(**settings)
        )
    except DataError:
        assume(False)
        raise


@settings(max_examples=25)
@given(duel_rows, st.sampled_from(RULES), st.randoms())
def test_the_order_of_the_rows_does_not_matter(rows, rule: str, random) -> None:
    there = fit_rows(rows, ties=rule)
    random.shuffle(rows)
    back = fit_rows(rows, ties=rule)
    assert there.strengths == pytest.approx(back.strengths, abs=1e-7)
    assert there.covariance == pytest.approx(back.covariance, rel=1e-4, abs=1e-7)


@settings(max_examples=25)
@given(duel_rows, st.sampled_from(RULES))
def test_swapping_the_sides_changes_nothing_but_the_sign_of_the_side(rows, rule: str) -> None:
    there = fit_rows(rows, ties=rule, side=True)
    back = fit_rows([(b, a, 1 - won, p) for a, b, won, p in rows], ties=rule, side=True)
    assert there.strengths == pytest.approx(back.strengths, abs=1e-6)
    assert there.effects[0].value == pytest.approx(-back.effects[0].value, abs=1e-6)


@settings(max_examples=25)
@given(duel_rows, st.sampled_from(RULES))
def test_new_names_move_with_their_strengths(rows, rule: str) -> None:
    there = fit_rows(rows, ties=rule)
    new = dict(zip("abcd", [7, 3, 9, 1], strict=True))
    back = fit_rows([(new[a], new[b], won, p) for a, b, won, p in rows], ties=rule)
    for item in there.items:
        assert back[new[item]] == pytest.approx(there[item], abs=1e-7)


@settings(max_examples=25)
@given(duel_rows, st.sampled_from(RULES))
def test_answering_twice_halves_the_variance_of_the_model_but_no_sandwich(rows, rule: str) -> None:
    once, twice = [fit_rows(rows * times, ties=rule, errors="model") for times in (1, 2)]
    assert twice.strengths == pytest.approx(once.strengths, abs=1e-7)
    assert twice.covariance == pytest.approx(once.covariance / 2, rel=1e-4, abs=1e-7)
    assume(len({row[3] for row in rows}) > 1)
    once, twice = [fit_rows(rows * times, ties=rule, errors="prompts") for times in (1, 2)]
    assert twice.covariance == pytest.approx(once.covariance, rel=1e-4, abs=1e-7)


@settings(max_examples=25)
@given(duel_rows)
def test_a_weight_counts_as_rows_do(rows) -> None:
    weights = [number % 3 for number in range(len(rows))]
    repeated = [row for row, weight in zip(rows, weights, strict=True) for _ in range(weight)]
    assume(repeated)
    wanted = fit_rows(repeated, errors="model")
    columns = [list(column) for column in zip(*rows, strict=True)]
    found = bradley_terry(*columns[:3], weights, settings=DuelSettings(errors="model"))
    assert found.strengths == pytest.approx(wanted.strengths, abs=1e-7)
    assert found.covariance == pytest.approx(wanted.covariance, rel=1e-5, abs=1e-8)


def test_without_ties_every_rule_is_bradley_and_terrys() -> None:
    first, second, outcome, *_ = make_duels()
    decided = outcome != 0.5
    columns = first[decided], second[decided], outcome[decided]
    plain = bradley_terry(*columns)
    for rule, bound in (("davidson", 0.0), ("rao-kupper", 1.0)):
        found = bradley_terry(*columns, settings=DuelSettings(ties=rule))
        assert found.strengths == pytest.approx(plain.strengths)
        assert found.ties[0].value == bound
        assert found.to_dict()["ties"][0]["error"] is None
        assert expected_wins(found).rates == pytest.approx(expected_wins(plain).rates)


def test_all_ties_are_equal_strengths_or_a_refusal() -> None:
    first, second, level = ["a", "b", "c"], ["b", "c", "a"], [0.5] * 3
    assert bradley_terry(first, second, level).strengths == pytest.approx([0, 0, 0])
    with pytest.raises(DataError, match="all 3 duels tie"):
        bradley_terry(first, second, level, settings=DuelSettings(ties="davidson"))
    with pytest.raises(DataError, match="none of 3 duels is between two different items"):
        bradley_terry(first, second, level, settings=DuelSettings(ties="drop"))


def test_expected_wins_follow_the_model() -> None:
    first, second, outcome, prompts, people = make_duels()
    for rule in RULES:
        found = bradley_terry(
            *(first, second, outcome, None, prompts, people), settings=DuelSettings(ties=rule)
        )
        wins = expected_wins(found)
        tie = found.ties[0].value if found.ties else 1.0
        for a, one in enumerate(found.strengths):
            for b, other in enumerate(found.strengths):
                eta = one - other
                wanted = slow_probability(eta, 1.0, rule, tie)
                if found.ties:
                    wanted += slow_probability(eta, 0.5, rule, tie) / 2
                assert wins.rates[a, b] == pytest.approx(wanted, abs=1e-12)
        assert wins.average.mean() == pytest.approx(0.5)
        assert ((wins.low < wins.average) & (wins.average < wins.high)).all()
        json.dumps(wins.to_dict(), allow_nan=False)


def test_errors_of_expected_wins_are_the_derivative() -> None:
    first, second, outcome, *_ = make_duels()
    for rule in RULES:
        found = bradley_terry(first, second, outcome, settings=DuelSettings(ties=rule))
        slopes = np.zeros((5, 5))
        for place in range(5):
            moved = []
            for sign in (1, -1):
                strengths = found.strengths.copy()
                strengths[place] += sign * 1e-5
                near = object.__new__(Strengths)
                for name in Strengths.__dataclass_fields__:
                    value = strengths if name == "strengths" else getattr(found, name)
                    object.__setattr__(near, name, value)
                moved.append(expected_wins(near).average)
            slopes[:, place] = (moved[0] - moved[1]) / 2e-5
        wanted = np.sqrt(np.diag(slopes @ found.covariance @ slopes.T))
        assert expected_wins(found).errors == pytest.approx(wanted, rel=1e-5)


def test_duels_of_one_item_with_itself_say_nothing() -> None:
    found = bradley_terry(["a", "b", "c", "a"], ["b", "a", "c", "a"], [1, 1, 1, 0])
    assert (found.items, found.n_duels, found.left_out) == (("a", "b"), 2, 2)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((["a"], ["b", "c"], [1]), "duels of 1 first items, 2 second items and 1 outcomes"),
        ((["a"], ["b"], [2]), "duel 0 has the outcome 2.0, expected 1, 0 or 0.5"),
        ((["a"], ["b"], [math.nan]), "duel 0 has the outcome nan"),
        ((["a"], ["b"], [1], [-1]), "a weight is negative"),
        ((["a"], ["b"], [1], [1, 2]), r"1 answers but weights of shape \(2,\)"),
        ((["a"], ["a"], [1]), "none of 1 duels is between two different items"),
        (([], [], []), "none of 0 duels"),
        ((["a", None], ["b", "a"], [1, 1]), "an item has no label"),
        ((["a", "b"], ["b", "a"], [1, 1], None, ["p"]), "2 answers but 1 prompts"),
    ],
)
def test_columns_that_are_not_duels_are_refused(columns, said: str) -> None:
    with pytest.raises(DataError, match=said):
        bradley_terry(*columns)


def test_covariates_that_say_nothing_are_refused() -> None:
    first, second, outcome, *_ = make_duels(count=60)
    length = {"g0": 1.0, "g1": 2.0, "g2": 0.5, "g3": 4.0, "g4": 3.0}
    of_items = [length[a] - length[b] for a, b in zip(first, second, strict=True)]
    with pytest.raises(DataError, match="cannot tell length from the other parameters"):
        bradley_terry(first, second, outcome, covariates={"length": of_items})
    with pytest.raises(DataError, match="'x' is 0 in every duel"):
        bradley_terry(first, second, outcome, covariates={"x": [0] * 60})
    with pytest.raises(DataError, match="60 duels but covariate 'x'"):
        bradley_terry(first, second, outcome, covariates={"x": [0]})
    with pytest.raises(DataError, match="not a finite number"):
        bradley_terry(first, second, outcome, covariates={"x": [math.inf] * 60})
    with pytest.raises(NoMaximumError, match="no finite maximum: x runs away"):
        won = np.where(outcome == 0.5, 1.0, outcome)
        told = np.where(won == 1, 1.0, -1.0) * np.linspace(1, 2, 60)
        bradley_terry(first, second, won, covariates={"x": told})
    with pytest.raises(NoMaximumError, match="side runs away"):
        always = ["a", "b", "c"] * 2, ["b", "c", "a"] * 2, [1.0] * 6
        bradley_terry(*always, settings=DuelSettings(side=True))


def test_a_covariate_is_told_in_its_own_unit() -> None:
    first, second, outcome, *_ = make_duels()
    values = np.random.default_rng(2).normal(size=len(first))
    small = bradley_terry(first, second, outcome, covariates={"x": values}).effects[0]
    large = bradley_terry(first, second, outcome, covariates={"x": 1000 * values}).effects[0]
    assert large.value == pytest.approx(small.value / 1000)
    assert large.error == pytest.approx(small.error / 1000)


def test_wins_are_counted_pair_by_pair() -> None:
    first, second = ["a", "b", "a", "c", "a", "a"], ["b", "a", "c", "a", "b", "a"]
    table = win_rates(first, second, [1, 1, 0.5, 0, 1, 1])
    assert table.items == ("a", "b", "c")
    assert table.wins.tolist() == [[0, 2, 1], [1, 0, 0], [0, 0, 0]]
    assert table.ties.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert table.losses.tolist() == table.wins.T.tolist()
    assert table.rates[0, 1] == pytest.approx(2 / 3)
    assert table.rates[0, 2] == pytest.approx(0.75)
    assert math.isnan(table.rates[1, 2])
    assert table.overall.tolist() == pytest.approx([3.5 / 5, 1 / 3, 0.25])
    assert table.balanced[0] == pytest.approx((2 / 3 + 0.75) / 2)
    assert table.left_out == 1
    assert win_rates(first, second, [1, 1, 0.5, 0, 1, 1], ties="drop").rates[0, 2] == 1
    assert win_rates(first, second, [1, 1, 0.5, 0, 1, 1], ties="loss").rates[2, 0] == 0
    json.dumps(table.to_dict(), allow_nan=False)


@settings(max_examples=25)
@given(duel_rows)
def test_wins_ties_and_losses_are_all_duels(rows) -> None:
    first, second, outcome, _ = zip(*rows, strict=True)
    try:
        table = win_rates(list(first), list(second), list(outcome))
    except DataError:
        assume(False)
        raise
    assert table.wins.sum() + table.ties.sum() / 2 == len(rows) - table.left_out
    both = table.rates + table.rates.T
    assert both[np.isfinite(both) & ~np.eye(len(table.items), dtype=bool)] == pytest.approx(1)


def test_results_are_plain_and_say_how_they_were_made() -> None:
    first, second, outcome, prompts, people = make_duels()
    settings = DuelSettings(ties="davidson", side=True, prior=0.5)
    found = bradley_terry(first, second, outcome, None, prompts, people, settings=settings)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["model"] == "Davidson"
    assert found.strengths.sum() == pytest.approx(0, abs=1e-12)
    assert (told["n_duels"], told["n_prompts"], told["n_people"]) == (400, 40, 12)
    assert told["method"] == (
        "Davidson, ties have a parameter, with the side, prior of 0.5 pseudo-ties per item, not in "
        "the errors, sandwich errors by prompts and people"
    )
    with pytest.raises(DataError, match="there is no item 'x' among the 5"):
        found["x"]
    with pytest.raises(DataError, match="a prior of -1"):
        DuelSettings(prior=-1.0)
    with pytest.raises(DataError, match=r"level 1.5"):
        DuelSettings(level=1.5)

"""Plackett and Luce's model with ties: equal to slow twins and choix, and lawful."""

from __future__ import annotations

import json
import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from palate.data.duels import pair_index
from palate.errors import DataError
from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry
from palate.stats.rankings.order_likelihood import OrderLikelihood
from palate.stats.rankings.plackett_luce import (
    OrderSettings,
    _Rankings,
    plackett_luce,
    top1_choices,
)
from palate.stats.rankings.strengths import Strengths

RULES = ["davidson-luce", "efron"]


def make_rankings(seed: int = 0, count: int = 80, items: int = 5, ties: bool = True):
    """Partial rankings of two to four items each; where `ties`, neighbours sometimes share a rank."""
    rng = np.random.default_rng(seed)
    strength = np.linspace(-1, 1, items)
    names, ranks, offsets = [], [], [0]
    for _ in range(count):
        size = int(rng.integers(2, 5))
        shown = rng.choice(items, size, replace=False)
        noisy = strength[shown] + rng.gumbel(size=size)
        if ties:
            noisy = np.round(noisy)
        own = [1 + int((noisy > value).sum()) for value in noisy]
        names += [f"g{item}" for item in shown]
        ranks += own
        offsets.append(offsets[-1] + size)
    return names, ranks, offsets


def slow_value(strength, names, ranks, offsets, settings: OrderSettings, nu) -> float:
    """One ranking at a time, from the equations."""
    total = 0.0
    for start, stop in pairwise(offsets):
        left = list(range(start, stop))
        stage = 0
        while len(left) > 1:
            best = min(ranks[entry] for entry in left)
            chosen = [entry for entry in left if ranks[entry] == best]
            if stage == settings.stages or (settings.last == "open" and chosen == left):
                break
            if settings.ties == "efron":
                for gone in range(len(chosen)):
                    all_left = sum(math.exp(strength[names[entry]]) for entry in left)
                    tied = sum(math.exp(strength[names[entry]]) for entry in chosen)
                    total += strength[names[chosen[gone]]]
                    total -= math.log(all_left - gone / len(chosen) * tied)
            else:
                worth = 0.0
                for size, log_nu in nu.items():
                    for members in combinations(left, size) if size <= len(left) else ():
                        mean = sum(strength[names[entry]] for entry in members) / size
                        worth += math.exp(log_nu + mean)
                own = sum(strength[names[entry]] for entry in chosen) / len(chosen)
                total += nu[len(chosen)] + own - math.log(worth)
            left = [entry for entry in left if entry not in chosen]
            stage += 1
    return total


def slow_fit(names, ranks, offsets, settings: OrderSettings, sizes):
    items = sorted(set(names))

    def loss(theta) -> float:
        strength = dict(zip(items, theta, strict=False))
        nu = {1: 0.0, **dict(zip(sizes, theta[len(items) :], strict=True))}
        value = slow_value(strength, names, ranks, offsets, settings, nu)
        return -value + theta[: len(items)].mean() ** 2

    found = minimize(loss, np.zeros(len(items) + len(sizes)), options={"gtol": 1e-7})
    return found.x, -found.fun


@pytest.mark.parametrize(
    "settings",
    [
        OrderSettings(),
        OrderSettings(ties="efron"),
        OrderSettings(last="open"),
        OrderSettings(ties="efron", stages=1),
        OrderSettings(stages=2),
        OrderSettings(stages=1, last="open"),
    ],
    ids=str,
)
def test_a_slow_twin_finds_the_same_maximum(settings: OrderSettings) -> None:
    names, ranks, offsets = make_rankings(count=40, items=4)
    found = plackett_luce(names, ranks, offsets, settings=settings)
    sizes = [int(effect.name.removeprefix("nu_")) for effect in found.ties]
    theta, value = slow_fit(names, ranks, offsets, settings, sizes)
    assert found.log_likelihood == pytest.approx(value, abs=1e-7)
    assert found.strengths == pytest.approx(theta[:4], abs=3e-5)
    assert [effect.value for effect in found.ties] == pytest.approx(np.exp(theta[4:]), abs=3e-5)
    assert bool(sizes) == (settings.ties == "davidson-luce")


@pytest.mark.parametrize("rule", RULES)
def test_derivatives_agree_with_differences(rule: str) -> None:
    names, ranks, offsets = make_rankings(count=30)
    rng = np.random.default_rng(1)
    settings = OrderSettings(ties=rule, side=True)
    table = _Rankings(names, ranks, offsets, settings)
    design, effects, _ = table.design({"x": rng.normal(size=len(names))}, settings)
    orders, _ = table.orders(table.told, np.ones(table.count), design)
    likelihood = OrderLikelihood(orders, effects, rule)
    theta = rng.normal(0, 0.5, len(likelihood.names))
    _, slope, curve = likelihood.evaluate(theta)
    scores = likelihood.scores(theta)
    summed = np.bincount(scores.parameter, weights=scores.value, minlength=len(theta))
    assert summed == pytest.approx(slope, abs=1e-10)
    for place in range(len(theta)):
        step = np.zeros(len(theta))
        step[place] = 1e-5
        above, below = likelihood.evaluate(theta + step), likelihood.evaluate(theta - step)
        assert (above[0] - below[0]) / 2e-5 == pytest.approx(slope[place], abs=1e-6)
        assert (below[1] - above[1]) / 2e-5 == pytest.approx(curve[:, place], abs=1e-6)


def test_choix_finds_the_same_strengths_from_rankings() -> None:
    choix = pytest.importorskip("choix")
    names, ranks, offsets = make_rankings(ties=False)
    data = []
    for start, stop in pairwise(offsets):
        entries = sorted(range(start, stop), key=lambda entry: ranks[entry])
        data.append([int(names[entry][1:]) for entry in entries])
    wanted = choix.opt_rankings(5, data, tol=1e-12)
    spectral = choix.ilsr_rankings(5, data, tol=1e-12)
    for rule in RULES:
        found = plackett_luce(names, ranks, offsets, settings=OrderSettings(ties=rule))
        assert found.strengths == pytest.approx(wanted - wanted.mean(), abs=1e-6)
        assert found.strengths == pytest.approx(spectral - spectral.mean(), abs=1e-6)
        assert found.ties == ()


def test_choix_finds_the_same_strengths_from_picks() -> None:
    choix = pytest.importorskip("choix")
    names, ranks, offsets = make_rankings(ties=False)
    picks = [1 if rank == 1 else 2 for rank in ranks]
    data = []
    for start, stop in pairwise(offsets):
        best = next(entry for entry in range(start, stop) if picks[entry] == 1)
        others = tuple(int(names[entry][1:]) for entry in range(start, stop) if entry != best)
        data.append((int(names[best][1:]), others))
    wanted = choix.opt_top1(5, data, tol=1e-12)
    found = top1_choices(names, picks, offsets)
    assert found.strengths == pytest.approx(wanted - wanted.mean(), abs=1e-6)
    # What stands below the pick does not matter.
    again = top1_choices(names, ranks, offsets)
    assert again.strengths == pytest.approx(found.strengths, abs=1e-9)
    assert "the first choice only" in found.method


def as_duels(names, ranks, offsets):
    """Every ranking of two as a duel."""
    first, second, outcome = [], [], []
    for start in offsets[:-1]:
        first.append(names[start])
        second.append(names[start + 1])
        gap = ranks[start + 1] - ranks[start]
        outcome.append(0.5 if gap == 0 else float(gap > 0))
    return first, second, outcome


def make_pairs():
    names, ranks, offsets = make_rankings(count=300)
    kept = [(a, b) for a, b in pairwise(offsets) if b - a == 2]
    names = [names[entry] for pair in kept for entry in range(*pair)]
    ranks = [ranks[entry] for pair in kept for entry in range(*pair)]
    return names, ranks, list(range(0, len(names) + 1, 2))


def test_rankings_of_two_are_davidsons_duels() -> None:
    pairs = make_pairs()
    prompts = [number % 9 for number in range(len(pairs[2]) - 1)]
    for errors in ("model", "prompts"):
        duels = bradley_terry(
            *as_duels(*pairs),
            None,
            prompts,
            settings=DuelSettings(ties="davidson", side=True, errors=errors),
        )
        found = plackett_luce(
            *pairs, None, prompts, settings=OrderSettings(side=True, errors=errors)
        )
        assert found.strengths == pytest.approx(duels.strengths, abs=1e-8)
        assert found.covariance == pytest.approx(duels.covariance, abs=1e-8)
        assert found.ties[0].value == pytest.approx(duels.ties[0].value, abs=1e-8)
        for own, other in zip(found.effects, duels.effects, strict=True):
            assert (own.value, own.error) == pytest.approx((other.value, other.error), abs=1e-8)
        assert found.n_duels == duels.n_duels
        assert found.log_likelihood == pytest.approx(duels.log_likelihood)


ranking_rows = st.lists(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3)), min_size=1, max_size=4),
    min_size=4,
    max_size=15,
)


def fit_rankings(rankings, **settings) -> Strengths:
    names = [item for ranking in rankings for item, _ in ranking]
    ranks = [rank for ranking in rankings for _, rank in ranking]
    offsets = np.cumsum([0, *[len(ranking) for ranking in rankings]])
    try:
        return plackett_luce(names, ranks, offsets, settings=OrderSettings(**settings))
    except DataError:
        assume(False)
        raise


options = st.fixed_dictionaries(
    {
        "ties": st.sampled_from(RULES),
        "last": st.sampled_from(["tied", "open"]),
        "stages": st.sampled_from([None, 1, 2]),
    }
)


@settings(max_examples=25)
@given(ranking_rows, options, st.randoms())
def test_the_order_of_rankings_and_of_their_entries_does_not_matter(rankings, how, random) -> None:
    there = fit_rankings(rankings, **how)
    for ranking in rankings:
        random.shuffle(ranking)
    random.shuffle(rankings)
    back = fit_rankings(rankings, **how)
    assert there.strengths == pytest.approx(back.strengths, abs=1e-6)
    assert there.covariance == pytest.approx(back.covariance, rel=1e-3, abs=1e-6)


@settings(max_examples=25)
@given(ranking_rows, options)
def test_only_the_order_of_ranks_matters_and_names_move(rankings, how) -> None:
    there = fit_rankings(rankings, **how)
    new = dict(zip("abcd", "wzyx", strict=True))
    moved = [[(new[item], rank * rank + 5) for item, rank in ranking] for ranking in rankings]
    back = fit_rankings(moved, **how)
    for item in there.items:
        assert back[new[item]] == pytest.approx(there[item], abs=1e-6)


@settings(max_examples=25)
@given(ranking_rows, options)
def test_answering_twice_halves_the_variance_of_the_model(rankings, how) -> None:
    once, twice = fit_rankings(rankings, **how), fit_rankings(rankings * 2, **how)
    assert twice.strengths == pytest.approx(once.strengths, abs=1e-6)
    assert twice.covariance == pytest.approx(once.covariance / 2, rel=1e-3, abs=1e-6)
    assert (twice.n_duels, twice.left_out) == (2 * once.n_duels, 2 * once.left_out)


@settings(max_examples=25)
@given(ranking_rows, st.sampled_from(["tied", "open"]))
def test_duels_are_counted_pair_by_pair(rankings, last: str) -> None:
    found = fit_rankings(rankings, ties="efron", last=last, prior=1.0)
    count = 0
    for ranking in rankings:
        worst = max(rank for _, rank in ranking)
        for number, (item, rank) in enumerate(ranking):
            for other, its in ranking[:number]:
                is_open = last == "open" and rank == its == worst
                count += item != other and not is_open
    assert found.n_duels == count


@settings(max_examples=25)
@given(ranking_rows)
def test_items_are_connected_as_all_their_pairs_are(rankings) -> None:
    """Only neighbours in a ranking are looked at; all pairs must give the same groups."""
    found = fit_rankings(rankings, ties="efron", prior=1.0)
    first, second, outcome = [], [], []
    for ranking in rankings:
        if len({item for item, _ in ranking}) < 2:
            continue
        _, left, right = pair_index(np.array([len(ranking)]))
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            first.append(ranking[a][0])
            second.append(ranking[b][0])
            gap = ranking[b][1] - ranking[a][1]
            outcome.append(0.5 if gap == 0 else float(gap > 0))
    wanted = bradley_terry(first, second, outcome, settings=DuelSettings(prior=1.0))
    assert found.connectivity == wanted.connectivity


def test_rankings_that_say_nothing_are_left_out() -> None:
    names = ["a", "b", "a", "b", "a", "a", "a", "a", "b", "c", "b", "a"]
    ranks = [1, 2, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    offsets = [0, 2, 4, 6, 7, 9, 10, 12]
    found = plackett_luce(names, ranks, offsets, settings=OrderSettings(ties="efron"))
    assert (found.items, found.n_choices, found.left_out) == (("a", "b"), 4, 3)
    opened = top1_choices(names, ranks, offsets)
    assert (opened.n_choices, opened.left_out, opened.n_duels) == (2, 5, 2)
    with pytest.raises(DataError, match="none of 1 rankings says which of its items is better"):
        top1_choices(["a", "b"], [1, 1], [0, 2])


def test_a_pick_says_nothing_about_those_not_picked() -> None:
    """Read as ties at the end, the same picks would pull the others together."""
    names, ranks, offsets = make_rankings(count=300, ties=False)
    picks = [min(rank, 2) for rank in ranks]
    found = top1_choices(names, picks, offsets)
    tied = plackett_luce(names, picks, offsets, settings=OrderSettings(ties="efron"))
    assert np.ptp(tied.strengths) < 0.8 * np.ptp(found.strengths)
    assert found.n_duels == sum(rank > 1 for rank in ranks)
    assert tied.n_duels > found.n_duels


def test_the_first_shown_may_have_an_advantage() -> None:
    rng = np.random.default_rng(0)
    names, ranks, offsets = [], [], [0]
    for _ in range(2000):
        shown = rng.permutation(4)
        worth = shown * 0.5 + rng.gumbel(size=4) + np.array([0.8, 0, 0, 0])
        names += [f"g{item}" for item in shown]
        ranks += [1 + int((worth > own).sum()) for own in worth]
        offsets.append(offsets[-1] + 4)
    found = plackett_luce(names, ranks, offsets, settings=OrderSettings(side=True))
    side = found.effects[0]
    assert side.name == "side"
    assert side.low < 0.8 < side.high
    wanted = np.array([-0.75, -0.25, 0.25, 0.75])
    assert (np.abs(found.strengths - wanted) < 4 * found.errors).all()


def test_a_weight_counts_as_rankings_do_and_clusters_widen() -> None:
    names, ranks, offsets = make_rankings()
    weights = [number % 3 for number in range(80)]
    rows = [(names[a:b], ranks[a:b]) for a, b in pairwise(offsets)]
    more = [row for row, weight in zip(rows, weights, strict=True) for _ in range(weight)]
    wanted = plackett_luce(
        [item for row, _ in more for item in row],
        [rank for _, row in more for rank in row],
        np.cumsum([0, *[len(row) for row, _ in more]]),
    )
    found = plackett_luce(names, ranks, offsets, weights)
    assert found.strengths == pytest.approx(wanted.strengths, abs=1e-8)
    assert found.covariance == pytest.approx(wanted.covariance, abs=1e-8)
    people = [number // 20 for number in range(80)]
    both = plackett_luce(names, ranks, offsets, None, list(range(80)), people)
    assert (both.clustered, both.freedom, both.n_people) == ("two-way", 3, 4)
    assert "sandwich errors by prompts and people" in both.method
    json.dumps(both.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offsets": [0, 3]}, "the offsets do not cut"),
        ({"ranks": [1, 2]}, "do not match"),
        ({"weights": [1, 2]}, "weights of shape"),
        ({"people": ["a"]}, "2 answers but 1 people"),
        ({"covariates": {"x": [1, 1, 1, 1]}}, "'x' is the same for all items of every ranking"),
        ({"covariates": {"x": [1, 2]}}, "expected a finite number for each of 4 entries"),
    ],
)
def test_columns_that_are_not_rankings_are_refused(change, said: str) -> None:
    columns = {"items": list("abba"), "ranks": [1, 2, 1, 2], "offsets": [0, 2, 4], **change}
    if "weights" in change:
        columns["weights"] = [1, 2, 3]
    with pytest.raises(DataError, match=said):
        plackett_luce(**columns)


def test_too_many_sets_of_ties_point_to_the_other_rule() -> None:
    names = [f"g{number:02d}" for number in range(24)] * 2
    ranks = [1] * 8 + [2] * 16 + [2] * 16 + [1] * 8
    with pytest.raises(DataError, match="use the rule 'efron'"):
        plackett_luce(names, ranks, [0, 24, 48])
    assert len(plackett_luce(names, ranks, [0, 24, 48], settings=OrderSettings(ties="efron")).items)
    with pytest.raises(DataError, match="0 stages of a ranking, expected at least 1"):
        OrderSettings(stages=0)

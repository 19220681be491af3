"""What has no finite strength is named, and a declared prior fits it without more certainty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from palate.errors import DataError
from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry
from palate.stats.rankings.connectivity import Labels, connect, item_codes, ties_say_more
from palate.stats.rankings.expected_wins import expected_wins
from palate.stats.rankings.likelihood import NoMaximumError
from palate.stats.rankings.plackett_luce import OrderSettings, plackett_luce

CIRCLE = [("a", "b"), ("b", "c"), ("c", "a")]


def fit(pairs, **settings):
    better, worse = zip(*pairs, strict=True)
    return bradley_terry(
        list(better), list(worse), [1.0] * len(pairs), settings=DuelSettings(**settings)
    )


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            [("x", "a"), *CIRCLE],
            "no other item ever beat or tied with x, and none ever lost to or tied with the group of a, b, c",
        ),
        (
            [("a", "y"), *CIRCLE],
            "tied with the group of a, b, c, and none ever lost to or tied with y",
        ),
        ([("p", "q"), ("q", "p"), *CIRCLE], "fall into 2 groups that never met: a, b, c; p, q"),
        (
            [("a", "b")],
            "no other item ever beat or tied with a, and none ever lost to or tied with b",
        ),
    ],
)
def test_items_without_a_finite_strength_are_named(pairs, said: str) -> None:
    with pytest.raises(DataError, match="no finite strengths: ") as caught:
        fit(pairs)
    assert said in str(caught.value)
    assert str(caught.value).endswith("; give a prior, or leave items out")


def test_long_lists_of_names_are_cut() -> None:
    pairs = [(f"g{one}", f"h{one}") for one in range(8)]
    with pytest.raises(DataError, match=r"8 groups .*; and 3 more groups; give"):
        fit(pairs)
    circle = [(f"g{one}", f"g{(one + 1) % 9}") for one in range(9)]
    with pytest.raises(DataError, match="the group of g0, g1, g2, g3, g4 and 4 more"):
        fit([("top", "g0"), *circle])


edges = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: pair[0] != pair[1]),
    min_size=1,
    max_size=14,
)


def slow_reach(pairs, start) -> set[int]:
    found, before = {start}, set()
    while found != before:
        before = set(found)
        found |= {better for better, worse in pairs if worse in found}
    return found


@given(edges)
def test_groups_are_those_that_reach_each_other(pairs) -> None:
    items, columns = item_codes([a for a, _ in pairs], [b for _, b in pairs])
    found = connect(items, *columns)
    above = {item: slow_reach(pairs, item) for item in items}
    groups = {tuple(sorted(o for o in items if o in above[i] and i in above[o])) for i in items}
    assert set(found.groups) == groups
    assert found.connected == (len(groups) == 1)
    out = {group: {b for i in group for b in above[i]} - set(group) for group in groups}
    assert set(found.undefeated) == {group for group in groups if not out[group]}
    both = pairs + [(b, a) for a, b in pairs]
    met = {item: tuple(sorted(slow_reach(both, item))) for item in items}
    assert set(found.apart) == set(met.values())


@given(edges, edges)
def test_a_tie_parameter_is_finite_where_no_direction_grows_for_ever(wins, ties) -> None:
    """The same question as a linear programme: can all answers become more likely at once?"""
    better, worse = np.array(wins).T
    left, right = np.array(ties).T
    every = np.concatenate([better, left, right]), np.concatenate([worse, right, left])
    if not connect(tuple(range(6)), *every).connected:
        return
    rows = []
    for a, b, sign in [*((a, b, 1) for a, b in wins), *((a, b, -1) for a, b in ties)]:
        for one, other in [(a, b)] if sign == 1 else [(a, b), (b, a)]:
            row = np.zeros(6)
            # A win asks for d(a) - d(b) ≥ 1, a tie for differences of at most 1.
            row[one], row[other] = -sign, sign
            rows.append((row, -sign))
    matrix, bound = np.array([row for row, _ in rows]), np.array([side for _, side in rows])
    feasible = linprog(np.zeros(6), matrix, bound, bounds=(None, None)).status == 0
    assert ties_say_more(6, (better, worse), (left, right)) != feasible


@pytest.mark.parametrize("rule", ["davidson", "rao-kupper"])
def test_wins_that_ties_do_not_contradict_have_no_finite_tie_parameter(rule: str) -> None:
    columns = ["a", "a", "a"], ["b", "b", "b"], [1, 0.5, 1]
    assert bradley_terry(*columns)["a"] > 0
    with pytest.raises(NoMaximumError, match="count ties half, or give a prior"):
        bradley_terry(*columns, settings=DuelSettings(ties=rule))
    found = bradley_terry(*columns, settings=DuelSettings(ties=rule, prior=1.0))
    assert math.isfinite(found.ties[0].value)


def test_a_prior_is_pseudo_ties_spread_over_all_others() -> None:
    pairs = [("x", "a"), ("x", "b"), *CIRCLE]
    found = fit(pairs, prior=2.0)
    better, worse = [list(column) for column in zip(*pairs, strict=True)]
    others = [("x", "a"), ("x", "b"), ("x", "c"), ("a", "b"), ("a", "c"), ("b", "c")]
    by_hand = bradley_terry(
        better + [one for one, _ in others],
        worse + [other for _, other in others],
        [1.0] * len(pairs) + [0.5] * 6,
        [1.0] * len(pairs) + [2 / 3] * 6,
    )
    assert found.strengths == pytest.approx(by_hand.strengths, abs=1e-8)
    # It is not counted: the errors are larger than if the pseudo-ties had been answers.
    assert (found.errors > by_hand.errors).all()
    assert found.log_likelihood > by_hand.log_likelihood
    assert "prior of 2 pseudo-ties per item, not in the errors" in found.method
    assert found.n_duels == len(pairs)


def test_errors_under_a_prior_are_the_information_of_the_data() -> None:
    found = fit([("x", "a"), ("x", "b"), *CIRCLE], prior=1.0)
    information = np.zeros((4, 4))
    for one, other in [("x", "a"), ("x", "b"), *CIRCLE]:
        direction = np.zeros(4)
        direction[found.place(one)], direction[found.place(other)] = 1, -1
        chance = 1 / (1 + math.exp(found[other] - found[one]))
        information += chance * (1 - chance) * np.outer(direction, direction)
    assert found.covariance == pytest.approx(np.linalg.pinv(information), abs=1e-8)


def test_groups_that_never_met_are_fitted_apart_and_never_compared() -> None:
    found = fit([("p", "q"), ("q", "p"), ("p", "q"), *CIRCLE], prior=1.0)
    assert found.group.tolist() == [0, 0, 0, 1, 1]
    assert np.isinf(found.errors).all()
    errors = found.difference_errors()
    assert np.isinf(errors[0, 3])
    assert errors[0, 1] > 0
    assert np.isfinite(errors[3, 4])
    assert found.to_dict()["items"][0]["error"] is None
    with pytest.raises(DataError, match="no expected wins: the items fall into 2 groups"):
        expected_wins(found)


def test_a_ranking_without_losses_is_named_too() -> None:
    names, ranks = list("abcabc"), [1, 2, 3, 1, 3, 2]
    with pytest.raises(DataError, match="ever beat or tied with a, and"):
        plackett_luce(names, ranks, [0, 3, 6])
    found = plackett_luce(names, ranks, [0, 3, 6], settings=OrderSettings(prior=1.0))
    assert found["a"] > found["b"] == pytest.approx(found["c"])


def test_more_items_than_memory_holds_are_refused() -> None:
    names = [f"image {number}" for number in range(10_002)]
    with pytest.raises(DataError, match="10002 items to rank, expected at most 10000"):
        bradley_terry(names[::2], names[1::2], [1.0] * 5001)


@given(edges, st.integers(0, 9))
def test_labels_that_are_numbers_are_coded_as_texts_are(pairs, more) -> None:
    names = [f"image {number}" for number in range(6 + more)]
    texts = [[names[pair[side]] for pair in pairs] for side in (0, 1)]
    labels = [Labels(np.array([pair[side] for pair in pairs]), names) for side in (0, 1)]
    items, codes = item_codes(*texts)
    told, numbers = item_codes(*labels)
    assert told == items
    for one, other in zip(numbers, codes, strict=True):
        assert one.tolist() == other.tolist()
    assert list(labels[0]) == texts[0]
    assert list(labels[0][np.arange(len(pairs)) % 2 == 0]) == texts[0][::2]


def test_a_number_that_is_no_label_is_refused() -> None:
    column = Labels(np.array([0, -1]), ["a"])
    assert list(column) == ["a", None]
    with pytest.raises(DataError, match="an item has no label"):
        item_codes(column)
    with pytest.raises(DataError, match="labels of items point into different names"):
        item_codes(Labels(np.array([0]), ["a"]), Labels(np.array([0]), ["b"]))


@given(edges)
def test_few_items_and_many_take_two_ways_to_the_same_groups(pairs) -> None:
    items, columns = item_codes([a for a, _ in pairs], [b for _, b in pairs])
    often = [np.tile(column, 40) for column in columns]
    assert connect(items, *columns) == connect(items, *often)


def test_labels_of_several_types_have_an_order() -> None:
    items, (codes,) = item_codes(np.array(["b", 2, "a", 1, 2], dtype=object))
    assert items == (1, 2, "a", "b")
    assert codes.tolist() == [3, 1, 2, 0, 1]
    assert item_codes([3, 1], [2, 3])[0] == (1, 2, 3)

"""Every accuracy against its obvious twin, and the laws that a tie rule must keep."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import DataError
from palate.stats.accuracy import (
    chance_top1,
    expected_top1,
    pairwise,
    top1,
)
from palate.stats.intervals import Bootstrap

QUICK = Bootstrap(resamples=100)
group = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=2, max_size=5)
groups = st.lists(group, min_size=1, max_size=8)
TIES = ["expected", "wrong", "first"]


def columns(rows):
    scores = [float(score) for row in rows for score, _ in row]
    ranks = [rank for row in rows for _, rank in row]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return scores, ranks, offsets


def slow_top1(rows, ties: str, human_ties: str) -> Fraction | None:
    earned = []
    for row in rows:
        best = [rank == min(rank for _, rank in row) for _, rank in row]
        if all(best) or (human_ties == "drop" and sum(best) > 1):
            continue
        top = [k for k, (score, _) in enumerate(row) if score == max(score for score, _ in row)]
        right = sum(best[k] for k in top)
        if ties == "first":
            earned.append(Fraction(best[top[0]]))
        elif ties == "wrong":
            earned.append(Fraction(right) if len(top) == 1 else Fraction(0))
        else:
            earned.append(Fraction(right, len(top)))
    return sum(earned, Fraction(0)) / len(earned) if earned else None


@given(groups, st.sampled_from(TIES), st.sampled_from(["any", "drop"]))
def test_top1_is_the_obvious_one(rows, ties, human_ties) -> None:
    expected = slow_top1(rows, ties, human_ties)
    if expected is None:
        with pytest.raises(DataError, match="has a decision that can be counted"):
            top1(*columns(rows), ties=ties, human_ties=human_ties, bootstrap=QUICK)
        return
    found = top1(*columns(rows), ties=ties, human_ties=human_ties, bootstrap=QUICK)
    assert found.value == pytest.approx(float(expected))
    assert found.estimate.count + found.left_out == len(rows)
    assert (found.ties, found.human_ties) == (ties, human_ties)


def decided(rows):
    return any(len({rank for _, rank in row}) > 1 for row in rows)


@given(groups.filter(decided))
def test_a_constant_scorer_gets_chance_when_ties_are_fair_and_nothing_when_they_are_wrong(rows):
    scores, ranks, offsets = columns(rows)
    flat = np.zeros(len(scores))
    assert top1(flat, ranks, offsets, bootstrap=QUICK).value == chance_top1(ranks, offsets)
    assert top1(flat, ranks, offsets, ties="wrong", bootstrap=QUICK).value == 0
    first = top1(flat, ranks, offsets, ties="first", bootstrap=QUICK).value
    assert first == top1(-np.arange(len(ranks)), ranks, offsets, bootstrap=QUICK).value


@given(groups.filter(decided), st.randoms())
def test_the_order_shown_matters_to_positional_baselines_only(rows, random) -> None:
    before = top1(*columns(rows), bootstrap=QUICK).value
    turned = [row[::-1] for row in rows]
    places = np.arange(sum(map(len, rows)))
    last = top1(places, *columns(rows)[1:], bootstrap=QUICK).value
    assert top1(-places, *columns(turned)[1:], bootstrap=QUICK).value == last
    for row in rows:
        random.shuffle(row)
    assert top1(*columns(rows), bootstrap=QUICK).value == pytest.approx(before)


def test_chance_is_the_mean_of_one_over_n() -> None:
    ranks = [1, 2, 2, 2, 1, 2, 2, 2, 1]
    assert chance_top1(ranks, [0, 4, 6, 9]) == pytest.approx((1 / 4 + 1 / 2 + 1 / 3) / 3)


def test_chance_counts_every_image_that_was_put_first() -> None:
    assert chance_top1([1, 1, 2, 2], [0, 4]) == 0.5


def test_prompts_are_the_clusters_and_macro_averages_them() -> None:
    scores, ranks = [1, 0, 1, 0, 1, 0], [1, 2, 1, 2, 2, 1]
    rows = (scores, ranks, [0, 2, 4, 6], ["p", "p", "q"])
    assert top1(*rows).value == pytest.approx(2 / 3)
    assert top1(*rows).estimate.clusters == 2
    assert top1(*rows, average="macro").value == 0.5


@given(st.lists(st.integers(2, 5), min_size=1, max_size=6), st.integers(0, 2**32))
def test_expected_top1_is_what_drawn_answers_give_on_average(sizes, seed) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    probabilities = np.concatenate([rng.dirichlet(np.ones(size)) for size in sizes])
    scores = rng.integers(0, 3, offsets[-1])
    found = expected_top1(scores, probabilities, offsets, bootstrap=QUICK).value
    total = 0.0
    for start, stop in itertools.pairwise(offsets):
        for pick in range(start, stop):
            ranks = np.full(stop - start, 2)
            ranks[pick - start] = 1
            one = top1(scores[start:stop], ranks, [0, stop - start], bootstrap=QUICK).value
            total += probabilities[pick] * one
    assert found == pytest.approx(total / len(sizes))
    best = expected_top1(probabilities, probabilities, offsets, bootstrap=QUICK).value
    assert found <= best + 1e-12


def test_probabilities_must_sum_to_one() -> None:
    with pytest.raises(DataError, match="do not sum to 1 in every group"):
        expected_top1([1, 2], [0.5, 0.4], [0, 2])


duels = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.sampled_from("pqr"),
    ),
    min_size=1,
    max_size=20,
)


def slow_pairwise(rows, ties: str, human_ties: str, average: str) -> float | None:
    earned: dict[str, list[float]] = {}
    for first, second, outcome, prompt in rows:
        if outcome == 0.5:
            if human_ties == "drop":
                continue
            credit = {"half": 0.5, "right": 1.0}[human_ties]
        elif first == second:
            credit = {"half": 0.5, "wrong": 0.0, "right": 1.0}[ties]
        else:
            credit = float((first > second) == (outcome == 1))
        earned.setdefault(prompt, []).append(credit)
    if not earned:
        return None
    if average == "macro":
        return sum(sum(own) / len(own) for own in earned.values()) / len(earned)
    return sum(map(sum, earned.values())) / sum(map(len, earned.values()))


@given(
    duels,
    st.sampled_from(["half", "wrong", "right"]),
    st.sampled_from(["drop", "half", "right"]),
    st.sampled_from(["micro", "macro"]),
)
def test_pairwise_is_the_obvious_one(rows, ties, human_ties, average) -> None:
    options = {"ties": ties, "human_ties": human_ties, "average": average, "bootstrap": QUICK}
    expected = slow_pairwise(rows, ties, human_ties, average)
    if expected is None:
        with pytest.raises(DataError, match="duels has a decision"):
            pairwise(*zip(*rows, strict=True), **options)
        return
    found = pairwise(*zip(*rows, strict=True), **options)
    assert found.value == pytest.approx(expected)
    assert found.estimate.count + found.left_out == len(rows)


@given(duels.filter(lambda rows: any(outcome != 0.5 for *_, outcome, _ in rows)))
def test_a_score_and_its_negative_share_the_duels(rows) -> None:
    first, second, outcome, _ = (np.array(column) for column in zip(*rows, strict=True))
    there = pairwise(first, second, outcome, bootstrap=QUICK).value
    back = pairwise(-first, -second, outcome, bootstrap=QUICK).value
    assert there + back == pytest.approx(1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([1.0], [1, 2], [0, 2]), "scores do not match"),
        (([1.0, 2.0], [1, 2], [0, 1]), "offsets do not cut"),
        (([1.0, 2.0], [1, 2], [0, 0, 2]), "offsets do not cut"),
        (([1.0, np.nan], [1, 2], [0, 2]), "a score is not a number"),
    ],
)
def test_bad_columns_are_refused(rows, message) -> None:
    with pytest.raises(DataError, match=message):
        top1(*rows)
    with pytest.raises(DataError, match="do not match"):
        pairwise([1.0], [1.0, 2.0], [1.0, 0.0])


def test_a_result_says_how_it_was_counted() -> None:
    told = top1([1, 0], [1, 2], [0, 2], ties="wrong").to_dict()
    assert told["measure"] == "top-1"
    assert told["ties"] == "wrong"
    assert told["level"] == 0.95

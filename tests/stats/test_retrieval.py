"""Recall@k and Filter@k against every way to break the ties, and their chance."""

from __future__ import annotations

import itertools
import json
from statistics import mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import DataError
from palate.evaluation.published import published_values
from palate.stats.accuracy import NothingDecidedError, chance_top1, top1
from palate.stats.intervals import Bootstrap
from palate.stats.retrieval import filter_at, recall_at

QUICK = Bootstrap(resamples=100)
row = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=2, max_size=5)
groups = st.lists(row, min_size=1, max_size=5)


def columns(rows):
    scores = [float(score) for row in rows for score, _ in row]
    ranks = [rank for row in rows for _, rank in row]
    return scores, ranks, np.concatenate([[0], np.cumsum([len(row) for row in rows])])


def slow_hit(row, k: int) -> float:
    """Share of all orders of the images, sorted by score, with a best image among the first k."""
    best = min(rank for _, rank in row)
    hits = []
    for order in itertools.permutations(row):
        first = sorted(order, key=lambda image: -image[0])[:k]
        hits.append(any(rank == best for _, rank in first))
    return mean(hits)


def counted(row, k: int) -> bool:
    return len(row) > k and len({rank for _, rank in row}) > 1


def turned(rows):
    return [[(-score, -rank) for score, rank in row] for row in rows]


@given(groups, st.integers(1, 4))
def test_recall_is_the_share_of_all_orders_that_hit(rows, k: int) -> None:
    own = [row for row in rows if counted(row, k)]
    if not own:
        with pytest.raises(NothingDecidedError, match=f"recall@{k}: none of {len(rows)} choices"):
            recall_at(k, *columns(rows), bootstrap=QUICK)
        return
    found = recall_at(k, *columns(rows), bootstrap=QUICK)
    assert found.value == pytest.approx(mean(slow_hit(row, k) for row in own))
    blank = [[(0, rank) for _, rank in row] for row in own]
    assert found.chance == pytest.approx(mean(slow_hit(row, k) for row in blank))
    assert found.estimate.count + found.left_out == len(rows)


@given(groups, st.integers(1, 4))
def test_filter_is_recall_of_the_worst(rows, k: int) -> None:
    if not any(counted(row, k) for row in rows):
        return
    found = filter_at(k, *columns(rows), bootstrap=QUICK)
    other = recall_at(k, *columns(turned(rows)), bootstrap=QUICK)
    assert (found.value, found.chance) == pytest.approx((other.value, other.chance))
    assert found.to_dict()["measure"] == f"filter@{k}"


@given(groups.filter(lambda rows: any(counted(row, 1) for row in rows)))
def test_recall_at_1_is_top_1_with_fair_ties(rows) -> None:
    found = recall_at(1, *columns(rows), bootstrap=QUICK)
    fair = top1(*columns(rows), bootstrap=QUICK)
    assert found.value == pytest.approx(fair.value)
    assert (found.estimate.low, found.estimate.high) == pytest.approx(
        (fair.estimate.low, fair.estimate.high), nan_ok=True
    )
    assert found.chance == pytest.approx(chance_top1(*columns(rows)[1:]))


@given(groups.filter(lambda rows: any(counted(row, 2) for row in rows)), st.randoms())
def test_neither_the_order_nor_the_unit_of_the_scores_matters(rows, random) -> None:
    before = recall_at(2, *columns(rows), bootstrap=QUICK)
    rows = [[(10 * score - 3, 2 * rank) for score, rank in row] for row in rows]
    for row in rows:
        random.shuffle(row)
    random.shuffle(rows)
    after = recall_at(2, *columns(rows), bootstrap=QUICK)
    assert (after.value, after.chance) == pytest.approx((before.value, before.chance))


def test_an_oracle_finds_all_and_its_reverse_nothing_until_it_must() -> None:
    ranks, offsets = [1, 2, 3, 4, 4, 3, 2, 1], [0, 4, 8]
    good, bad = [-rank for rank in ranks], ranks
    assert [recall_at(k, good, ranks, offsets).value for k in (1, 2, 3)] == [1, 1, 1]
    assert [recall_at(k, bad, ranks, offsets).value for k in (1, 2, 3)] == [0, 0, 0]
    assert [filter_at(k, good, ranks, offsets).value for k in (1, 2, 3)] == [1, 1, 1]
    assert [recall_at(k, bad, ranks, offsets).chance for k in (1, 2, 3)] == [0.25, 0.5, 0.75]


def test_choices_of_k_images_or_fewer_say_nothing_and_are_counted() -> None:
    found = recall_at(2, [1, 0, 1, 2, 3], [1, 2, 1, 2, 2], [0, 2, 5], ["p", "q"])
    assert (found.estimate.count, found.left_out, found.value) == (1, 1, 0)
    with pytest.raises(DataError, match="recall@0: expected at least the first 1"):
        recall_at(0, [1, 0], [1, 2], [0, 2])


def test_prompts_are_averaged_first_if_asked_for() -> None:
    rows = [[(1, 1), (0, 2)], [(1, 1), (0, 2)], [(0, 1), (1, 2)]]
    macro = recall_at(1, *columns(rows), ["p", "p", "q"], average="macro", bootstrap=QUICK)
    assert (macro.value, macro.estimate.clusters) == (0.5, 2)


def test_every_published_value_is_a_whole_number_of_371_prompts() -> None:
    values = published_values("image-reward-retrieval")
    assert len(values) == 25
    for one in values:
        prompts = round(3.71 * one.value)
        assert 100 * prompts / 371 == pytest.approx(one.value, abs=one.rounding)


def test_chance_on_the_image_reward_test_set_lies_below_the_published_clip(shared) -> None:
    records = json.loads((shared / "data" / "image_reward" / "test.json").read_text())
    rows = [[(0, rank) for rank in record["ranking"]] for record in records]
    found = {
        width: [
            100 * at(k, *columns(own), bootstrap=QUICK).chance
            for at in (recall_at, filter_at)
            for k in (1, 2, 4)
        ]
        for width, own in (("all", rows), ("eight", [row for row in rows if len(row) == 8]))
    }
    assert found["all"] == pytest.approx([25.3, 47.9, 74.3, 23.7, 45.4, 70.1], abs=0.05)
    assert found["eight"] == pytest.approx([21.2, 40.0, 69.9, 20.3, 38.5, 67.9], abs=0.05)
    clip = [one.value for one in published_values("image-reward-retrieval", name="CLIP")]
    for chances in found.values():
        assert all(chance < value for chance, value in zip(chances, clip, strict=True))

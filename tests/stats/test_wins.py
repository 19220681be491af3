"""Wins between methods against one pair at a time, by hand, and the laws that they keep."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import DataError
from palate.stats.intervals import Bootstrap
from palate.stats.wins import win_counts, win_counts_by

QUICK = Bootstrap(resamples=100)
row = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), min_size=2, max_size=4)
groups = st.lists(row, min_size=1, max_size=8)


def columns(rows):
    methods = [method for row in rows for method, _ in row]
    ranks = [rank for row in rows for _, rank in row]
    return methods, ranks, np.concatenate([[0], np.cumsum([len(row) for row in rows])])


def meets(rows) -> bool:
    return any(len({method for method, _ in row}) > 1 for row in rows)


def slow_counts(rows):
    """Wins and ties by (method, other), one pair of images at a time."""
    wins, ties, own = Counter(), Counter(), 0
    for row in rows:
        for (one, rank), (other, its) in itertools.combinations(row, 2):
            if one == other:
                own += 1
            elif rank == its:
                ties[one, other] += 1
                ties[other, one] += 1
            else:
                wins[(one, other) if rank < its else (other, one)] += 1
    return wins, ties, own


@given(groups.filter(meets), st.sampled_from(["half", "drop", "loss"]))
def test_the_counts_are_the_obvious_ones(rows, rule: str) -> None:
    names = sorted({method for row in rows for method, _ in row})
    found = win_counts(*columns(rows), baseline=names[0], ties=rule, bootstrap=QUICK)
    wins, ties, own = slow_counts(rows)
    assert (found.names, found.own, found.choices) == (tuple(names), own, len(rows))
    for (a, one), (b, other) in itertools.product(enumerate(names), repeat=2):
        assert found.wins[a, b] == wins[one, other]
        assert found.ties[a, b] == ties[one, other]
    for told in found.rows:
        assert told.wins == sum(wins[told.method, other] for other in names)
        assert told.losses == sum(wins[other, told.method] for other in names)
        assert told.ties == sum(ties[told.method, other] for other in names)
        assert told.rate is None or told.method != names[0]
        won, lost = wins[told.method, names[0]], wins[names[0], told.method]
        drawn = ties[told.method, names[0]]
        total = won + lost + (0 if rule == "drop" else drawn)
        if told.method == names[0] or not total:
            assert told.rate is None
        else:
            earned = won + (drawn / 2 if rule == "half" else 0)
            assert told.rate.estimate.value == pytest.approx(earned / total)


@given(groups.filter(meets), st.randoms())
def test_wins_are_losses_of_others_and_no_order_matters(rows, random) -> None:
    before = win_counts(*columns(rows), bootstrap=QUICK)
    assert sum(one.wins for one in before.rows) == sum(one.losses for one in before.rows)
    for row in rows:
        random.shuffle(row)
    random.shuffle(rows)
    after = win_counts(*columns(rows), bootstrap=QUICK)
    assert after.to_dict() == before.to_dict()
    turned = win_counts(*columns([[(m, -r) for m, r in row] for row in rows]), bootstrap=QUICK)
    assert (turned.wins == before.wins.T).all()
    assert [one.wins for one in before.rows] == sorted(one.wins for one in before.rows)[::-1]


RANKINGS = [
    [("base", 2), ("new", 1), ("old", 3)],
    [("base", 1), ("new", 1), ("old", 3)],
    [("base", 2), ("new", 1), ("new", 3)],
    [("base", 1), ("other", 2)],
]


def test_the_table_has_the_shape_of_the_paper() -> None:
    found = win_counts(*columns(RANKINGS), ["p", "q", "q", "r"], baseline="base", bootstrap=QUICK)
    told = {row.method: (row.wins, row.ties, row.losses, row.prompts) for row in found.rows}
    assert told == {
        "base": (4, 1, 2, 3),
        "new": (4, 1, 1, 2),
        "old": (0, 0, 4, 2),
        "other": (0, 0, 1, 1),
    }
    assert [row.method for row in found.rows] == ["base", "new", "old", "other"]
    rates = {row.method: row.rate and row.rate.estimate.value for row in found.rows}
    assert rates == {"base": None, "new": (1 + 0.5 + 1 + 0) / 4, "old": 0, "other": 0}
    lines = found.to_markdown().splitlines()
    assert lines[0] == "| method | #wins | win rate over base | 95 % interval |"
    assert lines[3].startswith("| new | 4 | 62.50 |")
    assert json.loads(json.dumps(found.to_dict()))["rows"][1]["pairs"] == 6


def test_two_images_of_one_method_are_not_held_against_each_other() -> None:
    assert win_counts(*columns(RANKINGS), bootstrap=QUICK).own == 1


def test_methods_that_never_meet_have_no_rate() -> None:
    rows = [[("a", 1), ("b", 2)], [("b", 1), ("c", 2)]]
    found = win_counts(*columns(rows), baseline="a", bootstrap=QUICK)
    assert {row.method: row.rate is None for row in found.rows} == {
        "a": True,
        "b": False,
        "c": True,
    }


def test_categories_are_counted_each_by_itself() -> None:
    labels = ["people", "arts", "people", "arts"]
    tables = win_counts_by(labels, *columns(RANKINGS), baseline="base", bootstrap=QUICK)
    assert [(table.name, table.choices) for table in tables] == [("arts", 2), ("people", 2)]
    whole = win_counts(*columns(RANKINGS), bootstrap=QUICK)
    parts = Counter()
    for table in tables:
        parts.update({row.method: row.wins for row in table.rows})
    assert parts == {row.method: row.wins for row in whole.rows}


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([[("a", 1), ("b", 2)]], {"baseline": "c"}, "no image is by 'c'; there are a, b"),
        ([[("a", 1), ("a", 2)]], {}, "no two methods meet in 1 choices"),
    ],
)
def test_what_cannot_be_compared_is_refused(rows, settings, message: str) -> None:
    with pytest.raises(DataError, match=message):
        win_counts(*columns(rows), **settings)
    with pytest.raises(DataError, match="1 choices but labels of shape"):
        win_counts_by(["x", "y"], *columns(rows))

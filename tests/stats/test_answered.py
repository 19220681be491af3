"""Who picks the best of several has not compared the others; who rated them all has."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.data.records import Choice
from palate.data.tables import to_table
from palate.stats.answered import answered_duels


def table(rankings, details=None):
    rows = [
        Choice(f"c{k}", "p", tuple(f"{k}-{n}" for n in range(len(ranks))), ranks, details=details)
        for k, ranks in enumerate(rankings)
    ]
    return to_table(rows, "choices")


def test_the_losers_of_a_pick_are_silent_and_ties_are_not() -> None:
    found = answered_duels(table([(2, 1, 2, 2), (1, 1), (1, 2, 2, 3), (1, 1, 2)]))
    assert found.silent == 3  # of the pick of four alone
    assert found.picks.tolist() == [True, False, False, True]
    tied = found.kept & (found.duels.outcome == 0.5)
    assert found.duels.choice[tied].tolist() == [1, 2, 3]


def test_equal_ratings_are_ties_in_every_place() -> None:
    rated = table([(1, 2, 2)], details='{"ratings":[5,3,3]}')
    found = answered_duels(rated)
    assert (found.silent, found.picks.tolist()) == (0, [False])
    assert answered_duels(table([(1, 2, 2)], details='{"note":"ratings"}')).silent == 1


@given(
    st.lists(st.lists(st.integers(1, 3), min_size=2, max_size=5), min_size=1, max_size=6)
    | st.lists(st.lists(st.integers(1, 3), min_size=2, max_size=2), min_size=1, max_size=6)
)
def test_the_rule_is_the_one_said(rankings) -> None:
    rankings = [tuple(np.unique(ranks, return_inverse=True)[1] + 1) for ranks in rankings]
    rankings = [tuple(int(rank) for rank in ranks) for ranks in rankings]
    found = answered_duels(table(rankings))
    wanted = [
        not (len(set(ranks)) <= 2 and ranks[a] == ranks[b] > min(ranks))
        for ranks in rankings
        for a, b in combinations(range(len(ranks)), 2)
    ]
    assert found.kept.tolist() == wanted
    short = [len(ranks) < 3 or len(set(ranks)) > 2 for ranks in rankings]
    assert not found.picks[short].any()

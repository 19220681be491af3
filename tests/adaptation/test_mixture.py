from __future__ import annotations

import numpy as np
import pytest

from palate.adaptation.mixture import plan_batches
from palate.errors import DataError

ROWS = {"preferred": [0, 1, 2], "rejected": [3, 4, 5, 6], "regularisation": list(range(7, 57))}
WEIGHTS = {"preferred": 0.145, "rejected": 0.082, "regularisation": 0.773}


def test_the_roles_come_at_their_weights_whatever_their_numbers():
    plan = plan_batches(ROWS, WEIGHTS, steps=1000, batch=40, seed=0)
    assert plan.shape == (1000, 40)
    for role, rows in ROWS.items():
        share = np.isin(plan, rows).mean()
        spread = np.sqrt(WEIGHTS[role] * (1 - WEIGHTS[role]) / plan.size)
        assert abs(share - WEIGHTS[role]) < 4 * spread


def test_weights_need_not_add_up_to_one():
    doubled = {role: 2 * weight for role, weight in WEIGHTS.items()}
    same = plan_batches(ROWS, doubled, 20, 8, seed=0)
    assert np.array_equal(same, plan_batches(ROWS, WEIGHTS, 20, 8, seed=0))


def test_all_rows_of_a_role_come_before_any_comes_again():
    plan = plan_batches(ROWS, WEIGHTS, steps=200, batch=40, seed=3).ravel()
    for rows in ROWS.values():
        mine = plan[np.isin(plan, rows)]
        rounds = [mine[start : start + len(rows)] for start in range(0, len(mine), len(rows))]
        assert all(sorted(one) == rows for one in rounds[:-1])
        assert len({tuple(one) for one in rounds[:-1]}) > 1


@pytest.mark.parametrize("steps", [1, 7, 33])
def test_a_step_does_not_depend_on_how_many_follow(steps):
    whole = plan_batches(ROWS, WEIGHTS, 50, 8, seed=5)
    assert np.array_equal(plan_batches(ROWS, WEIGHTS, steps, 8, seed=5), whole[:steps])


def test_another_seed_gives_another_plan():
    plans = [plan_batches(ROWS, WEIGHTS, 20, 8, seed=seed) for seed in (0, 1)]
    assert not np.array_equal(*plans)


def test_a_role_without_weight_may_be_empty_and_one_with_a_weight_may_not():
    rows = {**ROWS, "regularisation": []}
    plan = plan_batches(rows, {**WEIGHTS, "regularisation": 0.0}, 50, 8, seed=0)
    assert set(plan.ravel()) == set(range(7))
    with pytest.raises(DataError, match=r"no regularisation rows, but the role's weight is 0\.773"):
        plan_batches(rows, WEIGHTS, 50, 8, seed=0)

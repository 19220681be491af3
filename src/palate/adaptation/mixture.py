"""Which rows a training step sees: explicit shares of the roles, and an address for every draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palate.errors import DataError
from palate.runs import seed_for

Ints = np.ndarray[Any, np.dtype[np.int64]]


def plan_batches(
    rows: Mapping[str, Sequence[int]],
    weights: Mapping[str, float],
    steps: int,
    batch: int,
    seed: int,
) -> Ints:
    """Plan which row stands in which place of which step: "steps batch".

    Each place draws its role by the weights, whatever the number of rows of a role. Within a role
    the rows come in shuffled rounds: all of them once, then all again. Nothing depends on how many
    steps are planned, so the state of the data is the number of the step and nothing else.

    Raises:
        DataError: a role with a weight has no rows.
    """
    roles = [role for role, weight in weights.items() if weight > 0]
    for role in roles:
        if not rows.get(role):
            raise DataError(
                f"labels: no {role} rows, but the role's weight is {weights[role]}; "
                f"add such rows, or set the weight of {role} to 0"
            )
    shares = np.cumsum([weights[role] for role in roles])
    draws = np.random.Generator(np.random.PCG64(seed_for("roles", seed)))
    places = np.searchsorted(shares / shares[-1], draws.random(steps * batch), side="right")
    plan = np.empty(steps * batch, dtype=np.int64)
    for number, role in enumerate(roles):
        mine = np.flatnonzero(places == number)
        plan[mine] = _rounds(np.asarray(rows[role], dtype=np.int64), len(mine), role, seed)
    return plan.reshape(steps, batch)


def _rounds(rows: Ints, count: int, role: str, seed: int) -> Ints:
    """Give ``count`` rows: shuffled rounds one after the other, each from its own address."""
    number = -(-count // len(rows))
    rounds = [
        np.random.Generator(np.random.PCG64(seed_for("rows", seed, role, turn))).permutation(rows)
        for turn in range(number)
    ]
    return np.concatenate([*rounds, np.zeros(0, np.int64)])[:count]

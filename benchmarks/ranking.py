"""Measure how long it takes to rank 50 generators from a million choices, and how much memory.

Run it as `python benchmarks/ranking.py`; it prints one line per fit. Labels are texts, as a table of
choices gives them; one answer in ten is a tie; there are 100,000 prompts and 5,000 people. Rankings are
200,000 of four images each. Times are those of the processor and hold the numbering of the labels.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry
from palate.stats.rankings.duel_table import duel_table
from palate.stats.rankings.plackett_luce import OrderSettings, plackett_luce, top1_choices
from palate.stats.rankings.separation import separate

COUNT, ITEMS, PROMPTS, PEOPLE = 1_000_000, 50, 100_000, 5_000


def make_duels(count: int) -> dict[str, Any]:
    """Make duels between generators of known strengths, as columns of texts."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, ITEMS, count)
    second = (first + rng.integers(1, ITEMS, count)) % ITEMS
    strength = np.linspace(-1, 1, ITEMS)
    chance = 1 / (1 + np.exp(strength[second] - strength[first]))
    outcome = np.where(rng.random(count) < chance, 1.0, 0.0)
    outcome[rng.random(count) < 0.1] = 0.5
    return {
        "first": labels("generator", first),
        "second": labels("generator", second),
        "outcome": outcome,
        "prompts": labels("prompt", rng.integers(0, PROMPTS, count)),
        "people": labels("person", rng.integers(0, PEOPLE, count)),
        "covariate": rng.normal(size=count),
    }


def make_rankings(count: int) -> tuple[Any, Any, Any]:
    """Make rankings of four images, with neighbours that tie now and then."""
    rng = np.random.default_rng(1)
    items = rng.integers(0, ITEMS, (count, 4))
    worth = np.round(np.linspace(-1, 1, ITEMS)[items] + rng.gumbel(size=(count, 4)), 1)
    ranks = 1 + (worth[:, None, :] > worth[:, :, None]).sum(axis=2)
    return labels("generator", items.ravel()), ranks.ravel(), np.arange(0, 4 * count + 1, 4)


def labels(kind: str, codes: Any) -> Any:
    """Texts for numbers, as Arrow gives them to NumPy."""
    names = np.array([f"{kind} {number:06d}" for number in range(int(codes.max()) + 1)], object)
    return names[codes]


def measure(name: str, work: Callable[[], Any]) -> None:
    """Run twice, and print the faster time and the memory so far."""
    seconds = []
    for _ in range(2):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {min(seconds):.2f} s, peak so far {peak:,.0f} MiB")


def main() -> None:
    """Measure every fit."""
    duels = make_duels(COUNT)
    columns = duels["first"], duels["second"], duels["outcome"]
    clustered = *columns, None, duels["prompts"], duels["people"]
    print(f"{COUNT:,} duels of {ITEMS} generators")
    measure("numbering labels", lambda: duel_table(*columns))
    measure("half ties, errors of the model", lambda: bradley_terry(*columns))
    davidson = DuelSettings(ties="davidson", side=True)
    measure("Davidson with the side", lambda: bradley_terry(*columns, settings=davidson))
    threshold = DuelSettings(ties="rao-kupper", side=True)
    measure("Rao and Kupper with the side", lambda: bradley_terry(*columns, settings=threshold))
    measure("half ties, two-way errors", lambda: bradley_terry(*clustered))
    style = {"length": duels["covariate"]}
    measure("one covariate", lambda: bradley_terry(*columns, covariates=style))
    found = bradley_terry(*columns)
    measure("all pairs told apart", lambda: separate(found))
    rankings = make_rankings(COUNT // 5)
    print(f"{COUNT // 5:,} rankings of four")
    measure("Davidson and Luce", lambda: plackett_luce(*rankings))
    efron = OrderSettings(ties="efron")
    measure("Efron", lambda: plackett_luce(*rankings, settings=efron))
    measure("the first choice only", lambda: top1_choices(*rankings))


if __name__ == "__main__":
    main()

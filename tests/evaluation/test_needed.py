"""How many prompts a decision needs: simulated studies of that size find the difference in 4 of 5 cases."""

from __future__ import annotations

import numpy as np

from palate.data.records import Score
from palate.data.tables import to_table
from palate.evaluation.compare import CompareSettings, compare_scores, prompts_needed


def scores(values: np.ndarray) -> object:
    rows = [
        Score(f"i{k}", f"p{k}", "s", "overall", float(value), "hps", "f" * 64)
        for k, value in enumerate(values)
    ]
    return to_table(rows, "scores")


def test_the_number_of_prompts_gives_the_power() -> None:
    rng = np.random.default_rng(0)
    large = rng.normal(0.2, 1.0, 4000)
    large += 0.2 - large.mean()
    needed = prompts_needed(compare_scores(scores(large), scores(np.zeros(4000))))
    # (1.96 + 0.84)² / 0.2² = 196
    assert needed is not None
    assert abs(needed - 196) < 25
    found = 0
    for _ in range(300):
        values = rng.normal(0.2, 1.0, needed)
        found += bool(values.mean() > 1.96 * values.std() / np.sqrt(needed))
    assert 0.7 < found / 300 < 0.9


def test_no_difference_needs_no_number() -> None:
    same = scores(np.arange(20.0))
    assert prompts_needed(compare_scores(same, same, CompareSettings(resamples=200))) is None

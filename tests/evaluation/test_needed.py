"""How many prompts a decision needs: simulated studies of that size find the difference in 4 of 5 cases."""

from __future__ import annotations

import numpy as np
import pytest

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
    assert abs(needed.value - 196) < 25
    assert needed.low < needed.value < needed.high
    found = 0
    for _ in range(300):
        values = rng.normal(0.2, 1.0, needed.value)
        found += bool(values.mean() > 1.96 * values.std() / np.sqrt(needed.value))
    assert 0.7 < found / 300 < 0.9


def test_no_difference_needs_no_number() -> None:
    same = scores(np.arange(20.0))
    assert prompts_needed(compare_scores(same, same, CompareSettings(resamples=200))) is None


def test_the_number_is_as_uncertain_as_the_difference() -> None:
    rng = np.random.default_rng(1)
    found = compare_scores(scores(rng.normal(0.6, 1.0, 60)), scores(np.zeros(60)))
    needed, its = prompts_needed(found), found.difference.estimate
    assert needed.low == pytest.approx(needed.value * (its.value / its.high) ** 2, abs=1)
    assert needed.high == pytest.approx(needed.value * (its.value / its.low) ** 2, abs=1)
    vague = compare_scores(scores(rng.normal(0.0, 1.0, 60)), scores(np.zeros(60)))
    assert (vague.decision, prompts_needed(vague).high) == ("not separable", None)
    turned = compare_scores(scores(np.zeros(60)), scores(rng.normal(0.6, 1.0, 60)))
    assert turned.decision == "second"
    assert found.to_dict()["prompts_needed"]["value"] == needed.value


@pytest.mark.parametrize(("prompts", "cautions"), [(19, 1), (20, 0), (1, 1)])
def test_no_decision_from_few_prompts_without_a_caution(prompts, cautions) -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(1.0, 0.5, prompts)
    values[:1] = -0.1
    found = compare_scores(scores(values), scores(np.zeros(prompts)))
    assert len(found.cautions()) >= cautions
    assert any("only: below 20 prompts" in one for one in found.cautions()) == bool(cautions)


def test_a_win_everywhere_is_no_certainty() -> None:
    found = compare_scores(scores(np.arange(1.0, 26.0)), scores(np.zeros(25)))
    rate = found.win_rate.estimate
    assert rate.value == 1
    assert 0.7 < rate.low < 1
    assert "one side wins everywhere" in found.cautions()[0]

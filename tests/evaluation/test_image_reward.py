"""The real rankings of ImageReward give the counts that are known of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from palate.data.duels import duels
from palate.data.records import Choice
from palate.data.tables import to_table
from palate.stats.accuracy import pairwise


@pytest.fixture(scope="module")
def rankings(shared: Path):
    records = json.loads((shared / "data" / "image_reward" / "test.json").read_text())
    rows = [
        Choice(row["id"], row["prompt"], tuple(row["generations"]), tuple(row["ranking"]))
        for row in records
    ]
    return to_table(rows, "choices")


def test_the_pairs_are_those_of_the_published_protocol(rankings) -> None:
    found = duels(rankings)
    assert (len(rankings), len(found)) == (466, 7230)
    assert int((found.outcome == 0.5).sum()) == 831


def test_the_listing_order_leaks(rankings) -> None:
    found = duels(rankings)
    prompts = np.asarray(rankings.column("prompt").to_pylist())[found.choice]
    earlier = pairwise(-found.first, -found.second, found.outcome, prompts)
    assert (earlier.estimate.count, earlier.estimate.clusters) == (6399, 463)
    assert earlier.value == pytest.approx(0.590, abs=5e-4)
    assert earlier.estimate.low > 0.55


def test_a_constant_scorer_shows_how_much_the_tie_rule_decides(rankings) -> None:
    found = duels(rankings)
    flat = np.zeros(len(found))
    values = {
        (rule, human): pairwise(flat, flat, found.outcome, ties=rule, human_ties=human).value
        for rule in ("half", "wrong", "right")
        for human in ("drop", "right")
    }
    assert values["wrong", "drop"] == 0
    assert values["right", "right"] == 1
    assert values["half", "drop"] == 0.5

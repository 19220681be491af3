"""Picks inferred on synthetic channels, against what the simulated people meant."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from palate_channels import dreambot, midjourney, ownbot, write

from palate.data.importing import collect
from palate.data.records import Choice
from palate.data.sources.common import Imported
from palate.data.sources.discord import DiscordSettings, discord
from palate.data.sources.discord.people import Pseudonyms, read_key
from palate.data.tables import to_rows

CHANNELS = {
    "dreambot": (dreambot, {}, "dreambot"),
    "midjourney 2023": (midjourney, {"era": "2023"}, "midjourney"),
    "midjourney 2022": (midjourney, {"era": "2022"}, "midjourney"),
    "own bot": (ownbot, {}, "reactions"),
}


@dataclass(frozen=True)
class Outcome:
    """What was imported from a channel, next to the truth."""

    channel: Any
    imported: Imported
    choices: list[Choice]
    names: Pseudonyms

    def picked(self) -> dict[str, int]:
        """Grid message (pseudonym) to the place of the picked image, of the requester's choices."""
        found = {}
        for row in self.choices:
            details = json.loads(row.details or "")
            [found[details["grid_message"]]] = details["picked"]
        return found


def run(name: str, folder: Path, seed: int = 3, grids: int = 400) -> Outcome:
    make, options, dialect = CHANNELS[name]
    channel = make(seed, grids=grids, **options)
    [path] = write(channel, folder / "export")
    key = folder / "key"
    settings = DiscordSettings(legal_basis="synthetic people agreed", dialect=dialect)
    imported = collect(discord(path, key, settings))
    choices = list(to_rows(imported.choices, Choice))
    return Outcome(channel, imported, choices, Pseudonyms(read_key(key)))


@pytest.fixture(scope="module", params=CHANNELS)
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(request.param, tmp_path_factory.mktemp("channel"))


def judged(outcome: Outcome) -> Counter[str]:
    """Count inferred picks that are right and wrong, and true ones that were not found."""
    truth: dict[str, set[int]] = {}
    beyond: set[str] = set()
    excluded: set[str] = set()
    for one in outcome.channel.truths:
        grid = outcome.names.message(int(one.grid_message))
        truth.setdefault(grid, set())
        if one.picked is not None and not one.extra.get("other"):
            truth[grid].add(one.picked)
            if one.extra.get("beyond") or one.extra.get("excluded"):
                beyond.add(grid)
            if one.extra.get("excluded"):
                excluded.add(grid)
    counts: Counter[str] = Counter()
    picked = outcome.picked()
    for grid, place in picked.items():
        right = truth.get(grid) == {place} and grid not in excluded
        counts["right" if right else "wrong"] += 1
    for grid, places in truth.items():
        if len(places) == 1 and grid not in picked and grid not in beyond:
            counts["not found"] += 1
    return counts


@pytest.mark.slow
def test_inferred_picks_are_99_percent_right(outcome: Outcome) -> None:
    counts = judged(outcome)
    assert counts["right"] > 80
    assert counts["right"] / (counts["right"] + counts["wrong"]) >= 0.99, counts
    assert counts["right"] / (counts["right"] + counts["not found"]) >= 0.9, counts


@pytest.mark.slow
def test_the_funnel_accounts_for_every_message_and_every_grid(outcome: Outcome) -> None:
    report = outcome.imported.report
    assert sum(report["messages"].values()) == len(outcome.channel.export["messages"])
    assert sum(report["grids"].values()) == report["messages"]["grids"]
    assert report["grids"]["with_choice"] == len(outcome.choices) == sum(report["rules"].values())

"""Rankings of real answers: the AVT study by generator, and ImageReward's rankings with ties."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry
from palate.stats.rankings.plackett_luce import OrderSettings, plackett_luce
from palate.stats.rankings.separation import separate

GENERATORS = ("craiyon", "dall-e", "glide", "midjourney", "stable_diffusion")


def avt_rankings(shared: Path, asked: str = "range_image_appeal"):
    """One ranking per person and prompt, from the first rating of every image; the camera is left out."""
    path = shared / "data" / "avt" / "ratings_study2.csv"
    if not path.is_file():
        pytest.skip("needs data/avt of the shared folder")
    given: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            *_, generator, image = row["stimuli_file"].split("/")
            if row["rating_type"] == asked and generator in GENERATORS:
                key = (row["user_ID"], image.removesuffix(".png"))
                given[key].setdefault(generator, int(row["rating"]))
    items, ranks, offsets, prompts, people = [], [], [0], [], []
    for (person, prompt), ratings in sorted(given.items()):
        items += list(ratings)
        ranks += [-rating for rating in ratings.values()]
        offsets.append(len(items))
        prompts.append(prompt)
        people.append(person)
    return items, ranks, offsets, prompts, people


def as_duels(items, ranks, offsets, prompts, people):
    columns = [[], [], [], [], []]
    for number, (start, stop) in enumerate(pairwise(offsets)):
        for a, b in combinations(range(start, stop), 2):
            gap = ranks[b] - ranks[a]
            outcome = 0.5 if gap == 0 else float(gap > 0)
            row = items[a], items[b], outcome, prompts[number], people[number]
            for column, value in zip(columns, row, strict=True):
                column.append(value)
    return columns


def test_the_avt_study_ranks_its_generators(shared: Path) -> None:
    items, ranks, offsets, prompts, people = avt_rankings(shared)
    found = plackett_luce(items, ranks, offsets, None, prompts, people)
    assert found.items == GENERATORS
    assert (found.clustered, found.n_prompts, found.n_people) == ("two-way", 13, 26)
    told = separate(found)
    assert told.sentence() == "(dall-e, midjourney, stable_diffusion) > (craiyon, glide)"
    first, second, outcome, by, who = as_duels(items, ranks, offsets, prompts, people)
    # Pairs of one person are no independent duels: errors of the model are far too small.
    duels = {
        errors: bradley_terry(
            first, second, outcome, None, by, who, settings=DuelSettings(errors=errors)
        )
        for errors in ("model", "two-way")
    }
    assert (duels["two-way"].errors > 1.7 * duels["model"].errors).all()
    order = np.argsort(duels["model"].strengths)
    assert order.tolist() == np.argsort(found.strengths).tolist()
    assert found.n_duels == duels["model"].n_duels


def test_evalica_ranks_the_avt_study_alike(shared: Path) -> None:
    evalica = pytest.importorskip("evalica")
    first, second, outcome, *_ = as_duels(*avt_rankings(shared))
    kind = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    columns = first, second, [kind[won] for won in outcome]
    wanted = {
        "half": evalica.bradley_terry(*columns, tolerance=1e-13, limit=10_000),
        "davidson": evalica.newman(*columns, tolerance=1e-13, limit=10_000),
    }
    for ties, result in wanted.items():
        found = bradley_terry(first, second, outcome, settings=DuelSettings(ties=ties))
        told = np.log(result.scores.sort_index().to_numpy())
        assert found.strengths == pytest.approx(told - told.mean(), abs=1e-6)


def image_reward(shared: Path) -> list[list[int]]:
    path = shared / "data" / "image_reward" / "test.json"
    if not path.is_file():
        pytest.skip("needs data/image_reward of the shared folder")
    return [record["ranking"] for record in json.loads(path.read_text("utf-8"))]


def positions(rankings: list[list[int]]):
    """Rankings of the positions in the list, which should all be equally good."""
    items = [place for ranking in rankings for place in range(len(ranking))]
    ranks = [rank for ranking in rankings for rank in ranking]
    return items, ranks, np.cumsum([0, *[len(ranking) for ranking in rankings]])


def test_image_reward_lists_the_better_images_first(shared: Path) -> None:
    rankings = image_reward(shared)
    columns = positions(rankings)
    for ties in ("davidson-luce", "efron"):
        found = plackett_luce(*columns, settings=OrderSettings(ties=ties))
        assert (found.n_choices, found.n_duels, found.left_out) == (466, 7230, 0)
        # Nothing but the place in the list, and yet the first is certainly better than most.
        assert separate(found).better[0].sum() >= 6
    table = [[], [], []]
    for ranking in rankings:
        for a, b in combinations(range(len(ranking)), 2):
            gap = ranking[b] - ranking[a]
            for column, value in zip(table, (a, b, 0.5 if gap == 0 else gap > 0), strict=True):
                column.append(value)
    decided = np.array(table[2], dtype=float)
    assert np.mean(decided[decided != 0.5]) == pytest.approx(0.590, abs=0.001)


def test_choix_ranks_the_positions_of_image_reward_alike(shared: Path) -> None:
    choix = pytest.importorskip("choix")
    rankings = [r for r in image_reward(shared) if len(set(r)) == len(r)]
    # All of them are of four images: longer ones hold ties.
    data = [np.argsort(ranking).tolist() for ranking in rankings]
    wanted = choix.opt_rankings(4, data, tol=1e-12)
    found = plackett_luce(*positions(rankings))
    assert found.strengths == pytest.approx(wanted - wanted.mean(), abs=1e-6)

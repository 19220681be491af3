"""A table of choices is ranked the way in which people answered."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from palate.data.duels import duels
from palate.data.records import Choice, Image
from palate.data.tables import to_table
from palate.errors import DataError
from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry
from palate.stats.rankings.from_choices import rank_choices

TRUTH = {"a": 1.2, "b": 0.4, "c": -0.4, "d": -1.2}


def picks(prompts=400, seed=1, people=40, rank=False):
    """Luce's people pick the best of four (or rank them all), and who made each image."""
    rng = np.random.default_rng(seed)
    choices, names = [], {}
    for number in range(prompts):
        keys = tuple(f"{number}/{name}" for name in rng.permutation(list(TRUTH)))
        names |= {key: key.split("/")[1] for key in keys}
        worth = np.array([TRUTH[names[key]] for key in keys]) + rng.gumbel(size=4)
        ranks = (-worth).argsort().argsort() + 1 if rank else 2 - (worth == worth.max())
        told = tuple(int(one) for one in ranks)
        who = f"x{number % people}"
        choices.append(Choice(f"c{number}", f"p{number}", keys, told, annotator=who))
    return to_table(choices, "choices"), names


@pytest.mark.parametrize("model", [None, "duels", "picks", "rankings"])
def test_picks_of_four_give_the_strengths_back_and_losers_never_tie(model) -> None:
    table, names = picks()
    found = rank_choices(table, names, model=model)
    assert found.model == (model or "picks")
    assert found.silent == 400 * 3
    for item, strength, error in zip(
        found.strengths.items, found.strengths.strengths, found.strengths.errors, strict=True
    ):
        assert abs(strength - TRUTH[item]) < 3 * error + 0.05
    assert all(tie.value == 0 for tie in found.strengths.ties)
    assert found.rates.ties.sum() == 0
    assert found.rates.wins.sum() == 400 * 3


def test_losers_that_tie_would_bend_the_strengths() -> None:
    table, names = picks()
    every = duels(table)
    sides = [
        [names[key] for key in side.to_pylist()] for side in (every.first_image, every.second_image)
    ]
    wrong = bradley_terry(*sides, every.outcome, settings=DuelSettings(ties="davidson"))
    right = rank_choices(table, names).strengths
    assert abs(wrong["a"] - TRUTH["a"]) > 0.4 > 2 * abs(right["a"] - TRUTH["a"])


def test_rankings_are_duels_unless_asked_for_whole() -> None:
    table, names = picks(rank=True)
    assert rank_choices(table, names).model == "duels"
    whole = rank_choices(table, names, model="rankings").strengths
    assert (whole.model, whole.n_duels) == ("Plackett-Luce", 400 * 6)
    assert whole["a"] == pytest.approx(1.2, abs=0.25)


@pytest.mark.parametrize("model", ["duels", "picks", "rankings"])
def test_an_unknown_person_is_another_one_in_every_choice(model) -> None:
    table, names = picks(120, people=12)
    told = table.column("annotator").to_pylist()
    place = table.schema.get_field_index("annotator")

    def asked(one, other):
        people = [name if name in {"x0", "x1", "x2"} else one(row) for row, name in enumerate(told)]
        column = pa.array(people if other else [None] * len(told), pa.string())
        return table.set_column(place, table.schema.field(place), column)

    by = {"model": model, "settings": DuelSettings(ties="davidson", errors="people")}
    given_ = rank_choices(asked(lambda _: "", True), names, **by).strengths
    wanted = rank_choices(asked(lambda row: f"stranger {row}", True), names, **by).strengths
    assert given_.n_people == wanted.n_people == 3 + 90
    assert given_.covariance == pytest.approx(wanted.covariance, abs=1e-12)
    with pytest.raises(DataError, match="there are 0"):
        rank_choices(asked(str, False), names, **by)


def test_what_does_not_count_is_counted() -> None:
    table, names = picks(40)
    some = {key: None if key.startswith("7/") else name for key, name in names.items()}
    same = {key: "a" if name == "b" else name for key, name in some.items()}
    assert rank_choices(table, some).nameless == 3
    found = rank_choices(table, same)
    assert found.own > 0
    assert any("unknown generator" in note for note in found.notes())
    assert found.to_dict()["not_counted"]["nobody_picked"] == 120


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (None, "the 40 images of 10 prompts fall into 10 groups that never met"),
        ({}, "no two images of a choice have a known generator"),
        ({f"{k}/{name}": "one" for k in range(10) for name in TRUTH}, "shows one generator only"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_a_sentence(names, told) -> None:
    with pytest.raises(DataError, match=told):
        rank_choices(picks(10)[0], names)


@pytest.mark.parametrize("model", ["duels", "picks"])
def test_a_table_of_images_names_generators_as_a_mapping_does(model) -> None:
    table, names = picks(60)
    names = {key: "" if key.startswith("7/") else name for key, name in names.items()}
    # the last image has no row, and rows stand in another order
    rows = [Image(key, "p", generator=name or None) for key, name in reversed(names.items())][1:]
    names[next(reversed(names))] = None
    by_table = rank_choices(table, to_table(rows, "images"), model=model)
    by_name = rank_choices(table, names, model=model)
    assert by_table.to_dict() == by_name.to_dict()
    pairs = duels(table)
    sides = (pairs.first_image, pairs.second_image)
    known = [[bool(names[key]) for key in side.to_pylist()] for side in sides]
    # the pairs of a pick that were compared do not tie
    compared, both = pairs.outcome != 0.5, np.logical_and(*known)
    assert by_table.nameless == (compared & ~both).sum() > 3
    assert by_table.rates.wins.sum() == (compared & both).sum()


def test_the_images_of_one_prompt_can_be_ranked() -> None:
    keys = tuple("abcd")
    rng = np.random.default_rng(0)
    rows = []
    for person in range(60):
        worth = np.array(list(TRUTH.values())) + rng.gumbel(size=4)
        ranks = tuple(int(one) for one in 2 - (worth == worth.max()))
        rows.append(Choice(f"c{person}", "p", keys, ranks, annotator=f"x{person}"))
    found = rank_choices(to_table(rows, "choices"))
    assert found.strengths.items == keys
    assert found.strengths.clustered == "people"
    assert found.cautions() == []


def test_few_clusters_are_cautioned_and_never_certain_for_lack_of_spread() -> None:
    # The sums of both people are 0, so that the difference of the three variances is too.
    rows = [
        Choice(f"{p}-{a}", f"p{p}", (f"{p}a", f"{p}b"), (1, 2) if (p + a) % 3 else (2, 1), annotator=f"x{a}")
        for p in range(6)
        for a in range(2)
    ]  # fmt: skip
    names = {f"{p}{k}": k for p in range(6) for k in "ab"}
    found = rank_choices(to_table(rows, "choices"), names)
    assert found.strengths.clustered == "two-way"
    assert found.strengths.errors.min() > 0.1
    (caution,) = found.cautions()
    assert "6 prompts and 2 people" in caution

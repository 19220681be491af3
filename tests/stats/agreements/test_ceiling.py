"""Ceilings and annotators are what a slow loop counts, and what theory says."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from palate.data.records import Choice
from palate.data.sources.ratings import AVT, read_ratings
from palate.data.tables import to_table
from palate.errors import DataError
from palate.stats.agreements.annotators import annotator_agreement, side_bias
from palate.stats.agreements.answers import Answers, best_answers, pair_answers
from palate.stats.agreements.ceiling import (
    PUBLISHED,
    human_ceilings,
    known_ceiling,
    one_person,
    perfect_scorer,
)
from palate.stats.intervals import Bootstrap

QUICK = Bootstrap(resamples=100)
ITEMS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=6), min_size=1, max_size=6)
PAIRS = st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=6), min_size=1, max_size=6)


def flat(rows) -> tuple[list[int], list[int]]:
    return [k for k, row in enumerate(rows) for _ in row], [value for row in rows for value in row]


def slow_credit(own: int, others: list[int], ties: str) -> float | None:
    votes = Counter(others)
    leaders = [value for value, count in votes.items() if count == max(votes.values())]
    if len(leaders) > 1 and ties != "expected":
        return None if ties == "drop" else 0.0
    return 1 / len(leaders) if own in leaders else 0.0


def slow(rows, people, ties: str) -> tuple[float, int]:
    earned, lost = [], 0
    for row in rows:
        for place, own in enumerate(row):
            others = row if people == "all" else row[:place] + row[place + 1 :]
            voters = {"rest": len(others), "all": len(row), "half": len(row) // 2}.get(
                people, people
            )
            drawn = [slow_credit(own, list(some), ties) for some in combinations(others, voters)]
            if not drawn or drawn == [None]:
                lost += 1
            else:
                earned.append(sum(drawn) / len(drawn))
    return (sum(earned) / len(earned) if earned else math.nan), lost


@given(ITEMS, st.sampled_from(["rest", "all", 1]), st.sampled_from(["expected", "wrong", "drop"]))
def test_one_person_is_a_slow_loop(rows, people, ties: str):
    if people == 1 and ties == "drop":
        ties = "expected"
    told, lost = slow(rows, people, ties)
    if math.isnan(told):
        with pytest.raises(DataError, match="has a majority of others"):
            one_person(*flat(rows), people=people, ties=ties, bootstrap=QUICK)
        return
    found = one_person(*flat(rows), people=people, ties=ties, bootstrap=QUICK)
    assert found.value == pytest.approx(told)
    assert found.left_out == lost


@given(PAIRS, st.sampled_from([2, 3, 4, "half"]), st.sampled_from(["expected", "wrong"]))
def test_some_of_the_others_are_every_way_to_draw_them(rows, people, ties: str):
    told, lost = slow(rows, people, ties)
    if math.isnan(told):
        with pytest.raises(DataError, match="has a majority of others"):
            one_person(*flat(rows), people=people, ties=ties, bootstrap=QUICK)
        return
    found = one_person(*flat(rows), people=people, ties=ties, bootstrap=QUICK)
    assert found.value == pytest.approx(told)
    assert found.left_out == lost


def test_known_cases():
    rows = [[1, 1, 1], [0, 0, 1]]
    assert one_person(*flat(rows), people="all", bootstrap=QUICK).value == pytest.approx(5 / 6)
    # the two zeros face a split of one against one, the 1 faces two zeros
    rest = one_person(*flat(rows), bootstrap=QUICK)
    assert rest.value == pytest.approx((3 + 0.5 + 0.5 + 0) / 6)
    assert one_person(*flat(rows), ties="wrong", bootstrap=QUICK).value == pytest.approx(0.5)
    dropped = one_person(*flat(rows), ties="drop", bootstrap=QUICK)
    assert (dropped.value, dropped.left_out) == (0.75, 2)
    assert "the majority of the others" in dropped.to_dict()["measure"]


def test_single_answers_are_left_out_and_counted():
    found = one_person([1, 1, 2, 3, 3], [0, 0, 1, 1, 0], bootstrap=QUICK)
    assert (found.value, found.left_out) == (0.5, 1)


def simulated(seed: int, items: int, each: int, shape: float):
    rng = np.random.default_rng(seed)
    chance = rng.beta(shape, shape, items)
    values = (rng.random((items, each)) < chance[:, None]).astype(int)
    return chance, np.repeat(np.arange(items), each), values.ravel()


@pytest.mark.parametrize("shape", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("people", [1, 3, 4])
def test_the_likely_ceiling_is_that_of_the_simulation(shape: float, people: int):
    chance, items, values = simulated(1, 40_000, 3, shape)
    best = np.maximum(chance, 1 - chance)
    votes = stats.binom.pmf(np.arange(people + 1)[:, None], people, best)
    worth = np.where(
        2 * np.arange(people + 1) > people, 1, (2 * np.arange(people + 1) == people) / 2
    )
    truth = (votes * worth[:, None]).sum(0).mean()
    found = perfect_scorer(items, values, people=people, bootstrap=QUICK)
    assert found.likely.value == pytest.approx(truth, abs=0.006)
    assert found.lowest.value <= truth <= found.highest.value
    assert found.likely.low <= found.likely.value <= found.likely.high


def test_the_bounds_are_reached():
    # every item unanimous or a coin flip
    flips = [[0, 1], [1, 0]] * 500
    rows = [[1, 1]] * 1000 + flips + [[0, 0]] * 500 + [[1, 1]] * 500
    found = perfect_scorer(*flat(rows), bootstrap=QUICK)
    assert found.lowest.value == pytest.approx(2 / 3)
    # all items equally hard: p = 0.8 gives an agreement of 0.68
    hard = [[1, 1]] * 64 + [[0, 1], [1, 0]] * 16 + [[0, 0]] * 4
    found = perfect_scorer(*flat(hard), bootstrap=QUICK)
    assert found.agreement.value == pytest.approx(0.68)
    assert found.highest.value == pytest.approx(0.8)
    against = perfect_scorer(*flat(hard), people=3, bootstrap=QUICK)
    assert against.highest.value == pytest.approx(0.8**3 + 3 * 0.8**2 * 0.2)


def test_the_ends_are_defined():
    agreed = perfect_scorer(*flat([[1, 1], [0, 0]]), bootstrap=QUICK)
    assert (agreed.lowest.value, agreed.likely.value, agreed.highest.value) == (1, 1, 1)
    # fewer agreements than guessing gets count as guessing
    apart = perfect_scorer(*flat([[1, 0], [0, 1]]), bootstrap=QUICK)
    assert (apart.lowest.value, apart.likely.value, apart.highest.value) == (0.5, 0.5, 0.5)
    alone = perfect_scorer(*flat([[1, 1, 0]]), bootstrap=QUICK)
    assert alone.to_dict()["highest"]["low"] is None
    four = perfect_scorer(*flat([[3, 3], [1, 2]]), options=4, bootstrap=QUICK)
    assert four.likely is None
    assert four.to_dict()["likely"] is None
    assert four.highest.value == pytest.approx((1 + math.sqrt(3)) / 4)


def test_more_voters_come_nearer_to_the_perfect_scorer():
    _, items, values = simulated(2, 4000, 8, 1.0)
    single, three, seven = (
        one_person(items, values, people=people, bootstrap=QUICK).value for people in (1, 3, 7)
    )
    top = perfect_scorer(items, values, bootstrap=QUICK)
    assert single < three < seven < top.likely.value
    assert top.likely.value == pytest.approx(0.75, abs=0.01)


def test_known_probabilities_give_the_mean_of_the_largest():
    found = known_ceiling([0.7, 0.3, 0.2, 0.5, 0.3], [0, 2, 5], bootstrap=QUICK)
    assert found.value == pytest.approx(0.6)
    assert found.to_dict()["measure"] == "perfect scorer against one person"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"people": 3}, "needs two values to choose from"),
        ({"people": 0}, "a majority of 0 people, expected at least 1"),
        ({"people": 1, "ties": "drop"}, "only where all the others vote"),
    ],
)
def test_rules_that_do_not_fit_are_refused(options, told: str):
    with pytest.raises(DataError, match=told):
        one_person([1, 1, 1, 1], [0, 1, 2, 2], **options)


def test_a_perfect_scorer_needs_options():
    with pytest.raises(DataError, match="expected at least 2 options"):
        perfect_scorer([1, 1], [0, 0], options=3, people=3)


def question(key: str, images: str, ranks, who: str, prompt: str = "p") -> Choice:
    return Choice(key, prompt, tuple(images), tuple(ranks), annotator=who)


def test_all_ceilings_of_choices():
    rows = [
        question(f"{prompt}{who}", "abc", ranks, who, prompt)
        for prompt in "pqr"
        for who, ranks in (("u", (1, 2, 3)), ("v", (1, 3, 2)), ("w", (2, 1, 1)))
    ]
    table = to_table(rows, "choices")
    found = human_ceilings(pair_answers(table), bootstrap=QUICK)
    assert found.pair.estimate.clusters == 3
    # w ties b and c, and u and v differ there
    assert found.pair.estimate.count == 3 * (3 + 3 + 2)
    assert found.perfect.options == 2
    used = pair_answers(table).without_ties()
    columns = (used.items, used.values, used.raters, used.prompts)
    apart = {
        "pair": one_person(*columns, people=1, bootstrap=QUICK),
        "rest": one_person(*columns, people="rest", bootstrap=QUICK),
        "majority": one_person(*columns, people="all", bootstrap=QUICK),
        "perfect": perfect_scorer(*columns, bootstrap=QUICK),
    }
    assert found.to_dict() == {name: one.to_dict() for name, one in apart.items()}
    best = human_ceilings(best_answers(table), bootstrap=QUICK)
    assert best.perfect.options == 3
    assert best.rest.value == 1
    assert json.loads(json.dumps(found.to_dict()))["majority"]["people"] == "all"
    none = np.zeros(0, np.int64)
    rated = Answers(none, none * 1.0, none, none, none, (), "rating", 0, 0)
    with pytest.raises(DataError, match="take pairs of the ratings instead"):
        human_ceilings(rated)


def test_the_published_anchors():
    assert PUBLISHED == {"ImageReward test": 0.653, "HPD v2 test": 0.781}


# ------------------------------------------------------------------------------ annotators


def panel(seed: int = 0, bad: int = 1):
    """Twelve people on sixty items, three times as many answers as prompts; the last click at random."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 60)
    rows = [
        (item, int(truth[item] ^ (rng.random() < (0.15 if who < 12 - bad else 0.9))), f"u{who:02}")
        for item in range(60)
        for who in range(12)
    ]
    return tuple(map(list, zip(*rows, strict=True)))


def test_agreement_of_each_is_a_slow_loop():
    items, values, people = panel()
    found = annotator_agreement(items, values, people, [item // 3 for item in items])
    votes = defaultdict(list)
    for item, value, who in zip(items, values, people, strict=True):
        votes[item].append((who, value))
    for person in found.people:
        earned = [
            slow_credit(value, [v for other, v in row if other != who], "expected")
            for row in votes.values()
            for who, value in row
            if who == person.name
        ]
        assert person.agreement == pytest.approx(sum(earned) / 60)
        assert (person.answers, person.clusters) == (60, 20)
        assert person.low <= person.agreement <= person.high
    shares = [person.agreement for person in found.people]
    first, third = np.quantile(shares, [0.25, 0.75])
    assert found.fence == pytest.approx(first - 1.5 * (third - first))
    assert [person.name for person in found.outliers] == ["u11"]
    assert shares == sorted(shares)
    assert json.dumps(found.to_dict())


def test_who_is_too_few_or_too_new_is_no_outlier():
    items, values, people = panel()
    strict = annotator_agreement(items, values, people, minimum_answers=61)
    assert {person.outlier for person in strict.people} == {None}
    assert strict.to_dict()["fence"] is None
    with pytest.raises(DataError, match="no annotator is known by name"):
        annotator_agreement([1, 1], [0, 0], [None, None])


def test_who_always_agrees_has_an_interval_still():
    found = annotator_agreement([1, 1, 2, 2, 3], [0, 0, 1, 1, 1], ["u", None, "u", None, "u"])
    (person,) = found.people
    assert (person.agreement, person.high) == (1, 1)
    assert person.low == pytest.approx(0.342, abs=1e-3)
    assert found.left_out == 3
    one = annotator_agreement([1, 1], [0, 0], ["u", "v"]).people[0]
    assert (one.low, one.high) == (0, 1)


@given(st.lists(st.sampled_from([0, 1, 0.5]), min_size=1, max_size=40))
def test_side_bias_is_the_binomial_test(outcome):
    decided = [one for one in outcome if one != 0.5]
    found = side_bias(outcome, ["u"] * len(outcome))
    if not decided:
        assert found == ()
        return
    (person,) = found
    told = stats.binomtest(int(sum(decided)), len(decided))
    assert person.p_value == pytest.approx(told.pvalue)
    assert person.first == pytest.approx(sum(decided) / len(decided))
    interval = told.proportion_ci(method="wilson")
    assert (person.low, person.high) == pytest.approx((interval.low, interval.high))
    mirrored = side_bias([1 - one for one in outcome], ["u"] * len(outcome))[0]
    assert mirrored.z == pytest.approx(-person.z)


def test_side_bias_by_the_rule_of_three():
    outcome = [1] * 18 + [0] * 2 + [1, 0] * 10 + [1]
    people = ["left"] * 20 + ["fair"] * 20 + [None]
    left, fair = side_bias(outcome, people)
    assert (left.name, left.biased, fair.biased) == ("left", True, False)
    assert not side_bias(outcome, people, limit=4.0)[0].biased
    with pytest.raises(DataError, match="an outcome is not 1, 0"):
        side_bias([2], ["u"])


# ------------------------------------------------------------------------------- the page


def test_the_figures_of_the_page_are_those_of_avt(root: Path, shared: Path):
    folder = shared / "data" / "avt"
    if not folder.is_dir():
        pytest.skip("needs data/avt of the shared folder")
    settings = dataclasses.replace(AVT, decode=False)
    table = folder / "ratings_study2.csv"
    choices = read_ratings(table, folder / "images", folder / "prompts.csv", settings).choices
    page = (root / "docs" / "statistics" / "agreement.md").read_text()
    for dimension in ("appeal", "quality"):
        found = human_ceilings(pair_answers(choices, dimension=dimension))
        rows = {
            "one person against one other": found.pair.estimate,
            "one person against the rest": found.rest.estimate,
            "one person against everybody": found.majority.estimate,
            "perfect scorer, lowest": found.perfect.lowest,
            "perfect scorer, likely": found.perfect.likely,
            "perfect scorer, highest": found.perfect.highest,
        }
        for name, row in rows.items():
            line = f"| {name} | {dimension} | {row.value:.3f} | {row.low:.3f} to {row.high:.3f} |"
            assert line in page
        # nobody does better as a scorer of one person than a perfect one
        assert found.pair.value < found.perfect.likely.value < found.perfect.highest.value

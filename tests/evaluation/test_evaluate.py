"""A scorer against choices: the right scores reach the right images, and nothing is skipped."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.records import Choice, Score
from palate.data.tables import to_table
from palate.errors import DataError
from palate.evaluation.evaluate import EvaluateSettings, evaluate_choices
from palate.evaluation.joins import values_of_choices
from palate.stats.two_way.clusters import clustered_share

QUICK = {"resamples": 100}


def score(image: str, value: float | None, prompt: str = "p", **fields) -> Score:
    base = {"scorer": "s", "dimension": "overall", "unit": "hps", "fingerprint": "f"}
    error = "no file" if value is None else None
    return Score(image=image, prompt=prompt, value=value, error=error, **(base | fields))


def table_of(scores):
    return to_table(scores, "scores")


CHOICES = [
    Choice("c0", "p", ("a", "b", "c", "d"), (2, 1, 2, 2), source="one"),
    Choice("c1", "p", ("a", "b"), (1, 2), source="two"),
    Choice("c2", "q", ("e", "f"), (1, 2), source="two"),
]
SCORES = [
    *(score(image, value) for image, value in zip("abcd", (1.0, 3.0, 2.0, 0.0), strict=True)),
    score("e", 5.0, "q"),
    score("f", 4.0, "q"),
]


def run(choices=CHOICES, scores=SCORES, **settings):
    wanted = EvaluateSettings(**(QUICK | settings))
    return evaluate_choices(to_table(choices, "choices"), table_of(scores), wanted)


def test_the_numbers_are_those_counted_by_hand() -> None:
    found = run()
    assert found.overall.top1.value == pytest.approx(2 / 3)
    assert found.overall.pairwise.value == pytest.approx(4 / 5)
    assert found.overall.pairwise.left_out == 3
    assert found.overall.chance == pytest.approx((1 / 4 + 1 / 2 + 1 / 2) / 3)
    assert found.overall.always_first.value == pytest.approx(2 / 3)
    assert found.overall.always_last.value == 0
    assert (found.overall.choices, found.overall.prompts) == (3, 2)
    assert (found.scorer, found.unit, found.fingerprint) == ("s", "hps", "f")


def test_the_order_of_the_tables_does_not_matter() -> None:
    there = run()
    mixed_choices, mixed_scores = CHOICES[:], SCORES[:]
    random.Random(1).shuffle(mixed_choices)
    random.Random(2).shuffle(mixed_scores)
    assert run(mixed_choices[::-1], mixed_scores).to_dict() == there.to_dict()


@given(st.permutations(range(4)))
def test_the_order_shown_does_not_matter_to_the_scorer(order) -> None:
    first = CHOICES[0]
    turned = Choice(
        "c0",
        "p",
        tuple(first.images[k] for k in order),
        tuple(first.ranks[k] for k in order),
    )
    assert run([turned]).overall.top1.value == 1


def test_the_same_image_may_be_scored_for_several_prompts() -> None:
    choices = [Choice("c", "q", ("a", "b"), (1, 2))]
    scores = [*SCORES, score("a", 9.0, "q"), score("b", 8.0, "q")]
    assert run(choices, scores).overall.top1.value == 1


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["p", "q"]), st.sampled_from(["x", "y"])),
        max_size=12,
    )
)
def test_a_value_is_that_of_the_image_the_prompt_and_the_dimension(keys) -> None:
    given_ = {key: float(number) for number, key in enumerate(dict.fromkeys(keys))}
    rows = [
        score(image, value, prompt, dimension=dimension)
        for (image, prompt, dimension), value in given_.items()
    ]
    several = len({dimension for _, _, dimension in given_}) > 1
    asked = [
        Choice(f"{p}{d}", p, ("a", "b", "c"), (1, 2, 3), dimension=d) for p in "pq" for d in "xy"
    ]
    found = values_of_choices(to_table(asked, "choices"), table_of(rows))
    single = {key[:2]: value for key, value in given_.items()}
    wanted = [
        given_.get((image, row.prompt, row.dimension)) if several else single.get((image, row.prompt))
        for row in asked
        for image in row.images
    ]  # fmt: skip
    assert [None if np.isnan(one) else one for one in found] == wanted


def test_a_scorer_of_several_dimensions_is_held_against_each_by_name() -> None:
    choices = [
        Choice("c0", "p", ("a", "b"), (1, 2), dimension="detail"),
        Choice("c1", "p", ("a", "b"), (2, 1), dimension="alignment"),
    ]
    scores = [
        score("a", 2.0, dimension="detail"),
        score("b", 1.0, dimension="detail"),
        score("a", 1.0, dimension="alignment"),
        score("b", 2.0, dimension="alignment"),
    ]
    assert run(choices, scores).overall.top1.value == 1
    with pytest.raises(DataError, match="image 'a' has no score on this dimension"):
        run([Choice("c2", "p", ("a", "b"), (1, 2))], scores)


def test_groups_add_up_to_the_whole() -> None:
    found = run(by="source")
    assert [(group.name, group.choices) for group in found.groups] == [("one", 1), ("two", 2)]
    assert [group.top1.value for group in found.groups] == [1.0, 0.5]
    assert [group.name for group in run(by="size").groups] == ["2 images", "4 images"]
    assert [group.name for group in run(by="dimension").groups] == ["overall"]
    assert run(by="source").overall == run().overall


def test_a_constant_scorer_gets_chance_and_no_correlation() -> None:
    found = run(scores=[score(row.image, 1.0, row.prompt) for row in SCORES])
    assert found.overall.top1.value == pytest.approx(found.overall.chance)
    assert found.overall.pairwise.value == 0.5
    assert found.overall.kendall is None
    assert json.loads(json.dumps(found.to_dict()))["overall"]["kendall"] is None


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (SCORES[:-1], "1 of 3 choices .* first choice 'c2': image 'f' is not in the table of sc"),
        ([*SCORES[:-1], score("f", 1.0, "r")], "image 'f' was scored with another prompt, 'r'"),
        ([*SCORES[:-1], score("f", None, "q")], "image 'f' could not be scored: no file"),
        ([*SCORES, score("a", 1.0, scorer="t")], r"of 2 scorers, expected one: .*s \(f\)"),
        ([*SCORES, score("a", 1.0, fingerprint="g")], "of 2 scorers, expected one"),
        ([], "the table of scores is empty"),
    ],
)
def test_what_does_not_match_is_refused_in_one_sentence(scores, message) -> None:
    with pytest.raises(DataError, match=message):
        run(scores=scores)


def test_left_out_choices_are_counted() -> None:
    found = run(scores=SCORES[:-1], missing="leave-out")
    assert (found.left_out, found.overall.choices) == (1, 2)
    assert found.overall.top1.value == 0.5
    with pytest.raises(DataError, match="2 of 2 choices have an image without a score"):
        run(CHOICES[:2], SCORES[4:], missing="leave-out")


def test_one_scorer_of_many_can_be_named() -> None:
    both = [*SCORES, *(score(row.image, 0.0, row.prompt, scorer="zero") for row in SCORES)]
    assert run(scores=both, scorer="s").overall == run().overall
    with pytest.raises(DataError, match="no scores by 'x'; there are scores by"):
        run(scores=both, scorer="x")


def test_no_choices_are_refused() -> None:
    with pytest.raises(DataError, match="there are no choices"):
        run([])


def many(people: int | None, prompts: int = 40, seed: int = 0):
    """Choices between two images; every person is right about the scorer at a rate of their own."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.2, 1.0, people or 1)
    choices, scores = [], []
    for number in range(prompts):
        name = f"p{number}"
        scores += [score(f"{name}a", 1.0, name), score(f"{name}b", 0.0, name)]
        for person in range(people or 6):
            right = rng.random() < rate[person % len(rate)]
            who = f"x{person}" if people else None
            ranks = (1, 2) if right else (2, 1)
            choices.append(
                Choice(f"{name}-{person}", name, (f"{name}a", f"{name}b"), ranks, annotator=who)
            )
    return choices, scores


def test_intervals_allow_for_people_where_they_are_known() -> None:
    choices, scores = many(6)
    known = run(choices, scores).overall
    nameless = [Choice(c.choice, c.prompt, c.images, c.ranks) for c in choices]
    unknown = run(nameless, scores).overall
    assert (known.people, known.clusters) == (6, ("prompts", "people"))
    assert (unknown.people, unknown.clusters) == (0, ("prompts",))
    for name in ("top1", "pairwise", "always_first", "kendall"):
        one, other = getattr(known, name).estimate, getattr(unknown, name).estimate
        assert one.value == other.value
        assert one.high - one.low > 1.5 * (other.high - other.low), name
    wanted = clustered_share(
        [float(c.ranks[0] == 1) for c in choices], [c.prompt for c in choices], [c.annotator for c in choices]
    )  # fmt: skip
    assert known.top1.estimate.low == pytest.approx(wanted.low)
    assert known.to_dict()["clusters"] == ["prompts", "people"]
    assert "6 people only" in known.cautions()[0]
    assert unknown.cautions() == []


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_is_no_certainty(right) -> None:
    choices, scores = many(None, prompts=15)
    ranks = (1, 2) if right else (2, 1)
    same = [Choice(c.choice, c.prompt, c.images, ranks) for c in choices]
    found = run(same, scores).overall
    its = found.top1.estimate
    assert its.value == float(right)
    assert 0.1 < its.high - its.low < 0.5
    worth = "right" if right else "wrong"
    assert any(f"top-1 is {worth} in all 90 answers" in one for one in found.cautions())


def test_few_prompts_are_cautioned() -> None:
    assert "2 prompts only" in run().overall.cautions()[0]


def test_a_group_that_decides_nothing_is_named() -> None:
    tied = Choice("c3", "q", ("e", "f"), (1, 1), source="three")
    found = run([*CHOICES, tied], by="source")
    assert [group.name for group in found.groups] == ["one", "two"]
    (undecided,) = found.undecided
    assert (undecided.name, undecided.choices) == ("three", 1)
    assert "none of 1 choices has a decision" in undecided.reason
    assert json.loads(json.dumps(found.to_dict()))["undecided"][0]["name"] == "three"


@pytest.mark.parametrize(
    "bad", [{"level": 2.0}, {"resamples": 5}, {"resamples": 10**7}, {"seed": -1}]
)
def test_settings_without_an_interval_are_refused(bad) -> None:
    with pytest.raises(DataError, match="expected"):
        EvaluateSettings(**bad)

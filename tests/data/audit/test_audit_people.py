"""An audit measures how far people agree and how fast they answer, and names who stands out."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.audit.audit import Audit, audit_dataset
from palate.data.records import Choice
from palate.data.tables import Dataset, to_table


def look(choices: list[Choice]) -> Audit:
    data = Dataset(to_table([], "images"), to_table(choices, "choices"), Path("nowhere"))
    return audit_dataset(data)


def answer(number: int, who: str | None, question: int, ranks: tuple[int, ...], **more) -> Choice:
    images = tuple(f"{question}-{k}" for k in range(len(ranks)))
    return Choice(f"c{number}", f"p{question}", images, ranks, annotator=who, **more)


def shuffled(choice: Choice, seed: int) -> Choice:
    order = np.random.default_rng(seed).permutation(len(choice.images))
    return Choice(
        choice.choice,
        choice.prompt,
        tuple(choice.images[k] for k in order),
        tuple(choice.ranks[k] for k in order),
        choice.dimension,
        choice.annotator,
    )


def slow_agreement(choices: list[Choice]) -> tuple[list[bool], list[bool]]:
    """Same best image, and same order of two images, for every two people with a question in common."""
    best, orders = [], []
    first: dict[tuple[object, ...], Choice] = {}
    for row in choices:
        key = (row.prompt, row.dimension, frozenset(row.images), row.annotator)
        if row.annotator is not None:
            first.setdefault(key, row)
    for (key, a), (other, b) in combinations(first.items(), 2):
        if key[:3] != other[:3]:
            continue
        ranks = [dict(zip(row.images, row.ranks, strict=True)) for row in (a, b)]
        tops = [[k for k, v in rank.items() if v == min(rank.values())] for rank in ranks]
        if all(len(top) == 1 for top in tops):
            best.append(tops[0] == tops[1])
        for one, two in combinations(a.images, 2):
            signs = [np.sign(rank[one] - rank[two]) for rank in ranks]
            if 0 not in signs:
                orders.append(bool(signs[0] == signs[1]))
    return best, orders


answers = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from([None, "a", "b", "c"]),
        st.tuples(*[st.integers(1, 4)] * 3),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=12,
)


@given(answers)
def test_agreement_is_what_comparing_all_people_gives(given_answers) -> None:
    rows = [
        shuffled(answer(number, who, question, ranks), seed)
        for number, (question, who, ranks, seed) in enumerate(given_answers)
    ]
    best, orders = slow_agreement(rows)
    found = look(rows).facts.agreement
    if not found:
        assert best == orders == []
        return
    assert found[0].best_comparisons == len(best)
    assert found[0].best == (pytest.approx(np.mean(best)) if best else None)
    assert found[0].pairs_comparisons == len(orders)
    assert found[0].pairs == (pytest.approx(np.mean(orders)) if orders else None)


def test_agreement_by_dimension_and_its_chance() -> None:
    rows = []
    for question in range(4):
        for k, who in enumerate("ab"):
            number = 10 * question + k
            rows.append(answer(number, who, question, (1, 2, 3), dimension="looks"))
            ranks = (1, 2, 3) if who == "a" else (3, 2, 1)
            rows.append(answer(number + 5, who, question, ranks, dimension="words"))
    facts = {row.dimension: row for row in look(rows).facts.agreement}
    assert [facts[name].best for name in ("all", "looks", "words")] == [0.5, 1.0, 0.0]
    assert facts["all"].best_chance == pytest.approx(1 / 3)
    assert [facts[name].pairs for name in ("all", "looks", "words")] == [0.5, 1.0, 0.0]
    assert (facts["all"].questions, facts["all"].annotators, facts["all"].answers) == (8, 2, 16)


def crowd(people: int = 8, questions: int = 30, **odd: float) -> list[Choice]:
    """People who mostly agree; `odd` says with which probability somebody inverts the answer."""
    rng = np.random.default_rng(1)
    rows = []
    for question in range(questions):
        truth = rng.permutation(4) + 1
        for who in range(people):
            name = f"u{who}"
            ranks = truth.copy()
            if rng.random() < odd.get(name, 0.05):
                ranks = 5 - ranks
            row = answer(len(rows), name, question, tuple(int(k) for k in ranks))
            rows.append(shuffled(row, len(rows)))
    return rows


def test_who_agrees_with_nobody_is_named() -> None:
    assert "disagreeing annotators" not in {f.kind for f in look(crowd()).findings}
    found = look(crowd(questions=80, u3=0.95, u5=0.5))
    told = next(f for f in found.findings if f.kind == "disagreeing annotators")
    assert (told.level, told.count) == ("warning", 2)
    assert told.examples[0].startswith("u3: ")
    assert told.examples[1].startswith("u5: ")
    people = found.facts.agreement[0].people
    assert [person.name for person in people[:2]] == ["u3", "u5"]
    assert all(person.low <= person.agreement <= person.high for person in people)


def test_the_order_of_rows_changes_no_agreement() -> None:
    rows = crowd(u3=0.5)
    whole, turned = (look(r).facts.agreement[0] for r in (rows, rows[::-1]))
    assert whole.pairs == turned.pairs
    assert sorted(map(str, whole.people)) == sorted(map(str, turned.people))


def test_unknown_people_and_single_answers_give_no_agreement() -> None:
    rows = [answer(k, None, 0, (1, 2)) for k in range(3)]
    assert look(rows).facts.agreement == ()
    assert look([answer(k, f"u{k}", k, (1, 2)) for k in range(3)]).facts.agreement == ()


def timed(seconds: dict[str, float], key: str = "seconds", times: int = 12) -> list[Choice]:
    return [
        answer(10 * k + n, who, 10 * k + n, (1, 2), details=json.dumps({key: value + n / 100}))
        for n, (who, value) in enumerate(seconds.items())
        for k in range(times)
    ]


@pytest.mark.parametrize("key", ["seconds", "delay_seconds"])
def test_who_is_far_too_fast_is_named(key: str) -> None:
    found = look(timed({"a": 9.0, "b": 10.0, "c": 11.0, "d": 1.0}, key))
    hasty = next(f for f in found.findings if f.kind == "hasty annotators")
    assert (hasty.level, hasty.count) == ("warning", 1)
    assert hasty.examples == ("d: 1.03 s in 12 answers",)
    speed = found.facts.speed
    assert speed is not None
    assert (speed.keys, speed.answers) == ((key,), 48)
    assert 9 < speed.median < 11
    assert [pace.name for pace in speed.people] == ["d", "a", "b", "c"]
    assert sum(count for _, count in speed.histogram) == 48


def test_few_answers_and_no_times_name_nobody() -> None:
    found = look(timed({"a": 9.0, "b": 10.0, "c": 11.0, "d": 1.0}, times=9))
    assert "hasty annotators" not in {f.kind for f in found.findings}
    rows = [answer(k, "u", k, (1, 2), details='{"note":"30 seconds"}') for k in range(3)]
    assert look(rows).facts.speed is None


def test_a_time_that_is_none_is_told() -> None:
    rows = timed({"a": 9.0})
    rows.append(answer(900, "a", 900, (1, 2), details='{"seconds":-1}'))
    rows.append(answer(901, "a", 901, (1, 2), details='{"seconds":"long"}'))
    told = next(f for f in look(rows).findings if f.kind == "impossible times")
    assert (told.count, told.examples) == (1, ("c900",))


def test_ties_are_counted_by_dimension_and_by_size() -> None:
    rows = [
        answer(0, "a", 0, (1, 1), dimension="b"),
        answer(1, "a", 1, (1, 2, 2)),
        answer(2, "a", 2, (1, 1, 2)),
    ]
    facts = look(rows).facts
    told = [(row.of, row.choices, row.tied_best, row.all_tied) for row in facts.ties]
    assert told == [("b", 1, 1, 1), ("overall", 2, 1, 0)]
    told = [(row.of, row.choices, row.tied_best, row.all_tied) for row in facts.group_sizes]
    assert told == [("2", 1, 1, 1), ("3", 2, 1, 0)]

"""Agreement does not depend on what images are called, and says what it counted and what it did not."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.records import Choice
from palate.data.tables import to_table
from palate.errors import DataError
from palate.stats.agreements.answers import best_answers, pair_answers, rank_answers
from palate.stats.agreements.coefficients import fleiss_kappa, krippendorff_alpha
from palate.stats.agreements.nameless import nameless_agreement
from palate.stats.agreements.report import agreement_report
from palate.stats.intervals import Bootstrap

QUICK = Bootstrap(resamples=100)


def study(sizes=(2, 3, 4), questions=18, people=4, seed=0, ties=0.2, name=lambda q, k: f"{q}-{k}"):
    """Picks of the best among several; the images of a question are shown in another order to each."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(questions):
        size = sizes[number % len(sizes)]
        for person in range(people):
            best = min(rng.geometric(0.6), size) - 1
            ranks = np.where(np.arange(size) == best, 1, 2)
            if rng.random() < ties:
                ranks[:] = 1
            order = rng.permutation(size)
            images = tuple(name(number, k) for k in order)
            told = tuple(int(ranks[k]) for k in order)
            rows.append(
                Choice(f"{number}-{person}", f"p{number}", images, told, annotator=f"a{person}")
            )
    return to_table(rows, "choices")


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 99), st.booleans())
def test_names_of_images_change_nothing(seed, two_way) -> None:
    rng = np.random.default_rng(seed)
    new = {(q, k): f"{rng.random():.9f}" for q in range(18) for k in range(4)}
    plain, renamed = study(seed=seed), study(seed=seed, name=lambda q, k: new[q, k])
    for take in (pair_answers, best_answers):
        there, back = (
            nameless_agreement(take(table), two_way=two_way, bootstrap=QUICK)
            for table in (plain, renamed)
        )
        for one, other in zip(there, back, strict=True):
            left, right = one.to_dict(), other.to_dict()
            assert left.keys() == right.keys()
            for key, value in left.items():
                assert right[key] == (
                    pytest.approx(value, abs=1e-9) if isinstance(value, float) else value
                ), key


def test_named_values_did_depend_on_names() -> None:
    one, other = study(), study(name=lambda q, k: f"{q}-{(k + q) % 4}")
    kappas = [
        fleiss_kappa(found.items, found.values, found.raters, bootstrap=QUICK).value
        for found in (pair_answers(one), pair_answers(other))
    ]
    assert abs(kappas[0] - kappas[1]) > 0.01


def slow(answers):
    """Percent, kappa, AC1 and alpha with interchangeable names, one pair of people at a time."""
    groups: dict[int, list[tuple[float, int]]] = {}
    for item, value, options in zip(answers.items, answers.values, answers.options, strict=True):
        groups.setdefault(int(item), []).append((float(value), int(options)))
    groups = {item: group for item, group in groups.items() if len(group) > 1}
    tie = (lambda v: v == 0.5) if answers.kind == "pair" else (lambda v: False)
    agree = {
        i: np.mean([a == b for (a, _), (b, _) in combinations(g, 2)]) for i, g in groups.items()
    }
    kinds = sorted({g[0][1] for g in groups.values()})
    extra = {n: any(tie(v) for g in groups.values() for v, o in g if o == n) for n in kinds}
    fleiss = ac1 = apart = 0.0
    total = sum(map(len, groups.values()))
    for n in kinds:
        own = [g for g in groups.values() if g[0][1] == n]
        s = np.mean([np.mean([tie(v) for v, _ in g]) for g in own])
        squares = s**2 + (1 - s) ** 2 / n
        fleiss += len(own) / len(groups) * squares
        ac1 += len(own) / len(groups) * (1 - squares) / (n + extra[n] - 1)
        count, ties = sum(map(len, own)), sum(tie(v) for g in own for v, _ in g)
        named = (count - ties) / n
        same = ties * (ties - 1) + n * named * (named - 1)
        apart += count * (1 - same / (count * (count - 1))) / total
    observed = np.mean(list(agree.values()))
    disagree = sum(len(groups[i]) * (1 - agree[i]) for i in groups) / total
    return (
        (observed - fleiss) / (1 - fleiss),
        (observed - ac1) / (1 - ac1),
        1 - disagree / apart,
    )


@pytest.mark.parametrize("take", [pair_answers, best_answers])
def test_coefficients_are_those_of_a_slow_loop(take) -> None:
    for seed in range(5):
        answers = take(study(seed=seed))
        found = nameless_agreement(answers, bootstrap=QUICK)
        assert [one.value for one in found[1:4]] == pytest.approx(slow(answers))


def test_without_ties_all_are_one_number() -> None:
    answers = pair_answers(study(sizes=(2,), ties=0.0, questions=400))
    percent, kappa, ac1, alpha = nameless_agreement(answers, bootstrap=QUICK)
    assert kappa.value == ac1.value == pytest.approx(2 * percent.value - 1)
    assert alpha.value == pytest.approx(kappa.value, abs=2e-3)


def test_ties_stand_halfway_on_an_ordinal_scale() -> None:
    """Mirrored answers have the mean 0: alpha is that of answers and their mirror images together."""
    answers = pair_answers(study(sizes=(2,), questions=40))
    ordinal = nameless_agreement(answers, bootstrap=QUICK)[-1]
    assert ordinal.measure == "Krippendorff's alpha, ordinal"
    both = np.concatenate([answers.items, answers.items + 1000])
    values = np.concatenate([answers.values, 1 - answers.values])
    twice = krippendorff_alpha(both, values, scale="interval", bootstrap=QUICK)
    assert ordinal.value == pytest.approx(twice.value, abs=5e-3)


def test_places_in_a_ranking_run_from_best_to_last() -> None:
    rows = [
        Choice("c0", "p", ("a", "b", "c"), (1, 3, 2), annotator="x"),
        Choice("c1", "p", ("c", "b", "a"), (2, 2, 1), annotator="y", details='{"ratings":[3,3,5]}'),
        Choice("c2", "q", ("d", "e", "f"), (1, 2, 2), annotator="x"),
        Choice("c3", "q", ("d", "e"), (1, 2), annotator="y"),
    ]
    found = rank_answers(to_table(rows, "choices"))
    told = sorted(
        zip(found.items.tolist(), found.raters.tolist(), found.values.tolist(), strict=True)
    )
    assert [(item, value) for item, _, value in told] == [
        (0, 0.0), (0, 0.0), (1, 1.0), (1, 0.75), (2, 0.5), (2, 0.75)
    ]  # fmt: skip
    assert found.left_out == 2
    with pytest.raises(DataError, match="none of 1 choices ranks more than two images"):
        rank_answers(to_table(rows[2:3], "choices"))


def test_a_report_says_what_was_counted_and_what_was_not() -> None:
    table = study(sizes=(3,))
    again = table.to_pylist()[0] | {"choice": "z"}
    alone = Choice("only", "p99", ("u", "v"), (1, 2), annotator="a0")
    rows = [Choice(**{**row, "images": tuple(row["images"]), "ranks": tuple(row["ranks"])}) for row in (*table.to_pylist(), again)]  # fmt: skip
    pairs, best = agreement_report(to_table([*rows, alone], "choices"), bootstrap=QUICK)
    assert (pairs.name, best.name) == ("order of two images", "best image")
    tied = sum(set(row["ranks"]) == {1} for row in table.to_pylist())
    # a pair of losers of all but one person is answered once
    assert min(pairs.alone, best.alone) >= 1
    # the repeated choice is left out of both, its silent pair is counted before
    assert (pairs.repeats > 0, best.undecided >= tied) == (True, True)
    assert pairs.silent == sum(set(row.ranks) == {1, 2} for row in rows)
    assert pairs.ties == 3 * tied
    sentence = pairs.sentence()
    for word in ("answers by 4 people", "ties take part", "repeated answers", "nobody picked"):
        assert word in sentence
    assert json.loads(json.dumps(pairs.to_dict()))["counts"]["ties"] == pairs.ties
    assert pairs.coefficients[0].two_way


def test_rankings_and_ratings_have_ordinal_and_interval_alpha() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for number in range(12):
        worth = rng.normal(size=4)
        for person in range(3):
            given = np.clip(np.round(3 + worth + rng.normal(0, 0.7, 4)), 1, 5)
            ranks = tuple(int(r) + 1 for r in np.unique(-given, return_inverse=True)[1])
            details = json.dumps({"ratings": given.tolist()}, separators=(",", ":"))
            images = tuple(f"{number}-{k}" for k in range(4))
            rows.append(
                Choice(f"{number}-{person}", f"p{number}", images, ranks, annotator=f"a{person}", details=details)
            )  # fmt: skip
    found = {one.name: one for one in agreement_report(to_table(rows, "choices"), bootstrap=QUICK)}
    for name in ("place in the ranking", "rating"):
        scales = [one.measure.split(", ")[1] for one in found[name].coefficients]
        assert scales == ["ordinal", "interval"]
        assert found[name].coefficients[0].value > 0.3
    assert found["order of two images"].silent == 0


def test_where_no_two_answered_the_same_it_is_said() -> None:
    rows = [Choice(f"c{k}", f"p{k}", (f"{k}a", f"{k}b"), (1, 2)) for k in range(3)]
    with pytest.raises(
        DataError, match="no two people answered the same question in 3 choices on 3"
    ):
        agreement_report(to_table(rows, "choices"))

"""Coefficients of agreement are the published ones, what a slow loop gives, and what others give."""

from __future__ import annotations

import dataclasses
import doctest
import json
import math
import re
from collections import Counter, defaultdict
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats import inter_rater

from palate.data.records import Choice, json_text
from palate.data.sources.ratings import AVT, read_ratings
from palate.data.tables import to_table
from palate.errors import DataError
from palate.stats.agreements.answers import best_answers, pair_answers, rating_answers
from palate.stats.agreements.coefficients import (
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    krippendorff_alpha,
    percent_agreement,
)
from palate.stats.agreements.unit_intervals import interval_of
from palate.stats.agreements.units import Units
from palate.stats.intervals import Bootstrap

QUICK = Bootstrap(resamples=100)
EVERY = (percent_agreement, fleiss_kappa, gwet_ac1, krippendorff_alpha)

# Krippendorff (2011), section E: four observers, twelve units; 0 is a missing value.
KRIPPENDORFF = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)


def long_form(rows=KRIPPENDORFF):
    """Items, values and people of a table with a row per person."""
    cells = [(u, v, f"r{r}") for r, row in enumerate(rows) for u, v in enumerate(row) if v]
    return tuple(map(list, zip(*cells, strict=True)))


def by_item(items, values) -> list[list]:
    groups = defaultdict(list)
    for item, value in zip(items, values, strict=True):
        groups[item].append(value)
    return list(groups.values())


def slow_alpha(items, values, scale: str) -> float:
    """Alpha from the coincidence matrix, as the paper counts it by hand."""
    units = [unit for unit in by_item(items, values) if len(unit) > 1]
    met = Counter()
    for unit in units:
        for pair in permutations(range(len(unit)), 2):
            met[unit[pair[0]], unit[pair[1]]] += 1 / (len(unit) - 1)
    total = Counter()
    for (left, _), count in met.items():
        total[left] += count

    def squared(c, k) -> float:
        if scale == "nominal":
            return float(c != k)
        if scale == "interval":
            return (c - k) ** 2
        low, high = min(c, k), max(c, k)
        between = sum(count for value, count in total.items() if low <= value <= high)
        return (between - (total[c] + total[k]) / 2) ** 2

    n = sum(total.values())
    observed = sum(count * squared(*pair) for pair, count in met.items()) / n
    expected = sum(total[c] * total[k] * squared(c, k) for c in total for k in total)
    if not expected:
        return math.nan
    return 1 - observed / (expected / (n * (n - 1)))


def slow_shares(items, values, singles: bool = False) -> tuple[float, dict]:
    """Mean agreement of pairs per item, and mean share of every value."""
    units = by_item(items, values)
    several = [unit for unit in units if len(unit) > 1]
    agreed = [
        sum(a == b for a, b in combinations(unit, 2)) / math.comb(len(unit), 2) for unit in several
    ]
    used = units if singles else several
    shares = defaultdict(float)
    for unit in used:
        for value in unit:
            shares[value] += 1 / len(unit) / len(used)
    return sum(agreed) / len(agreed), shares


def slow_fleiss(items, values, singles: bool = False) -> float:
    agreed, shares = slow_shares(items, values, singles)
    chance = sum(share**2 for share in shares.values())
    return (agreed - chance) / (1 - chance) if len(shares) > 1 else math.nan


def slow_ac1(items, values, singles: bool = False) -> float:
    agreed, shares = slow_shares(items, values, singles)
    chance = sum(s * (1 - s) for s in shares.values()) / max(1, len(shares) - 1)
    return (agreed - chance) / (1 - chance)


answers = st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=2, max_size=6).map(
    lambda rows: [[int(v) for v in row] for row in rows]
)


@pytest.mark.parametrize(
    ("scale", "told"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_of_krippendorffs_own_example(scale: str, told: float):
    found = krippendorff_alpha(*long_form(), scale=scale, bootstrap=QUICK)
    assert found.value == pytest.approx(told, abs=5e-4)
    assert found.value == pytest.approx(slow_alpha(*long_form()[:2], scale), abs=1e-12)
    assert (found.items, found.left_out, found.values, found.raters) == (11, 1, 40, 4)


def test_published_kappa_and_ac1_of_the_same_example():
    """As irrCAC prints them: it counts the single value of unit 12 among the shares, Palate nowhere."""
    items, values, people = long_form()
    assert slow_fleiss(items, values, singles=True) == pytest.approx(0.76117, abs=5e-6)
    assert slow_ac1(items, values, singles=True) == pytest.approx(0.77544, abs=5e-6)
    found = percent_agreement(items, values, people, average="macro", bootstrap=QUICK)
    assert found.value == pytest.approx(0.81818, abs=5e-6)
    assert fleiss_kappa(items, values, people).value == pytest.approx(slow_fleiss(items, values))
    assert gwet_ac1(items, values, people).value == pytest.approx(slow_ac1(items, values))


@given(answers)
def test_every_coefficient_is_that_of_a_slow_loop(rows):
    assume(any(sum(bool(v) for v in unit) > 1 for unit in zip(*rows, strict=True)))
    items, values, people = long_form(rows)
    slow = {
        fleiss_kappa: slow_fleiss(items, values),
        gwet_ac1: slow_ac1(items, values),
    }
    for measure, told in slow.items():
        found = measure(items, values, people, bootstrap=QUICK)
        assert found.value == pytest.approx(told, abs=1e-9, nan_ok=True)
    for scale in ("nominal", "ordinal", "interval"):
        found = krippendorff_alpha(items, values, people, scale=scale, bootstrap=QUICK)
        told = slow_alpha(items, values, scale)
        assert found.value == pytest.approx(told, abs=1e-9, nan_ok=True)
    pairs = [pair for unit in by_item(items, values) for pair in combinations(unit, 2)]
    found = percent_agreement(items, values, people, bootstrap=QUICK)
    assert found.value == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=2, max_size=9),
)
def test_fleiss_is_that_of_statsmodels(rows):
    """It knows equal numbers of people only."""
    assume(len({value for row in rows for value in row}) > 1)
    items = np.repeat(np.arange(len(rows)), 3)
    table, _ = inter_rater.aggregate_raters(np.array(rows))
    told = inter_rater.fleiss_kappa(table)
    found = fleiss_kappa(items, np.ravel(rows), bootstrap=QUICK).value
    assert found == pytest.approx(told, abs=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12),
    st.sampled_from(["none", "linear", "quadratic"]),
)
def test_cohen_is_that_of_scikit_learn_and_statsmodels(pairs, weights: str):
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = (list(column) for column in zip(*pairs, strict=True))
    values = sorted({*first, *second})
    # both libraries divide by zero
    assume(len(set(first)) > 1 or len(set(second)) > 1)
    found = cohen_kappa(first, second, weights=weights, bootstrap=QUICK).value
    name = None if weights == "none" else weights
    assert found == pytest.approx(metrics.cohen_kappa_score(first, second, weights=name), abs=1e-9)
    table = np.zeros((len(values), len(values)))
    for a, b in pairs:
        table[values.index(a), values.index(b)] += 1
    told = inter_rater.cohens_kappa(table, wt=name, return_results=False)
    assert found == pytest.approx(told, abs=1e-9)


@settings(max_examples=25)
@given(answers, st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(rows, random):
    assume(any(sum(bool(v) for v in unit) > 1 for unit in zip(*rows, strict=True)))
    items, values, people = long_form(rows)
    order = list(range(len(items)))
    random.shuffle(order)
    mixed = [[column[k] for k in order] for column in (items, values, people)]
    # other names in the same order
    named = ([f"i{item:02}" for item in mixed[0]], [f"v{v}" for v in mixed[1]], mixed[2])
    for measure in EVERY:
        first = measure(items, values, people, bootstrap=QUICK).to_dict()
        assert measure(*mixed, bootstrap=QUICK).to_dict() == first
        assert measure(*named, bootstrap=QUICK).to_dict() == first


def test_an_item_twice_changes_no_coefficient_but_alpha():
    """Alpha draws its chance without putting back; with more items the difference goes away."""
    items, values, people = long_form()
    twice = ([*items, *(item + 100 for item in items)], values * 2, people * 2)
    for measure in (percent_agreement, fleiss_kappa, gwet_ac1):
        assert measure(*twice).value == pytest.approx(measure(items, values, people).value)
    assert krippendorff_alpha(*twice).value < krippendorff_alpha(items, values, people).value


def test_where_everybody_gives_one_value_there_is_no_kappa():
    items, values = [1, 1, 2, 2, 2], ["a"] * 5
    for measure in (fleiss_kappa, krippendorff_alpha):
        found = measure(items, values, bootstrap=QUICK)
        assert math.isnan(found.value)
        assert found.to_dict()["value"] is None
        assert found.to_dict()["low"] is None
    same = krippendorff_alpha(items, [0.1] * 5, scale="interval", bootstrap=QUICK)
    assert math.isnan(same.value)
    assert math.isnan(cohen_kappa([1, 1], [1, 1], bootstrap=QUICK).value)
    assert cohen_kappa([1, 1], [2, 2], bootstrap=QUICK).value == 0
    assert percent_agreement(items, values, bootstrap=QUICK).value == 1
    assert gwet_ac1(items, values, bootstrap=QUICK).value == 1
    assert gwet_ac1(items, values, categories=3, bootstrap=QUICK).value == 1


def test_ac1_stays_where_kappa_collapses():
    """A hundred items, two people, one value in 95 of 100: the paradox of kappa."""
    first = ["yes"] * 95 + ["no"] * 5
    second = ["yes"] * 90 + ["no"] * 5 + ["yes"] * 5
    items = [*range(100), *range(100)]
    kappa = fleiss_kappa(items, first + second, bootstrap=QUICK).value
    assert kappa == pytest.approx(-0.0526, abs=1e-4)
    assert gwet_ac1(items, first + second, bootstrap=QUICK).value == pytest.approx(0.8895, abs=1e-4)


def test_more_values_than_were_given_lower_the_chance_of_ac1():
    items, values = [1, 1, 2, 2], [0, 0, 1, 0]
    few = gwet_ac1(items, values, bootstrap=QUICK)
    many = gwet_ac1(items, values, categories=5, bootstrap=QUICK)
    assert many.value > few.value
    assert (few.categories, many.categories) == (2, 5)
    with pytest.raises(DataError, match="1 categories, but 2 different values were given"):
        gwet_ac1(items, values, categories=1)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (([1, 2], ["a", "b"]), "none of 2 items has the values of two people"),
        (([1, 1], ["a", "b"], ["u", "u"]), "a person gave two values to one item"),
        (([1, 1], [1.0, math.nan]), "a value is not a number; leave missing values out"),
        (([1, 1], ["a", "b"], ["u"]), "2 values but people of shape"),
    ],
)
def test_what_cannot_be_compared_is_refused(columns, told: str):
    with pytest.raises(DataError, match=told):
        krippendorff_alpha(*columns, bootstrap=QUICK)


def test_other_faults_are_named():
    with pytest.raises(DataError, match="values on an ordinal or interval scale are numbers"):
        krippendorff_alpha([1, 1], ["a", "b"], scale="interval")
    with pytest.raises(DataError, match="lie in two clusters"):
        percent_agreement([1, 1], [0, 1], clusters=["p", "q"])
    with pytest.raises(DataError, match="needs to know who answered"):
        percent_agreement([1, 1, 2, 2], [0, 1, 1, 1], two_way=True)
    with pytest.raises(DataError, match="do not match, or there are none"):
        cohen_kappa([1], [1, 2])


def test_unknown_people_are_all_different():
    found = percent_agreement([1, 1, 2, 2], [0, 1, 1, 1], [None, None, "u", ""], bootstrap=QUICK)
    assert (found.value, found.raters) == (0.5, 1)
    numbered = percent_agreement([1, 1, 2, 2], [0, 1, 1, 1], [-1, -1, 0, -1], bootstrap=QUICK)
    assert numbered.raters == 1


def crowd(seed: int, items: int, each: int, people: int, categories: int = 3):
    """Answers of people who drift apart: some agree with the truth, some with themselves."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, categories, items)
    skill = rng.random(people)
    who = np.argsort(rng.random((items, people)), axis=1)[:, :each]
    told = np.where(
        rng.random(who.shape) < skill[who],
        truth[:, None],
        rng.integers(0, categories, who.shape),
    )
    return np.repeat(np.arange(items), each), told.ravel(), who.ravel()


def test_the_interval_is_that_of_drawing_items():
    items, values, people = crowd(0, 60, 3, 12)
    found = fleiss_kappa(items, values, people, bootstrap=Bootstrap(resamples=4000))
    rng = np.random.default_rng(1)
    table = values.reshape(60, 3)
    naive = []
    for _ in range(4000):
        rows = table[rng.integers(0, 60, 60)]
        naive.append(inter_rater.fleiss_kappa(np.stack([(rows == k).sum(1) for k in range(3)], 1)))
    low, high = np.quantile(naive, [0.02275, 0.97725])
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)
    assert found.low < found.value < found.high


def test_clusters_of_items_widen_the_interval():
    items, values, _ = crowd(2, 40, 3, 12)
    copies = [np.concatenate([items + 100 * k for k in range(5)]), *(np.tile(values, 5),)]
    plain = fleiss_kappa(*copies)
    whole = fleiss_kappa(*copies, clusters=np.tile(items, 5))
    assert whole.clusters == 40
    assert whole.high - whole.low > 1.8 * (plain.high - plain.low)


@pytest.mark.parametrize("measure", EVERY)
def test_other_people_widen_the_interval(measure):
    columns = crowd(3, 80, 6, 9)
    one, two = measure(*columns), measure(*columns, two_way=True)
    assert two.value == one.value
    assert two.low < one.low < one.high < two.high <= 1
    assert "jackknife over people" in two.to_dict()["method"]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("agreeing", "pairs"), "none"),
        (("agreement", "one"), "share"),
        (("disagreement", "size"), "count"),
        (("spread", "size", "sum", "square"), "none"),
    ],
)
@pytest.mark.parametrize("each", [2, 3, 5])
def test_leaving_out_a_person_is_counting_again_without(names, kind: str, each: int):
    items, values, people = crowd(4, 30, each, 7)
    units = Units.of(items, values, people, numbers=True)
    scalars, sums = units.totals(names, kind)
    change, other = next(iter(units.changes(names, kind, units.person)))
    shift = values.mean()
    for person in range(7):
        kept = people != person
        again = Units.of(items[kept], values[kept], people[kept], numbers=True)
        # on the scale of the whole: each takes its own mean off
        again = dataclasses.replace(
            again, number=again.number + values[kept][alive(items[kept])].mean() - shift
        )
        told, shares = again.totals(names, kind)
        np.testing.assert_allclose((scalars + change[person])[0], told[0], atol=1e-9)
        if kind != "none":
            np.testing.assert_allclose((sums + other[person])[0], shares[0], atol=1e-9)


def alive(items):
    return np.bincount(items)[items] > 1


def test_many_values_take_the_sparse_way_to_the_same_numbers():
    """With over 64 columns nothing is folded."""
    items, values, people = crowd(5, 300, 3, 9, categories=80)
    found = krippendorff_alpha(items, values, people, two_way=True, bootstrap=QUICK)
    assert found.value == pytest.approx(slow_alpha(items.tolist(), values.tolist(), "nominal"))
    assert found.low < found.value < found.high


def test_resamples_without_a_value_are_counted():
    found = fleiss_kappa([1, 1, 2, 2], [0, 0, 1, 1], bootstrap=QUICK)
    assert found.value == 1
    assert 30 < found.undefined_resamples < 70


def test_one_cluster_has_no_interval():
    found = percent_agreement([1, 1, 1], [0, 0, 1], bootstrap=QUICK)
    assert found.value == pytest.approx(1 / 3)
    assert math.isnan(found.low)
    units = Units.of([1, 1, 1], [0, 0, 1])
    assert interval_of(units, ("one",), "none", lambda s, _: s[:, 0]).value == 1


# ---------------------------------------------------------------------------- from choices


def chosen(key: str, images: str, ranks: tuple[int, ...], **changes) -> Choice:
    return dataclasses.replace(Choice(key, "p", tuple(images), ranks), **changes)


def test_pairs_are_the_same_in_any_order_shown():
    table = to_table(
        [
            chosen("1", "ab", (1, 2), annotator="u"),
            chosen("2", "ba", (2, 1), annotator="v"),
            chosen("3", "ba", (1, 1), annotator="w"),
            chosen("4", "ba", (1, 2), annotator="x", dimension="alignment"),
            chosen("5", "ab", (1, 2), annotator="x", prompt="q"),
            chosen("6", "ab", (2, 1), annotator="u"),
        ],
        "choices",
    )
    found = pair_answers(table)
    assert found.values.tolist() == [1, 1, 0.5, 0, 1]
    assert len(set(found.items.tolist())) == 3
    assert len(set(found.items[:3].tolist())) == 1
    assert (found.repeats, found.people) == (1, ("u", "v", "w", "x"))
    assert len(pair_answers(table, dimension="alignment")) == 1
    decided = found.without_ties()
    assert (len(decided), decided.left_out) == (4, 1)
    assert decided.without_ties().left_out == 1


def slow_pairs(rows, same_set):
    """Question, value and person of the answers that count, in the order of the rows; and the repeats."""
    told = []
    for place, row in enumerate(rows):
        for one, other in combinations(range(len(row.images)), 2):
            low, high = sorted((one, other), key=lambda k, row=row: row.images[k])
            value = (row.ranks[low] < row.ranks[high]) + 0.5 * (row.ranks[low] == row.ranks[high])
            company = tuple(sorted(row.images)) if same_set else ()
            pair = (row.images[low], row.images[high])
            question = (row.prompt, row.dimension, company, pair)
            who = place if row.annotator is None else row.annotator
            told.append((question, value, who, row.choice))
    first = {}
    for question, _, who, key in told:
        first[question, who] = min(key, first.get((question, who), key))
    kept = [one for one in told if first[one[0], one[2]] == one[3]]
    return kept, len(told) - len(kept)


@given(
    st.lists(
        st.tuples(
            st.permutations("abc"),
            st.sampled_from([(1, 2, 3), (1, 1, 2), (2, 1, 3)]),
            st.integers(2, 3),
            st.sampled_from(["u", "v", "w", None]),
            st.sampled_from(["p", "q"]),
            st.sampled_from(["overall", "alignment"]),
        ),
        min_size=1,
        max_size=14,
    ),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_answers_to_pairs_are_those_of_a_slow_loop(given_, same_set, random):
    keys = random.sample(range(100), len(given_))
    rows = [
        # a third image between the others, so that no choice is a pick
        Choice(f"c{key}", prompt, tuple(images[:size]), ranks[:size] if size == 2 else (3, 1, 2), dimension=dimension, annotator=who)
        for key, (images, ranks, size, who, prompt, dimension) in zip(keys, given_, strict=True)
    ]  # fmt: skip
    found = pair_answers(to_table(rows, "choices"), same_set=same_set)
    kept, repeats = slow_pairs(rows, same_set)
    assert found.repeats == repeats
    assert found.values.tolist() == [value for _, value, _, _ in kept]
    people = [found.people[k] if k >= 0 else None for k in found.raters]
    assert people == [who if isinstance(who, str) else None for _, _, who, _ in kept]
    pairs = {(int(item), one[0]) for item, one in zip(found.items, kept, strict=True)}
    assert len(pairs) == len({item for item, _ in pairs}) == len({one for _, one in pairs})
    # items stand in the order of prompts, then dimensions
    assert [one[:2] for _, one in sorted(pairs)] == sorted(one[:2] for _, one in pairs)


def test_the_company_of_a_pair_matters_unless_told():
    table = to_table(
        [chosen("1", "abc", (1, 2, 3), annotator="u"), chosen("2", "ab", (1, 2), annotator="v")],
        "choices",
    )
    assert len(set(pair_answers(table).items.tolist())) == 4
    assert len(set(pair_answers(table, same_set=False).items.tolist())) == 3


def test_the_best_image_is_its_place_among_the_sorted():
    table = to_table(
        [
            chosen("1", "cab", (1, 2, 2), annotator="u"),
            chosen("2", "abc", (2, 2, 1), annotator="v"),
            chosen("3", "bca", (1, 1, 2), annotator="w"),
            chosen("4", "ab", (1, 2), annotator=None),
        ],
        "choices",
    )
    found = best_answers(table)
    assert found.values.tolist() == [2, 2, 0]
    assert found.options.tolist() == [3, 3, 2]
    assert found.raters.tolist() == [0, 1, -1]
    assert (found.left_out, found.kind) == (1, "best")
    assert found.without_ties() is found


def test_ratings_count_once_per_person():
    facts = {"details": json_text({"ratings": [5, 2]})}
    table = to_table(
        [
            chosen("1", "ab", (1, 2), annotator="u", **facts),
            chosen("2", "ab", (1, 2), annotator="u", **facts),
            chosen("3", "ab", (1, 2), **facts),
            chosen("4", "ab", (1, 2), annotator="v"),
        ],
        "choices",
    )
    found = rating_answers(table)
    assert found.values.tolist() == [5, 2, 5, 2]
    assert (found.repeats, found.left_out, found.people) == (2, 1, ("u",))
    assert found.raters.tolist() == [0, 0, -1, -1]


def test_what_holds_no_answers_is_refused():
    plain = to_table([chosen("1", "ab", (1, 2))], "choices")
    with pytest.raises(DataError, match="none of 1 choices holds ratings"):
        rating_answers(plain)
    with pytest.raises(DataError, match="there are no choices on dimension 'quality'"):
        pair_answers(plain, dimension="quality")
    two = [
        chosen(str(k), "ab", (1, 2), annotator="u", details=json_text({"ratings": [k, 1]}))
        for k in (4, 5)
    ]
    with pytest.raises(DataError, match="'u' rated 'a' with 5 on overall, and with 4 before"):
        rating_answers(to_table(two, "choices"))


@given(st.lists(st.permutations("abc"), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_rows_in_any_order_give_the_same_answers(shown, random):
    rows = [
        chosen(f"{k}", "".join(images), (1, 2, 3), annotator=f"u{k % 3}")
        for k, images in enumerate(shown)
    ]

    def told(some):
        found = pair_answers(to_table(some, "choices"))
        return sorted(zip(found.items, found.values, found.raters, strict=True))

    mixed = list(rows)
    random.shuffle(mixed)
    assert told(mixed) == told(rows)


# ------------------------------------------------------------------------------- the page


def test_the_example_of_the_page_runs(root: Path):
    page = root / "docs" / "statistics" / "agreement.md"
    found = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert found.attempted > 5
    assert found.failed == 0


def test_the_figures_of_the_page_are_those_of_avt(root: Path, shared: Path):
    folder = shared / "data" / "avt"
    if not folder.is_dir():
        pytest.skip("needs data/avt of the shared folder")
    avt = dataclasses.replace(AVT, decode=False)
    table = folder / "ratings_study2.csv"
    choices = read_ratings(table, folder / "images", folder / "prompts.csv", avt).choices
    page = (root / "docs" / "statistics" / "agreement.md").read_text()
    for dimension in ("appeal", "quality"):
        given = rating_answers(choices, dimension=dimension)
        columns = (given.items, given.values, given.raters)
        assert (len(given), len(given.people)) == (1731, 27)
        for scale in ("ordinal", "interval"):
            found = krippendorff_alpha(*columns, scale=scale, clusters=given.prompts, two_way=True)
            slow = slow_alpha(given.items.tolist(), given.values.tolist(), scale)
            assert found.value == pytest.approx(slow, abs=1e-9)
            line = f"| alpha, {scale} | {dimension} | {found.value:.3f} | "
            assert f"{line}{found.low:.3f} to {found.high:.3f} |" in page
    assert json.dumps(found.to_dict())
    assert re.search(r"1,731 ratings .* 27 people", page)

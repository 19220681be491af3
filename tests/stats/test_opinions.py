"""Mean opinions are what a plain loop gives, and what a set prints."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import statistics
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from palate.data.importing import collect
from palate.data.records import Choice, json_text
from palate.data.sources.agiqa import agiqa_3k
from palate.data.sources.ratings import AVT, read_ratings
from palate.data.tables import to_rows, to_table
from palate.errors import DataError
from palate.stats.opinions import OPINIONS, mean_opinions


def rated(number: int, who: str | None, facts: dict[str, object], **changes: object) -> Choice:
    base = Choice(f"c{number}", "p", ("a", "b"), (1, 2), annotator=who, details=json_text(facts))
    return dataclasses.replace(base, **changes)


def of(*choices: Choice, level: float = 0.95):
    return mean_opinions(to_table(choices, "choices"), level=level)


def test_mean_deviation_and_interval_of_an_image():
    told = of(
        rated(0, "u", {"ratings": [5, 1]}),
        rated(1, "v", {"ratings": [3, 1]}),
        rated(2, "w", {"ratings": [4, 1]}),
    )
    first, second = told.rows
    assert (first.image, first.dimension, first.mean, first.std, first.count) == (
        ("a", "overall", 4.0, 1.0, 3)
    )
    # t of 2 degrees of freedom at 97.5 % is 4.302653
    assert first.high == pytest.approx(4 + 4.302653 / math.sqrt(3), abs=1e-6)
    assert first.low == pytest.approx(4 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert (second.std, second.low, second.high) == (0.0, 1.0, 1.0)
    assert (told.ratings, told.printed, told.left_out) == (6, 0, 0)


def test_one_rating_has_a_mean_and_no_interval():
    row = of(rated(0, "u", {"ratings": [5, 1]})).rows[0]
    assert (row.mean, row.count, row.std, row.low, row.high) == (5.0, 1, None, None, None)


def test_a_rating_in_several_pairs_counts_once():
    pairs = [
        rated(0, "u", {"ratings": [5, 1]}),
        rated(1, "u", {"ratings": [5, 2]}, images=("a", "c")),
        rated(2, "u", {"ratings": [1, 2]}, images=("b", "c")),
    ]
    assert [(row.image, row.count) for row in of(*pairs).rows] == [("a", 1), ("b", 1), ("c", 1)]


def test_two_ratings_of_one_image_by_one_person_are_refused():
    with pytest.raises(DataError, match="'u' rated 'a' with 4 on overall, and with 5 before"):
        of(rated(0, "u", {"ratings": [5, 1]}), rated(1, "u", {"ratings": [4, 1]}))


def test_unknown_people_are_all_different():
    told = of(rated(0, None, {"ratings": [5, 1]}), rated(1, None, {"ratings": [4, 1]}))
    assert (told.rows[0].mean, told.rows[0].count) == (4.5, 2)


def test_dimensions_are_apart_and_choices_without_ratings_are_counted():
    told = of(
        rated(0, "u", {"ratings": [5, 1]}),
        rated(1, "u", {"ratings": [2, 1]}, dimension="detail"),
        rated(2, "u", {}),
    )
    assert [(row.dimension, row.mean) for row in told.rows if row.image == "a"] == [
        ("overall", 5.0),
        ("detail", 2.0),
    ]
    assert told.left_out == 1


def test_a_printed_mean_stays_as_it_is():
    told = of(rated(0, None, {"means": [3.25, 1.5], "stds": [0.5, None]}))
    first, second = told.rows
    assert (first.mean, first.std, first.count, first.low) == (3.25, 0.5, None, None)
    assert (second.mean, second.std) == (1.5, None)
    assert (told.ratings, told.printed) == (0, 2)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"ratings": [1]}, "expected 2 numbers"),
        ({"ratings": [1, "x"]}, "expected 2 numbers"),
        ({"ratings": [1, True]}, "expected 2 numbers"),
        ({"ratings": "12"}, "expected 2 numbers"),
        ({"means": [1, 2], "stds": [1]}, "expected one for each of 2 images"),
    ],
)
def test_details_that_fit_no_choice_are_named(facts: dict[str, object], told: str):
    with pytest.raises(DataError, match=f"choice 'c7': .*{told}"):
        of(rated(7, "u", facts))


def test_two_printed_means_of_one_image_are_refused():
    with pytest.raises(DataError, match="the mean of 'a' on overall is 2, and was 1 before"):
        of(rated(0, None, {"means": [1, 2]}), rated(1, None, {"means": [2, 2]}))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_that_is_none_is_refused(level: float):
    with pytest.raises(DataError, match="expected between 0 and 1"):
        of(rated(0, "u", {"ratings": [1, 2]}), level=level)


def test_the_table_holds_the_rows_and_no_choices_give_none():
    told = of(rated(0, "u", {"ratings": [5, 1]}), rated(1, "v", {"ratings": [3, 1]}))
    assert told.to_table().schema == OPINIONS
    assert told.to_table().to_pylist() == [dataclasses.asdict(row) for row in told.rows]
    empty = of()
    assert (len(empty.to_table()), empty.ratings) == (0, 0)
    assert json.loads(json.dumps(told.to_dict()))["opinions"] == 2


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=2), min_size=2, max_size=9),
    st.sampled_from([0.5, 0.9, 0.95]),
)
def test_any_ratings_by_a_plain_loop(ratings: list[list[int]], level: float):
    rows = of(
        *(rated(k, f"u{k}", {"ratings": own}) for k, own in enumerate(ratings)), level=level
    ).rows
    for place, row in enumerate(rows):
        own = [pair[place] for pair in ratings]
        half = student.ppf((1 + level) / 2, len(own) - 1) * statistics.stdev(own) / len(own) ** 0.5
        assert row.mean == pytest.approx(statistics.mean(own))
        assert row.std == pytest.approx(statistics.stdev(own))
        assert row.low == pytest.approx(statistics.mean(own) - half)
        assert row.high == pytest.approx(statistics.mean(own) + half)


@pytest.mark.parametrize("form", ["groups", "pairs"])
def test_avt_by_a_plain_loop(shared: Path, form: str):
    folder = shared / "data" / "avt"
    if not folder.is_dir():
        pytest.skip("needs data/avt of the shared folder")
    settings = dataclasses.replace(AVT, form=form, decode=False)
    table = folder / "ratings_study2.csv"
    choices = read_ratings(table, folder / "images", folder / "prompts.csv", settings).choices
    told = mean_opinions(choices)
    last: dict[tuple[str, str, str], float] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            image = row["stimuli_file"].removeprefix("./stimuli/")
            dimension = AVT.dimension_names[row["rating_type"]]
            last[row["user_ID"], image, dimension] = float(row["rating"])
    # the image without a file is left out, and then who rated one image of a prompt compared nothing
    last = {key: value for key, value in last.items() if key[1] != "midjourney/p25.png"}
    seen = Counter((who, Path(image).stem, dimension) for who, image, dimension in last)
    own: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (who, image, dimension), value in last.items():
        if seen[who, Path(image).stem, dimension] > 1:
            own[image, dimension].append(value)
    assert len(told.rows) == 2 * 69
    for row in told.rows:
        values = own[row.image, row.dimension]
        half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
        assert row.count == len(values)
        assert row.mean == pytest.approx(statistics.mean(values), abs=1e-12)
        assert row.std == pytest.approx(statistics.stdev(values), abs=1e-12)
        assert row.low == pytest.approx(statistics.mean(values) - half, abs=1e-9)
        assert row.high == pytest.approx(statistics.mean(values) + half, abs=1e-9)


def test_agiqa_gives_the_means_that_it_prints(shared: Path):
    path = shared / "data" / "agiqa_3k" / "data.csv"
    if not path.is_file():
        pytest.skip("needs data/agiqa_3k/data.csv of the shared folder")
    choices = collect(agiqa_3k(path)).choices
    told = {(row.image, row.dimension): row for row in mean_opinions(choices).rows}
    assert len(told) == 2 * 2982
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for key, dimension in {"quality": "quality", "align": "alignment"}.items():
                found = told[row["name"], dimension]
                assert found.mean == float(row[f"mos_{key}"])
                assert found.std == float(row[f"std_{key}"])
    assert sum(1 for _ in to_rows(choices, Choice)) == 600

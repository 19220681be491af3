"""`palate evaluate`: what it prints, and what it refuses in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.cli.main import main
from palate.data.records import Choice, Image, Score
from palate.data.tables import save_dataset, to_table, write_table


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> Path:
    """Twelve prompts, two images each; three people who are all right; a dimension on which all tie."""
    images, choices, scores = [], [], []
    for number in range(12):
        keys = (f"{number}a", f"{number}b")
        images += [Image(key, f"p{number}") for key in keys]
        scores += [
            Score(key, f"p{number}", "s", "overall", float(value), "hps", "f" * 64)
            for key, value in zip(keys, (1 + number % 3, 0), strict=True)
        ]
        for person in range(3):
            who = f"x{person}"
            choices.append(Choice(f"{number}{who}", f"p{number}", keys, (1, 2), annotator=who))
        tied = f"{number}t"
        choices.append(Choice(tied, f"p{number}", keys, (1, 1), annotator="x0", dimension="detail"))
    save_dataset(tmp_path / "data", to_table(images, "images"), to_table(choices, "choices"))
    write_table(to_table(scores, "scores"), tmp_path / "s.parquet")

    write_table(to_table(scores, "scores"), tmp_path / "same.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_says_its_clusters_its_cautions_and_what_was_not_decided(data: Path, capsys) -> None:
    words = ["evaluate", "data", "--scores", "s.parquet", "--by", "dimension"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "95% intervals over prompts and people (12 prompts, 3 people)" in told
    assert "detail: not decided, none of 12 choices has a decision" in told
    assert "caution: all: the intervals rest on 3 people only" in told
    assert "caution: all: top-1 is right in all 36 answers" in told
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["overall"]["top1"]["low"] < 0.9
    assert facts["undecided"][0]["choices"] == 12


def test_a_comparison_of_few_prompts_is_cautioned(data: Path, capsys) -> None:
    assert main(["evaluate", "--compare", "s.parquet", "same.parquet"]) == 0
    told = capsys.readouterr().out
    assert "not separable" in told
    assert "caution: 12 prompts only: below 20 prompts the interval is rough" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--compare s.parquet same.parquet --ties wrong", "--ties does not go with --compare"),
        ("--compare s.parquet same.parquet --by source", "--by does not go with --compare"),
        ("--compare s.parquet same.parquet --board", "--board does not go with --compare"),
        ("--compare s.parquet same.parquet --scorer s", "--scorer does not go with --compare"),
        (
            "data --scores s.parquet --pair order",
            "--pair does not go with one scorer on one data set",
        ),
        ("data --scores s.parquet --dimension overall", "--dimension does not go with one scorer"),
        ("data --scores s.parquet --board --average macro", "--average does not go with a board"),
        ("data --scores s.parquet --board --scorer s", "--scorer does not go with a board"),
        ("data --scores s.parquet --benchmark hps-v2-bench --by source", "--by does not go with"),
        ("data --scores s.parquet --by nonsense", "'by' should be 'dimension', 'source' or 'size'"),
        ("data --scores s.parquet --resamples 5", "5 resamples, expected 100 to 1,000,000"),
        ("data --scores s.parquet --seed -1", "a seed of -1, expected 0 or more"),
        ("data --scores s.parquet --scorer x", "s.parquet: no scores by 'x'"),
        ("data --scores nan.parquet", "nan.parquet, row 3: the value is not a finite number"),
        ("--compare nan.parquet s.parquet", "nan.parquet, row 3: the value is not a finite number"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(data: Path, capsys, words, told) -> None:
    table = pq.read_table(data / "s.parquet")
    values = table.column("value").to_pylist()
    values[3] = math.nan
    place = table.schema.get_field_index("value")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(values)), data / "nan.parquet")  # fmt: skip
    assert main(["evaluate", *words.split()]) == 2
    found = capsys.readouterr()
    assert told in found.err
    assert found.err.count("\n") == 1

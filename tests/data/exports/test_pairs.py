"""Pairs: every meeting of two images once, the better one chosen, ties kept or left out and counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from palate_strategies import choices as any_choice

from palate.data.exports.pairs import PAIRS, PairsSettings, export_pairs
from palate.data.records import Choice
from palate.data.tables import SCHEMAS, Dataset, load_dataset, save_dataset, to_table
from palate.errors import DataError


def rows(dataset: Dataset, out: Path, **settings: Any) -> list[dict[str, Any]]:
    export_pairs(dataset, out, PairsSettings(**settings))
    return [json.loads(line) for line in (out / "pairs.jsonl").read_text("utf-8").split("\n")[:-1]]


def test_a_pick_from_four_is_three_pairs(dataset, tmp_path: Path) -> None:
    found = rows(dataset, tmp_path / "out")
    assert [(row["chosen"], row["rejected"]) for row in found] == [
        ("a", "b"),
        ("a", "b"),
        ("e", "c"),
        ("e", "d"),
        ("e", "f"),
    ]
    assert [(row["chosen_place"], row["rejected_place"]) for row in found[:3]] == [
        (0, 1),
        (1, 0),
        (2, 0),
    ]
    assert {row["label"] for row in found} == {1.0}
    assert [row["annotator"] for row in found] == ["ann", "ben", None, None, None]
    assert found[0]["prompt"] == "a fox"
    assert [row["choice"] for row in found] == ["one", "two", "three", "three", "three"]
    for row in found:
        for side in ("chosen", "rejected"):
            file = tmp_path / "out" / row[f"{side}_file"]
            stored = dataset.images["path"]["abcdef".index(row[side])].as_py()
            assert file.read_bytes() == (dataset.folder / stored).read_bytes()
            assert file.suffix == Path(stored).suffix


def test_ties_are_kept_on_demand(dataset, tmp_path: Path) -> None:
    result = export_pairs(dataset, tmp_path / "out", PairsSettings(ties=True))
    assert result == {"pairs": 8, "choices": 3, "images": 6, "ties": 3}
    assert export_pairs(dataset, tmp_path / "less")["ties_left_out"] == 3
    found = rows(dataset, tmp_path / "again", ties=True)
    tied = [(row["chosen"], row["rejected"]) for row in found if row["label"] == 0.5]
    assert tied == [("c", "d"), ("c", "f"), ("d", "f")]


def test_nothing_but_ties_is_refused(make, tmp_path: Path) -> None:
    data = make([Choice("x", "p", ("a", "b"), (1, 1))])
    with pytest.raises(DataError, match="all 1 pairs are ties; --ties keeps them"):
        export_pairs(data, tmp_path / "out")


def test_the_formats_hold_the_same(dataset, tmp_path: Path) -> None:
    wanted = rows(dataset, tmp_path / "jsonl", ties=True)
    for name in ("csv", "parquet"):
        export_pairs(dataset, tmp_path / name, PairsSettings(format=name, ties=True))
    table = pq.read_table(tmp_path / "parquet" / "pairs.parquet")
    assert table.schema.equals(PAIRS)
    assert table.to_pylist() == wanted
    options = pa_csv.ConvertOptions(
        column_types=PAIRS, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    path = tmp_path / "csv" / "pairs.csv"
    assert pa_csv.read_csv(path, convert_options=options).to_pylist() == wanted
    with path.open(encoding="utf-8", newline="") as file:
        assert [row["prompt"] for row in csv.DictReader(file)] == [row["prompt"] for row in wanted]


def test_people_are_kept_hashed_or_dropped(dataset, tmp_path: Path) -> None:
    def people(**settings: Any) -> list[str | None]:
        out = tmp_path / f"{sorted(settings.items())}"
        return [row["annotator"] for row in rows(dataset, out, images="none", **settings)]

    assert people(annotators="drop") == [None] * 5
    hashed = people(annotators="hash")
    assert [len(text or "") for text in hashed] == [64, 64, 0, 0, 0]
    assert hashed == people(annotators="hash")
    assert people(annotators="hash", annotator_key="k")[0] not in {hashed[0], "ann"}


def test_without_images_there_are_no_files(dataset, tmp_path: Path) -> None:
    found = rows(dataset, tmp_path / "out", images="none")
    assert {row["chosen_file"] for row in found} == {None}
    assert not (tmp_path / "out" / "images").exists()


@given(
    answers=st.lists(
        any_choice(max_images=4, rank=3), min_size=1, max_size=4, unique_by=lambda c: c.choice
    )
)
def test_all_pairs_and_ties_give_the_choices_back(answers, tmp_path_factory) -> None:
    """From the places and labels alone: which image was shown where, and who beats whom."""
    folder = tmp_path_factory.mktemp("law")
    save_dataset(folder / "data", SCHEMAS["images"].empty_table(), to_table(answers, "choices"))
    found = rows(load_dataset(folder / "data"), folder / "out", ties=True, images="none")
    for answer in answers:
        own = [row for row in found if row["choice"] == answer.choice]
        shown: dict[int, str] = {}
        wins = dict.fromkeys(answer.images, 0)
        for row in own:
            shown |= {row["chosen_place"]: row["chosen"], row["rejected_place"]: row["rejected"]}
            wins[row["chosen"]] += row["label"] == 1
            assert row["annotator"] == answer.annotator
            assert (row["prompt"], row["dimension"], row["source"]) == (
                answer.prompt,
                answer.dimension,
                answer.source,
            )
        assert tuple(shown[place] for place in sorted(shown)) == answer.images
        ranks = dict(zip(answer.images, answer.ranks, strict=True))
        for image, count in wins.items():
            assert count == sum(ranks[image] < rank for rank in answer.ranks)

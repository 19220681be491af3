"""HPD v2: pairs and rankings come back as they were; own choices are gathered into records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.exports.hpd_v2 import HpdV2Settings, agreed_rank, export_hpd_v2
from palate.data.importing import collect, write_import
from palate.data.records import Choice
from palate.data.sources.hpd_v2 import hpd_v2
from palate.data.tables import Dataset, load_dataset, save_dataset, to_rows
from palate.errors import DataError

BARE = HpdV2Settings(images="none")


@st.composite
def pair_records(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.sampled_from([2, 2, 2, 3]))
    best = draw(st.integers(0, count - 1))
    return {
        "human_preference": [int(place == best) for place in range(count)],
        "prompt": draw(st.text(max_size=5)),
        "file_path": draw(names(count)),
    }


def names(count: int) -> st.SearchStrategy[list[str]]:
    name = st.integers(0, 9).map(lambda number: f"{number:08}.jpg") | st.sampled_from(["x/y.png"])
    return st.lists(name, min_size=count, max_size=count, unique=True)


@st.composite
def ranking_records(draw: st.DrawFn) -> dict[str, Any]:
    """Agreed ranks and everyone's count from 0 or from 1; equal ranks and gaps may be there."""
    count = draw(st.integers(2, 4))
    ranks = st.integers(0, 1).flatmap(
        lambda start: st.lists(st.integers(start, start + 4), min_size=count, max_size=count)
    )
    agreed = draw(ranks)
    record = {
        "prompt": draw(st.sampled_from(["p", "q"])),
        "image_path": draw(names(count)),
        "rank": agreed,
    }
    people = draw(st.lists(ranks, max_size=3))
    if not people:
        return record | draw(
            st.sampled_from([{}, {"raw_annotations": []}, {"raw_annotations": None}])
        )
    record["raw_annotations"] = [
        {"rank": own, "user_hash": draw(st.sampled_from(["ann", "ben", ""]))} for own in people
    ]
    return record


def imported(folder: Path, name: str, records: list[dict[str, Any]]) -> Dataset:
    (folder / name).write_text(json.dumps(records), "utf-8")
    write_import(hpd_v2(folder / name), folder / Path(name).stem)
    return load_dataset(folder / Path(name).stem)


@given(
    train=st.lists(pair_records() | ranking_records(), min_size=1, max_size=5),
    test=st.lists(pair_records() | ranking_records(), min_size=1, max_size=5),
)
def test_both_parts_come_back_as_they_were(train, test, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("trip")
    given = {"train.json": train, "new_test.json": test}
    parts = {name: imported(folder, name, records) for name, records in given.items()}
    save_dataset(
        folder / "both",
        pa.concat_tables([part.images for part in parts.values()]),
        pa.concat_tables([part.choices for part in parts.values()]),
    )
    export_hpd_v2(load_dataset(folder / "both"), folder / "out", BARE)
    for name, part in parts.items():
        assert json.loads((folder / "out" / name).read_text("utf-8")) == given[name]
        again = collect(hpd_v2(folder / "out" / name))
        assert again.choices.equals(part.choices)
        assert again.images.equals(part.images)


def test_a_part_is_named_by_a_word_of_its_file(tmp_path: Path, read) -> None:
    records = [{"human_preference": [1, 0], "prompt": "p", "file_path": ["a.jpg", "b.jpg"]}]
    data = imported(tmp_path, "train_latest.json", records)
    assert data.choices.column("choice").to_pylist() == ["hpd-v2/train/0"]
    export_hpd_v2(data, tmp_path / "out", BARE)
    assert read(tmp_path / "out" / "train_latest.json") == records


def test_files_come_back_too(tmp_path: Path, make) -> None:
    made = make(
        [Choice("x", "p", ("a", "b"), (2, 1)), Choice("y", "q", ("b", "c", "d"), (1, 3, 2))]
    )
    result = export_hpd_v2(made, tmp_path / "out")
    assert result == {"records": 2, "pairs": 1, "rankings": 1, "images": 5}
    assert (tmp_path / "out" / "train" / "00000000.png").is_file()
    for name, count in (("train.json", 2), ("test.json", 3)):
        write_import(hpd_v2(tmp_path / "out" / name), tmp_path / name[:-5])
        data = load_dataset(tmp_path / name[:-5])
        assert data.images.column("path").null_count == 0
        export_hpd_v2(data, tmp_path / "again" / name)
        again = collect(hpd_v2(tmp_path / "again" / name / name))
        assert again.choices.equals(data.choices)
        assert again.images.drop_columns("path").equals(data.images.drop_columns("path"))
        assert len(again.images) == count


def test_rankings_of_the_same_images_are_one_record(make, read, tmp_path: Path) -> None:
    data = make(
        [
            Choice("x", "p", ("a", "b", "c"), (1, 2, 3), annotator="ann"),
            Choice("y", "p", ("a", "b"), (1, 1), annotator="ann"),
            Choice("z", "p", ("c", "a", "b"), (5, 1, 2), annotator="ben"),
            Choice("w", "q", ("a", "b", "c"), (2, 1, 3)),
        ]
    )
    result = export_hpd_v2(data, tmp_path / "out")
    assert result == {"records": 3, "pairs": 0, "rankings": 4, "images": 3, "reordered": 1}
    assert not (tmp_path / "out" / "train.json").exists()
    first, tie, other = read(tmp_path / "out" / "test.json")
    assert first["image_path"] == ["00000000.png", "00000001.jpg", "00000002.webp"]
    assert first["rank"] == [1, 2, 3]
    assert [person["rank"] for person in first["raw_annotations"]] == [[1, 2, 3], [1, 2, 5]]
    hashes = [person["user_hash"] for person in first["raw_annotations"]]
    assert tie["raw_annotations"][0]["user_hash"] == hashes[0] != hashes[1]
    assert all(len(text) == 64 for text in hashes)
    assert other["prompt"] == "q"
    again = collect(hpd_v2(tmp_path / "out" / "test.json"))
    ranks = [row.ranks for row in to_rows(again.choices, Choice)]
    assert ranks == [(1, 2, 3), (1, 2, 5), (1, 1), (2, 1, 3)]


def test_pairs_refuse_what_has_no_winner_of_two(make, read, tmp_path: Path) -> None:
    data = make(
        [
            Choice("x", "p", ("a", "b"), (1, 2)),
            Choice("tie", "p", ("a", "b"), (1, 1)),
            Choice("three", "p", ("a", "b", "c"), (1, 2, 2)),
        ]
    )
    message = r"2 of 3 choices do not fit into pairs of HPD v2, first choice 'tie': its ranks \(1, 1\) tie"
    with pytest.raises(DataError, match=message):
        export_hpd_v2(data, tmp_path / "out", HpdV2Settings(form="pairs"))
    settings = HpdV2Settings(form="pairs", leave_out=True)
    result = export_hpd_v2(data, tmp_path / "out", settings)
    assert (result["pairs"], result["rankings"], result["left_out"]["count"]) == (1, 0, 2)
    [row] = read(tmp_path / "out" / "train.json")
    assert row["human_preference"] == [1, 0]
    only_bad = make([Choice("three", "p", ("a", "b", "c"), (1, 2, 2))])
    with pytest.raises(DataError, match="it is between 3 images; nothing is left to export"):
        export_hpd_v2(only_bad, tmp_path / "none", settings)


def test_rankings_take_pairs_in(make, read, tmp_path: Path) -> None:
    data = make(
        [Choice(f"hpd-v2/train/{n}", "p", ("train/a.jpg", "train/b.jpg"), (2, 1)) for n in (0, 1)]
    )
    export_hpd_v2(data, tmp_path / "out", HpdV2Settings(form="rankings"))
    [row] = read(tmp_path / "out" / "test.json")
    assert row["rank"] == [2, 1]
    assert len(row["raw_annotations"]) == 2
    assert (tmp_path / "out" / "test" / "00000000.png").is_file()


def test_the_agreed_rank_is_the_order_of_mean_places() -> None:
    assert agreed_rank([(1, 2, 3)]) == [1, 2, 3]
    assert agreed_rank([(3, 7, 9)]) == [1, 2, 3]
    assert agreed_rank([(1, 2, 2), (1, 2, 2)]) == [1, 2, 2]
    assert agreed_rank([(1, 2, 3), (1, 3, 2), (2, 1, 3)]) == [1, 2, 3]


@given(st.lists(st.permutations([1, 2, 3, 4]), min_size=1, max_size=4), st.permutations(range(4)))
def test_the_agreed_rank_follows_the_images(people, order) -> None:
    agreed = agreed_rank(people)
    turned = agreed_rank([[own[place] for place in order] for own in people])
    assert turned == [agreed[place] for place in order]
    assert agreed_rank(people[::-1]) == agreed

"""HPD v1: what was imported comes out as it was, and only pick-one answers fit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.exports.hpd_v1 import HpdSettings, export_hpd
from palate.data.importing import collect, write_import
from palate.data.records import Choice
from palate.data.sources.hpd_v1 import hpd_v1
from palate.data.tables import load_dataset, to_rows
from palate.errors import DataError

BARE = HpdSettings(images="none")


def pick(name: str, best: int, count: int = 3, **columns: Any) -> Choice:
    images = tuple(f"{name}-{place}" for place in range(count))
    ranks = tuple(1 if place == best else 2 for place in range(count))
    return Choice(name, f"prompt of {name}", images, ranks, **columns)


def round_trip(records: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Import records, export them and import that; the tables are equal."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "preference_train.json"
    path.write_text(json.dumps(records), "utf-8")
    write_import(hpd_v1(path), folder / "data", overwrite=True)
    dataset = load_dataset(folder / "data")
    export_hpd(dataset, folder / "out", BARE, overwrite=True)
    again = collect(hpd_v1(folder / "out" / "preference_train.json"))
    assert again.choices.equals(dataset.choices)
    assert again.images.equals(dataset.images)
    found: list[dict[str, Any]] = json.loads((folder / "out" / path.name).read_text("utf-8"))
    return found


@st.composite
def hpd_records(draw: st.DrawFn) -> list[dict[str, Any]]:
    numbers = draw(st.lists(st.integers(-5, 10**6), min_size=1, max_size=6, unique=True))
    records = []
    for number in numbers:
        count = draw(st.integers(2, 4))
        odd = draw(st.booleans())
        names = [
            f"{number}_{k}.jpg" if odd else f"preference_images/{number}_{k}.jpg"
            for k in range(count)
        ]
        records.append(
            {
                "human_preference": draw(st.integers(0, count - 1)),
                "prompt": draw(st.text(max_size=10)),
                "id": number,
                "file_path": names,
                "user_hash": draw(st.text(max_size=5)),
                "contain_name": draw(st.booleans()),
            }
        )
    return records


@given(records=hpd_records())
def test_what_was_imported_comes_out_as_it_was(records, tmp_path_factory) -> None:
    assert round_trip(records, tmp_path_factory.mktemp("trip")) == records


def test_the_real_records_come_out_as_they_were(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "hpd_v1" / "preference_test_500.json"
    write_import(hpd_v1(path), tmp_path / "data")
    dataset = load_dataset(tmp_path / "data")
    result = export_hpd(dataset, tmp_path / "out", BARE)
    written = tmp_path / "out" / path.name
    assert json.loads(written.read_text()) == json.loads(path.read_text())
    assert result == {"records": 500, "images": 0}
    again = collect(hpd_v1(written))
    assert again.choices.equals(dataset.choices)
    assert again.images.equals(dataset.images)


def test_own_picks_get_ids_files_and_hashes(make, read, tmp_path: Path) -> None:
    known = Choice(
        "hpd-v1/1", "p", ("u.jpg", "v.jpg"), (2, 1), details='{"contain_name":true,"user_hash":"h"}'
    )
    data = make(
        [pick("x", 2, annotator="ann"), known, pick("y", 0, annotator="ann"), pick("z", 1, 2)]
    )
    result = export_hpd(data, tmp_path / "out")
    assert result == {"records": 4, "images": 10}
    first, second, third, fourth = read(tmp_path / "out" / "preference.json")
    assert [row["id"] for row in (first, second, third, fourth)] == [0, 1, 2, 3]
    assert first["file_path"] == [f"preference_images/0_{k}.jpg" for k in range(3)]
    assert (first["human_preference"], first["prompt"]) == (2, "prompt of x")
    assert second == {
        "human_preference": 1,
        "prompt": "p",
        "id": 1,
        "file_path": ["u.jpg", "v.jpg"],
        "user_hash": "h",
        "contain_name": True,
    }
    assert len(first["user_hash"]) == 64
    assert first["user_hash"] == third["user_hash"] != fourth["user_hash"]
    for row, answer in zip(
        (first, second, third, fourth), to_rows(data.choices, Choice), strict=True
    ):
        for name, key in zip(row["file_path"], answer.images, strict=True):
            stored = data.images.filter(data.images["image"].to_numpy() == key)["path"][0].as_py()
            assert (tmp_path / "out" / name).read_bytes() == (data.folder / stored).read_bytes()
    again = collect(hpd_v1(tmp_path / "out" / "preference.json"))
    ranks = data.choices.column("ranks").to_pylist()
    assert again.choices.column("ranks").to_pylist() == ranks
    assert again.report["missing_images"] == 0


def test_files_are_linked_or_copied(make, tmp_path: Path) -> None:
    data = make([pick("x", 0)])
    export_hpd(data, tmp_path / "linked")
    export_hpd(data, tmp_path / "copied", HpdSettings(images="copy"))
    original = (data.folder / "images" / "0.png").stat().st_ino
    name = "preference_images/0_0.jpg"
    assert (tmp_path / "linked" / name).stat().st_ino == original
    assert (tmp_path / "copied" / name).stat().st_ino != original


def test_where_no_link_can_be_made_files_are_copied(make, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    data = make([pick("x", 0)])
    export_hpd(data, tmp_path / "out")
    written = (tmp_path / "out" / "preference_images" / "0_0.jpg").read_bytes()
    assert written == (data.folder / "images" / "0.png").read_bytes()


def test_a_key_makes_other_names_of_people(make, read, tmp_path: Path) -> None:
    data = make([pick("x", 0, annotator="ann")])
    keys = {"none": None, "again": None, "k": "k", "other": "o"}
    hashes = {}
    for name, key in keys.items():
        export_hpd(data, tmp_path / name, HpdSettings(annotator_key=key))
        hashes[name] = read(tmp_path / name / "preference.json")[0]["user_hash"]
        assert f'"{key}"' not in (tmp_path / name / "run.json").read_text()
    assert hashes["none"] == hashes["again"]
    assert len(set(hashes.values())) == 3


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ((1, 1, 2), r"its ranks \(1, 1, 2\) tie at the best"),
        ((1, 1, 1), r"its ranks \(1, 1, 1\) tie at the best"),
        ((1, 2, 3), r"its ranks \(1, 2, 3\) tell more than which image is the best"),
    ],
)
def test_other_answers_are_refused_or_left_out(ranks, message, make, tmp_path: Path) -> None:
    bad = Choice("bad", "p", ("u", "v", "w"), ranks)
    data = make([pick("x", 0), bad])
    with pytest.raises(
        DataError, match=rf"1 of 2 choices do not fit into HPD v1, first choice 'bad': {message}"
    ):
        export_hpd(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = export_hpd(data, tmp_path / "out", HpdSettings(leave_out=True))
    assert result["records"] == 1
    assert result["left_out"]["count"] == 1
    assert result["left_out"]["first"].startswith("choice 'bad': ")


def test_an_image_of_two_choices_gets_two_files(make, read, tmp_path: Path) -> None:
    shown = ("u.jpg", "v.jpg")
    data = make([Choice(f"hpd-v1/{n}", "p", shown, (1, 2)) for n in (4, 5)])
    export_hpd(data, tmp_path / "out")
    names = [row["file_path"] for row in read(tmp_path / "out" / "preference.json")]
    assert names == [["u.jpg", "v.jpg"], ["preference_images/5_0.jpg", "preference_images/5_1.jpg"]]
    assert collect(hpd_v1(tmp_path / "out" / "preference.json")).report["missing_images"] == 0


def test_names_that_leave_the_folder_are_not_written(make, read, tmp_path: Path) -> None:
    data = make([Choice("hpd-v1/4", "p", ("../u.jpg", "/v.jpg"), (1, 2))])
    export_hpd(data, tmp_path / "out")
    [row] = read(tmp_path / "out" / "preference.json")
    assert row["file_path"] == ["preference_images/4_0.jpg", "preference_images/4_1.jpg"]


def test_an_image_may_not_take_a_name_of_the_export(make, tmp_path: Path) -> None:
    data = make([Choice("hpd-v1/4", "p", ("run.json", "v.jpg"), (1, 2))])
    with pytest.raises(DataError, match=r"an image would be called 'run\.json'"):
        export_hpd(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""HPD v2: pairs and rankings, one choice per person, either name of the paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from palate.data.importing import collect
from palate.data.records import Choice
from palate.data.records import Image as ImageRow
from palate.data.sources.common import SourceSettings
from palate.data.sources.hpd_v2 import hpd_v2
from palate.data.tables import to_rows
from palate.errors import DataError


def pair(number: int, **changes: object) -> dict[str, object]:
    names = [f"{2 * number:08}.jpg", f"{2 * number + 1:08}.jpg"]
    return {"human_preference": [0, 1], "prompt": f"p{number}", "file_path": names} | changes


def ranking(number: int, **changes: object) -> dict[str, object]:
    names = [f"{3 * number + k:08}.jpg" for k in range(3)]
    people = [
        {"rank": [1, 2, 3], "user_hash": "ann"},
        {"rank": [2, 1, 3], "user_hash": "ben"},
    ]
    base = {
        "prompt": f"p{number}",
        "image_path": names,
        "rank": [1, 2, 3],
        "raw_annotations": people,
    }
    return base | changes


def write(folder: Path, name: str, records: object) -> Path:
    path = folder / name
    path.write_text(json.dumps(records))
    return path


def choices(path: Path, **settings: Any) -> list[Choice]:
    found = collect(hpd_v2(path, settings=SourceSettings(**settings)))
    return list(to_rows(found.choices, Choice))


def test_a_pair_is_a_choice_by_an_unknown_person(tmp_path: Path) -> None:
    [row] = choices(write(tmp_path, "train.json", [pair(3)]))
    assert row.images == ("train/00000006.jpg", "train/00000007.jpg")
    assert (row.ranks, row.annotator, row.choice) == ((2, 1), None, "hpd-v2/train/0")


@pytest.mark.parametrize("key", ["file_path", "image_path"])
def test_either_name_of_the_paths_is_read(tmp_path: Path, key: str) -> None:
    record = pair(1)
    record[key] = record.pop("file_path")
    assert choices(write(tmp_path, "train.json", [record]))[0].ranks == (2, 1)


def test_every_annotator_of_a_ranking_is_one_choice(tmp_path: Path) -> None:
    rows = choices(write(tmp_path, "test.json", [ranking(0)]))
    assert [(row.annotator, row.ranks) for row in rows] == [("ann", (1, 2, 3)), ("ben", (2, 1, 3))]
    assert json.loads(rows[0].details or "") == {"agreed": False, "rank": [1, 2, 3]}


def test_without_raw_annotations_the_agreed_ranking_is_by_nobody(tmp_path: Path) -> None:
    record = ranking(0)
    del record["raw_annotations"]
    [row] = choices(write(tmp_path, "test.json", [record]))
    assert row.annotator is None
    assert json.loads(row.details or "")["agreed"] is True


def test_ranks_from_zero_become_ranks_from_one(tmp_path: Path) -> None:
    people = [{"rank": [0, 1, 2], "user_hash": "ann"}, {"rank": [1, 2, 1], "user_hash": "ben"}]
    record = ranking(0, rank=[0, 1, 2], raw_annotations=people)
    rows = choices(write(tmp_path, "test.json", [record]))
    assert [row.ranks for row in rows] == [(1, 2, 3), (2, 3, 2)]


@pytest.mark.parametrize(
    ("name", "part"),
    [("train_latest", "train"), ("contest", "train"), ("test2", "test"), ("new-test_all", "test")],
)
def test_the_part_is_told_by_a_word_of_the_name(tmp_path: Path, name: str, part: str) -> None:
    [row] = choices(write(tmp_path, f"{name}.json", [pair(0)]))
    assert row.choice == f"hpd-v2/{part}/0"


def test_what_an_export_needs_to_give_the_record_back_stays(tmp_path: Path) -> None:
    people = [{"rank": [0, 1, 2], "user_hash": "ann"}]
    records = [
        ranking(0, raw_annotations=people),
        ranking(1, raw_annotations=[]),
        ranking(2, raw_annotations=None),
    ]
    told = [json.loads(row.details or "") for row in choices(write(tmp_path, "test.json", records))]
    agreed = {"agreed": True, "rank": [1, 2, 3]}
    assert told == [
        {"agreed": False, "rank": [1, 2, 3], "from_zero": True},
        agreed | {"raw_annotations": []},
        agreed | {"raw_annotations": None},
    ]


def test_an_image_of_several_pairs_comes_once(tmp_path: Path) -> None:
    shared = pair(1, file_path=["00000002.jpg", "00000009.jpg"])
    found = collect(hpd_v2(write(tmp_path, "train.json", [pair(1), shared])))
    assert len(found.images) == 3
    assert len(found.choices) == 2


def test_a_known_corrupted_image_keeps_its_choice_and_loses_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "00000001.jpg")
    (folder / "00006811.jpg").write_bytes(b"broken")
    record = pair(0, file_path=["00006811.jpg", "00000001.jpg"])
    found = collect(hpd_v2(write(tmp_path, "train.json", [record])))
    rows = {row.image: row for row in to_rows(found.images, ImageRow)}
    assert rows["train/00006811.jpg"].path is None
    assert rows["train/00000001.jpg"].width == 4
    assert found.report["known_corrupted"] == 1
    assert found.report["missing_images"] == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"human_preference": [1]}, "1 marks for 2 images"),
        ({"human_preference": [1, 1]}, "expected one 1 among zeros"),
        ({"human_preference": [2, 0]}, "expected one 1 among zeros"),
        ({"file_path": ["../a.jpg", "b.jpg"]}, "does not stay inside"),
        ({"file_path": ["C:\\a.jpg", "b.jpg"]}, "does not stay inside"),
        ({"file_path": ["a.jpg", "a.jpg"]}, "is shown twice"),
        ({"file_path": ["a.jpg", 3]}, "no text"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"image_path": []}, "both"),
    ],
)
def test_a_bad_pair_is_named(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    path = write(tmp_path, "train.json", [pair(0), pair(1, **changes)])
    with pytest.raises(DataError, match=f"train.json: record 1: .*{told}"):
        choices(path)
    assert len(choices(path, allow_errors=True)) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank": [1, 2]}, "rank has 2 places for 3 images"),
        ({"raw_annotations": [{"rank": [1], "user_hash": "a"}]}, "annotator 0 has 1 places"),
        ({"raw_annotations": [{"rank": [1, 2, "x"], "user_hash": "a"}]}, "no whole number"),
        ({"raw_annotations": [{"rank": [1, 2, 3]}]}, "has no 'user_hash'"),
    ],
)
def test_a_bad_ranking_is_named(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(DataError, match=f"record 0: .*{told}"):
        choices(write(tmp_path, "test.json", [ranking(0, **changes)]))


def test_missing_images_are_counted_and_the_first_ten_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "train.json", [pair(k) for k in range(8)])
    with pytest.raises(
        DataError, match=r"16 of 16 images are not there: 'train/00000000.jpg', .*, …"
    ):
        choices(path, missing_images="fail")
    assert len(choices(path)) == 8

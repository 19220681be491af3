"""HPD v1: real records come in whole, and a bad one is named by number and id."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.data.images import hash_image
from palate.data.importing import collect
from palate.data.position import position_bias
from palate.data.records import Choice, Image
from palate.data.sources.common import Imported, SourceSettings
from palate.data.sources.hpd_v1 import hpd_v1
from palate.data.tables import to_rows
from palate.errors import DataError


def _read(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Imported:
    return collect(hpd_v1(path, images, settings))


def record(number: int, **changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "human_preference": 2,
        "prompt": f"a red fox, {number} k",
        "id": number,
        "file_path": [f"preference_images/{number}_{k}.jpg" for k in range(4)],
        "user_hash": f"{number:064x}",
        "contain_name": False,
    }
    return base | changes


def write(folder: Path, records: object) -> Path:
    path = folder / "preference_test.json"
    path.write_text(records if isinstance(records, str) else json.dumps(records))
    return path


def test_records_become_images_and_choices(tmp_path: Path) -> None:
    file = tmp_path / "preference_images" / "7_0.jpg"
    file.parent.mkdir()
    PIL.Image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(file)
    found = _read(write(tmp_path, [record(7), record(9, human_preference=0)]))
    choices = list(to_rows(found.choices, Choice))
    assert [row.choice for row in choices] == ["hpd-v1/7", "hpd-v1/9"]
    assert choices[0].ranks == (2, 2, 1, 2)
    assert choices[0].images == tuple(f"preference_images/7_{k}.jpg" for k in range(4))
    assert choices[0].annotator is None
    assert json.loads(choices[0].details or "")["user_hash"] == f"{7:064x}"
    images = list(to_rows(found.images, Image))
    assert images[0].path == file.as_posix()
    assert (images[0].sha256, images[0].width, images[0].height) == (hash_image(file), 6, 8)
    assert images[1].path is None
    assert images[0].prompt == "a red fox, 7 k"
    assert found.report["missing_images"] == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"human_preference": 4}, r"human_preference is 4, but there are 4 images \(0 to 3\)"),
        ({"human_preference": -1}, "human_preference is -1, but there are 4 images"),
        ({"human_preference": True}, "human_preference is 'True', expected a whole number"),
        ({"human_preference": "2"}, "human_preference is '2', expected a whole number"),
        ({"file_path": []}, "human_preference is 2, but there are 0 images"),
        ({"file_path": ["a", "b", 3]}, "file_path holds something that is no text"),
        ({"file_path": ["a", "b", "a"]}, "image 'a' is shown twice"),
        ({"file_path": ["a"], "human_preference": 0}, "1 image, but a choice needs at least 2"),
        ({"prompt": None}, "prompt is 'None', expected a text"),
        ({"extra": 1}, "has the unknown key 'extra'"),
        ({"id": 0}, "another record has the same id"),
        ({"file_path": ["preference_images/0_0.jpg", "x", "y"]}, "belongs to another record"),
    ],
)
def test_a_bad_record_is_named_by_number_and_id(changes, message, tmp_path: Path) -> None:
    records = [record(0), record(12) | changes]
    where = rf"record 1 \(id {records[1]['id']}\): "
    path = write(tmp_path, records)
    with pytest.raises(DataError, match=rf"preference_test\.json: {where}.*{message}"):
        _read(path)
    found = _read(path, settings=SourceSettings(allow_errors=True))
    assert len(found.choices) == 1
    assert found.report["faults"]["count"] == 1


def test_many_bad_records_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, [record(k, human_preference=k) for k in range(8)])
    with pytest.raises(DataError, match=r"4 of 8 rows cannot be used, first record 4 \(id 4\): "):
        _read(path)
    bad = write(tmp_path, [record(0, prompt=1)])
    with pytest.raises(DataError, match="holds no record that can be used"):
        _read(bad, settings=SourceSettings(allow_errors=True))


WHOLE = json.dumps([record(k) for k in range(3)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is an empty file, expected a JSON list"),
        ("{}", "begins with '{}', expected a JSON list"),
        (WHOLE[:-20], "the JSON breaks off in record 2; the file is incomplete"),
        (WHOLE[:200], "the JSON breaks off in record 0"),
        (WHOLE[:-1], "the JSON list breaks off after record 2"),
        (WHOLE + "x", "goes on after the end of the JSON list"),
        (
            WHOLE.replace("}, {", "} {", 1),
            "the JSON list has '{' instead of a comma after record 0",
        ),
        (WHOLE.replace('"id": 1', '"id": NaN'), r"record 1 is no valid JSON \(line 1: NaN is no"),
        (WHOLE.replace('"id": 1', "id: 1"), "record 1 is no valid JSON"),
        ("[1]", "record 0: expected an object, found '1'"),
        ("[{}]", "record 0: has no 'human_preference'"),
        ("[]", "holds no record that can be used"),
        ("[" * 100_000, "record 0 is no valid JSON|breaks off in record 0"),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(text, message, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        _read(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_wrong_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: does not exist"):
        _read(tmp_path / "nowhere.json")
    path = write(tmp_path, [record(0)])
    with pytest.raises(DataError, match="nowhere: is no folder of images"):
        _read(path, tmp_path / "nowhere")
    path.write_bytes(b"\xff\xfe[\0")
    with pytest.raises(DataError, match="is no UTF-8 text"):
        _read(path)


def test_required_images_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, [record(0)])
    with pytest.raises(DataError, match=r"4 of 4 images are not there: 'preference_images/0"):
        _read(path, settings=SourceSettings(missing_images="fail"))


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    file = tmp_path / "preference_images" / "0_1.jpg"
    file.parent.mkdir()
    file.write_text("hello")
    path = write(tmp_path, [record(0)])
    with pytest.raises(DataError, match=r"0_1\.jpg: is no image of a known format"):
        _read(path)
    found = _read(path, settings=SourceSettings(allow_errors=True))
    assert (len(found.images), len(found.choices)) == (4, 1)


def test_the_real_records_show_their_position_bias(shared: Path) -> None:
    found = _read(shared / "data" / "hpd_v1" / "preference_test_500.json")
    assert (len(found.choices), len(found.images)) == (500, 1968)
    assert found.report["records"] == 500
    assert found.report["missing_images"] == 1968
    assert len(found.report["missing_first"]) == 10
    assert found.report["faults"]["count"] == 0
    bias = position_bias(found.choices)
    assert bias is not None
    assert bias.chance == pytest.approx(0.2565)
    assert bias.always_first.value == pytest.approx(116 / 500)
    assert bias.always_last.value == pytest.approx(162 / 500)
    assert bias.always_last.low > bias.chance
    assert [slots.counts for slots in bias.sizes] == [(5, 2), (3, 6, 9), (108, 100, 116, 151)]

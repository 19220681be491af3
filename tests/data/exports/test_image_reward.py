"""ImageReward: ranks as they are, unused ones too, and the real file comes out as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from palate.data.exports.common import ExportSettings
from palate.data.exports.image_reward import export_image_reward
from palate.data.importing import collect, write_import
from palate.data.records import Choice, Image
from palate.data.sources.image_reward import image_reward
from palate.data.tables import load_dataset, save_dataset, to_table

BARE = ExportSettings(images="none")


def round_trip(records: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    path = folder / "test.json"
    path.write_text(json.dumps(records), "utf-8")
    write_import(image_reward(path), folder / "data")
    dataset = load_dataset(folder / "data")
    export_image_reward(dataset, folder / "out", BARE)
    again = collect(image_reward(folder / "out" / "test.json"))
    assert again.choices.equals(dataset.choices)
    assert again.images.equals(dataset.images)
    found: list[dict[str, Any]] = json.loads((folder / "out" / "test.json").read_text("utf-8"))
    return found


@st.composite
def reward_records(draw: st.DrawFn) -> list[dict[str, Any]]:
    numbers = draw(st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True))
    records = []
    for number in numbers:
        count = draw(st.integers(2, 5))
        records.append(
            {
                "id": f"{number:06}-0001",
                "prompt": draw(st.text(min_size=1, max_size=8)),
                "generations": [f"part-{number:06}/images/0001/{k}.webp" for k in range(count)],
                "ranking": draw(st.lists(st.integers(1, 6), min_size=count, max_size=count)),
            }
        )
    return records


@given(records=reward_records())
def test_what_was_imported_comes_out_as_it_was(records, tmp_path_factory) -> None:
    assert round_trip(records, tmp_path_factory.mktemp("trip")) == records


def test_the_real_records_come_out_as_they_were(shared: Path, tmp_path: Path) -> None:
    records = json.loads((shared / "data" / "image_reward" / "test.json").read_text("utf-8"))
    assert round_trip(records, tmp_path) == records


def test_real_ranks_stay_as_they_are(shared: Path, tmp_path: Path, read) -> None:
    records = read(shared / "data" / "image_reward" / "test.json")
    choices = [
        Choice(row["id"], row["prompt"], tuple(row["generations"]), tuple(row["ranking"]))
        for row in records
    ]
    images = [Image(key, choice.prompt) for choice in choices for key in choice.images]
    save_dataset(tmp_path / "data", to_table(images, "images"), to_table(choices, "choices"))
    result = export_image_reward(load_dataset(tmp_path / "data"), tmp_path / "out", BARE)
    assert read(tmp_path / "out" / "test.json") == records
    assert result == {"records": 466, "images": 0}


def test_choices_of_other_sets_keep_ids_apart(make, read, tmp_path: Path) -> None:
    keys = ["1", "image-reward/1", "image-reward/image-reward/1", "image-reward/2"]
    data = make([Choice(key, "p", ("a", "b"), (1, 2)) for key in keys])
    export_image_reward(data, tmp_path / "out")
    ids = [row["id"] for row in read(tmp_path / "out" / "test.json")]
    assert ids == ["1", "image-reward/1", "image-reward/image-reward/1", "2"]


def test_files_have_the_names_of_the_keys(make, read, tmp_path: Path) -> None:
    data = make(
        [
            Choice("image-reward/1", "p", ("x/a.webp", "../b", "images/00000000.jpg"), (1, 4, 4)),
            Choice("other", "q", ("x/a.webp", "/c"), (2, 3), annotator="ann"),
        ]
    )
    result = export_image_reward(data, tmp_path / "out")
    assert result == {"records": 2, "images": 4, "annotators_left_out": 1}
    first, second = read(tmp_path / "out" / "test.json")
    assert first == {
        "id": "1",
        "prompt": "p",
        "generations": ["x/a.webp", "images/00000001.jpg", "images/00000000.jpg"],
        "ranking": [1, 4, 4],
    }
    assert second["id"] == "other"
    assert second["ranking"] == [2, 3]
    names = first["generations"] + second["generations"][1:]
    assert len(set(names)) == 4
    for number, name in enumerate(names):
        stored = data.images["path"][number].as_py()
        assert (tmp_path / "out" / name).read_bytes() == (data.folder / stored).read_bytes()

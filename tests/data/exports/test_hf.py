"""Parquet for Hugging Face: the shape of Pick-a-Pic, images that decode, and a card that agrees."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.data.duels import duels
from palate.data.exports.hf import HfSettings, export_hf
from palate.data.importing import collect
from palate.data.records import Choice, Image
from palate.data.sources.pick_a_pic import pick_a_pic
from palate.data.tables import to_rows
from palate.errors import SettingsError


def table(out: Path, config: str = "overall", split: str = "train") -> Any:
    files = sorted((out / "data" / config).glob(f"{split}-*.parquet"))
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


def test_rows_have_the_shape_of_pick_a_pic(dataset, tmp_path: Path) -> None:
    result = export_hf(dataset, tmp_path / "out")
    assert result == {
        "pairs": 8,
        "choices": 3,
        "images": 6,
        "files": 1,
        "configurations": {"overall": 8},
    }
    rows = table(tmp_path / "out").to_pylist()
    first, second = rows[:2]
    assert (first["image_0_uid"], first["image_1_uid"]) == ("a", "b")
    assert (second["image_0_uid"], second["image_1_uid"]) == ("b", "a")
    assert [(row["label_0"], row["label_1"]) for row in rows[:2]] == [(1, 0), (0, 1)]
    assert [row["best_image_uid"] for row in rows[:3]] == ["a", "a", None]
    assert [row["user_id"] for row in rows[:3]] == [0, 1, None]
    assert [row["ranking_id"] for row in rows] == [0, 1] + [2] * 6
    assert [row["num_example_per_prompt"] for row in rows] == [2, 2] + [6] * 6
    assert all(row["has_label"] and row["are_different"] for row in rows)
    assert (first["caption"], first["model_0"], first["choice"]) == ("a fox", "sd", "one")
    assert "ann" not in json.dumps([{**row, "jpg_0": 0, "jpg_1": 0} for row in rows], default=str)
    for row in rows:
        for side in "01":
            stored = dataset.images["path"]["abcdef".index(row[f"image_{side}_uid"])].as_py()
            data = (dataset.folder / stored).read_bytes()
            assert row[f"jpg_{side}"] == {"bytes": data, "path": Path(stored).name}
            assert PIL.Image.open(io.BytesIO(data)).size == (8, 9)


@pytest.mark.parametrize("columns", ["image", "bytes"])
def test_the_schema_says_how_columns_decode(columns, dataset, tmp_path: Path) -> None:
    export_hf(dataset, tmp_path / "out", HfSettings(columns=columns))
    schema = table(tmp_path / "out").schema
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    wanted = {"_type": "Image"} if columns == "image" else {"dtype": "binary", "_type": "Value"}
    assert features["jpg_0"] == features["jpg_1"] == wanted
    assert features["label_0"] == {"dtype": "float64", "_type": "Value"}
    assert features["caption"] == {"dtype": "string", "_type": "Value"}
    assert features["created_at"]["dtype"] == "timestamp[ns]"
    kind = schema.field("jpg_0").type
    assert pa.types.is_binary(kind) if columns == "bytes" else kind.names == ["bytes", "path"]
    row = table(tmp_path / "out").slice(0, 1).to_pylist()[0]
    data = (dataset.folder / "images" / "0.png").read_bytes()
    assert row["jpg_0"] == (data if columns == "bytes" else {"bytes": data, "path": "0.png"})


def test_every_dimension_is_a_configuration(make, tmp_path: Path) -> None:
    names = ["style/colour", "style colour", "overall", "…"]
    data = make([Choice(name, "p", ("a", "b"), (1, 2), dimension=name) for name in names])
    result = export_hf(data, tmp_path / "out")
    assert result["configurations"] == {
        "overall": 1,
        "style-colour": 1,
        "style-colour-2": 1,
        "dimension": 1,
    }
    page = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert '- config_name: "overall"\n  default: true\n  data_files:' in page
    assert page.count("default: true") == 1
    assert "| style-colour-2 | style/colour | 1 | 1 |" in page
    rows = table(tmp_path / "out", "style-colour").to_pylist()
    assert [row["dimension"] for row in rows] == ["style colour"]


def test_the_card_is_yaml_that_agrees_with_the_files(dataset, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    export_hf(dataset, tmp_path / "out", HfSettings(split="validation"))
    page = (tmp_path / "out" / "README.md").read_text("utf-8")
    _, header, body = page.split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts["license"] == "unknown"
    assert "# fill in" in header
    assert "unknown: fill in" in body
    [config], [info] = facts["configs"], facts["dataset_info"]
    [files] = config["data_files"]
    assert files["split"] == "validation"
    assert [path.name for path in (tmp_path / "out").glob(files["path"])] == [
        "validation-00000-of-00001.parquet"
    ]
    assert [row["name"] for row in info["features"]] == table(
        tmp_path / "out", split="validation"
    ).schema.names
    assert info["splits"][0]["num_examples"] == 8
    assert "| study | 3 |" in body


def test_files_are_cut_by_size_and_rows_stay_in_order(make, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("palate.data.exports.hf._ROWS_PER_GROUP", 2)
    rows = [Image(f"{key}", "p" * 400_000) for key in "abcd"]
    answers = [Choice(f"{n}", "p" * 400_000, ("a", "b", "c"), (1, 2, 3)) for n in range(3)]
    data = make(answers, rows)
    result = export_hf(data, tmp_path / "out", HfSettings(megabytes_per_file=1))
    assert result["files"] > 1
    names = sorted(path.name for path in (tmp_path / "out" / "data" / "overall").iterdir())
    count = result["files"]
    assert names == [f"train-{number:05}-of-{count:05}.parquet" for number in range(count)]
    found = table(tmp_path / "out").to_pylist()
    assert [(row["choice"], row["image_0_uid"]) for row in found] == [
        (f"{n}", key) for n in range(3) for key in "aab"
    ]


def test_images_that_are_one_file_are_not_different(make, tmp_path: Path) -> None:
    data = make([Choice("x", "p", ("a", "b"), (1, 2))])
    same = data.images.set_column(
        data.images.schema.get_field_index("sha256"),
        data.images.schema.field("sha256"),
        pa.array(["0" * 64] * 2),
    )
    found = type(data)(same, data.choices, data.folder)
    export_hf(found, tmp_path / "out", HfSettings(images="none"))
    [row] = table(tmp_path / "out").to_pylist()
    assert row["are_different"] is False
    assert row["jpg_0"] is None


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"the split 'a/b' is no name of letters, digits"):
        HfSettings(split="a/b")
    with pytest.raises(SettingsError, match="megabytes_per_file is 0, expected at least 1"):
        HfSettings(megabytes_per_file=0)


def test_the_pairs_come_back_as_answers(dataset, make, tmp_path: Path) -> None:
    rows = [("x", "overall", "ann"), ("y", "style", "ben"), ("z", "style", "ann")]
    answers = [
        Choice(key, "p", ("a", "b", "c"), (2, 1, 1), dimension=dimension, annotator=who)
        for key, dimension, who in rows
    ]
    for number, data in enumerate((dataset, make(answers))):
        for columns in ("image", "bytes"):
            out = tmp_path / f"{columns}{number}"
            export_hf(data, out, HfSettings(columns=columns))
            again = collect(pick_a_pic(out))
            found = duels(data.choices)
            assert again.report["faults"]["count"] == 0
            assert [
                (*row.images, {(1, 2): 1, (1, 1): 0.5, (2, 1): 0}[row.ranks])
                for row in to_rows(again.choices, Choice)
            ] == list(
                zip(
                    found.first_image.to_pylist(),
                    found.second_image.to_pylist(),
                    found.outcome.tolist(),
                    strict=True,
                )
            )
            hashes = dict(
                zip(*(again.images[name].to_pylist() for name in ("image", "sha256")), strict=True)
            )
            stored = dict(
                zip(*(data.images[name].to_pylist() for name in ("image", "sha256")), strict=True)
            )
            assert hashes == stored
            people = {row.annotator for row in to_rows(again.choices, Choice)} - {None}
            assert people == {"0", "1"}


@pytest.mark.skipif(find_spec("datasets") is None, reason="needs the library datasets")
def test_the_library_loads_the_folder(dataset, tmp_path: Path) -> None:
    import datasets

    export_hf(dataset, tmp_path / "out")
    loaded = datasets.load_dataset(
        str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 8
    assert loaded[0]["jpg_0"].size == (8, 9)

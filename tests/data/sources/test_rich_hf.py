"""RichHF-18K: everything in a record is kept, and choices need the prompts of Pick-a-Pic."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from palate.data.importing import collect, write_import
from palate.data.records import Choice
from palate.data.records import Image as ImageRow
from palate.data.sources.agiqa import OpinionSettings
from palate.data.sources.common import SourceSettings
from palate.data.sources.rich_hf import read_rich_hf, rich_hf, words
from palate.data.tables import load_dataset, save_dataset, to_rows, to_table
from palate.errors import DataError


def _writer() -> Any:
    """The writer of TFRecords that the test of the reader has."""
    path = Path(__file__).with_name("test_tfrecord.py")
    spec = importlib.util.spec_from_file_location("palate_tfrecord_writer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


WRITER = _writer()


def heat(value: int) -> bytes:
    with io.BytesIO() as file:
        PIL.Image.fromarray(np.full((8, 8), value, np.uint8)).save(file, "PNG")
        return file.getvalue()


def features(name: str, overall: float = 0.5, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "filename": [f"train/{name}.png".encode()],
        "aesthetics_score": [0.5],
        "artifact_score": [0.75],
        "misalignment_score": [1.0],
        "overall_score": [overall],
        "artifact_map": [heat(51)],
        "misalignment_map": [heat(0)],
        "prompt_misalignment_label": [b"1 0 1"],
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


def write(folder: Path, *records: dict[str, Any], name: str = "train") -> Path:
    path = folder / f"{name}.tfrecord"
    path.write_bytes(b"".join(WRITER.record(WRITER.example(record)) for record in records))
    return path


@pytest.fixture
def pick_a_pic(tmp_path: Path) -> Path:
    """A data set as an import of Pick-a-Pic leaves it; the image `a` has a file."""
    folder = tmp_path / "pick"
    (folder / "images").mkdir(parents=True)
    PIL.Image.new("RGB", (6, 4)).save(folder / "images" / "a.png")
    rows = [
        ImageRow("pick/a", "a red, fox", path="images/a.png", generator="sd"),
        ImageRow("pick/b", "a red, fox", generator="xl"),
        ImageRow("pick/c", "a red, fox"),
        ImageRow("pick/d", "another prompt of five words"),
    ]
    save_dataset(folder, to_table(rows, "images"), to_table([], "choices"))
    return folder


def test_a_record_comes_back_whole(tmp_path: Path):
    [record] = read_rich_hf(write(tmp_path, features("a", 0.6)))
    assert (record.uid, record.filename, record.labels) == ("a", "train/a.png", (1, 0, 1))
    assert record.scores["overall_score"] == 0.6
    assert record.artifact_map == heat(51)
    assert record.misalignment_map == heat(0)


def test_without_prompts_there_are_images_and_no_choices(tmp_path: Path):
    path = write(tmp_path, features("a"), features("b"))
    result = write_import(rich_hf(path), tmp_path / "out")
    assert (result["images"], result["choices"], result["images_without_prompt"]) == (2, 0, 2)
    [row, _] = to_rows(load_dataset(tmp_path / "out").images, ImageRow)
    assert (row.image, row.prompt) == ("a", "")
    assert json.loads(row.details or "") == {
        "part": "train",
        "filename": "train/a.png",
        "aesthetics_score": 0.5,
        "artifact_score": 0.75,
        "misalignment_score": 1.0,
        "overall_score": 0.5,
        "artifact_map_mean": 51.0,
        "artifact_map_sha256": hashlib.sha256(heat(51)).hexdigest(),
        "misalignment_map_mean": 0.0,
        "misalignment_map_sha256": hashlib.sha256(heat(0)).hexdigest(),
        "prompt_misalignment_label": "1 0 1",
    }


def test_images_of_one_prompt_are_choices_on_four_dimensions(tmp_path: Path, pick_a_pic: Path):
    path = write(
        tmp_path, features("b", 0.25), features("a", 0.75), features("c", 0.25), features("d")
    )
    found = collect(rich_hf(path, pick_a_pic))
    rows = {row.dimension: row for row in to_rows(found.choices, Choice)}
    assert set(rows) == {"aesthetics", "plausibility", "alignment", "overall"}
    overall = rows["overall"]
    assert (overall.images, overall.ranks) == (("pick/b", "pick/a", "pick/c"), (2, 1, 2))
    assert (overall.annotator, overall.prompt) == (None, "a red, fox")
    assert json.loads(overall.details or "") == {
        "derived_from": "score",
        "means": [0.25, 0.75, 0.25],
    }
    assert (found.report["all_tied"], found.report["single"]) == (3, 4)


def test_prompt_file_and_misaligned_words_come_from_pick_a_pic(tmp_path: Path, pick_a_pic: Path):
    path = write(tmp_path, features("a"), features("d"), features("e"))
    found = collect(rich_hf(path, pick_a_pic))
    fox, other, unknown = to_rows(found.images, ImageRow)
    assert (fox.prompt, fox.generator, fox.width) == ("a red, fox", "sd", 6)
    assert json.loads(fox.details or "")["misaligned_words"] == ["red"]
    assert "misaligned_words" not in json.loads(other.details or "")
    assert (unknown.image, unknown.prompt) == ("e", "")
    assert found.report["labels_that_do_not_fit_the_prompt"] == 1
    assert found.report["images_not_in_pick_a_pic"] == 1


def test_a_folder_gives_all_its_parts(tmp_path: Path):
    write(tmp_path, features("a"))
    write(tmp_path, features("b"), name="dev")
    rows = to_rows(collect(rich_hf(tmp_path)).images, ImageRow)
    assert [json.loads(row.details or "")["part"] for row in rows] == ["dev", "train"]


def test_close_pairs_are_left_out(tmp_path: Path, pick_a_pic: Path):
    path = write(tmp_path, features("a", 0.5), features("b", 0.6), features("c", 1.0))
    settings = OpinionSettings(form="pairs", minimum_gap=0.2)
    found = collect(rich_hf(path, pick_a_pic, settings))
    rows = [row for row in to_rows(found.choices, Choice) if row.dimension == "overall"]
    assert [row.images for row in rows] == [("pick/a", "pick/c"), ("pick/b", "pick/c")]
    assert found.report["too_close"] == 1


def test_what_a_record_lacks_is_counted(tmp_path: Path):
    path = write(
        tmp_path, features("a", artifact_map=None, prompt_misalignment_label=None), features("b")
    )
    report = collect(rich_hf(path)).report
    assert report["without_artifact_map"] == 1
    assert report["without_prompt_misalignment_label"] == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"filename": None}, "has no 'filename'"),
        ({"filename": [b"train/a.png"]}, "image 'a' was there before"),
        ({"filename": [b"\xff"]}, "filename is .* no UTF-8 text"),
        ({"overall_score": None}, "overall_score has 0 values, expected one"),
        ({"overall_score": [float("nan")]}, "overall_score is 'nan', expected a number"),
        ({"overall_score": [3]}, "overall_score is '3', expected a number"),
        ({"overall_score": [0.5, 0.5]}, "overall_score has 2 values"),
        ({"artifact_map": [0.5]}, "artifact_map is a number, expected bytes"),
        ({"artifact_map": [heat(1)[:40]]}, "artifact_map"),
        ({"prompt_misalignment_label": [b"1 2"]}, "expected 0 and 1 with spaces"),
        ({"colour": [b"red"]}, "unknown feature 'colour'"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, changes: dict[str, Any], told: str):
    path = write(tmp_path, features("a"), features("b", **changes))
    with pytest.raises(DataError, match=f"train.tfrecord, record 1: .*{told}"):
        collect(rich_hf(path))
    allowed = SourceSettings(allow_errors=True)
    assert len(collect(rich_hf(path, settings=allowed)).images) == 1


def test_a_damaged_or_cut_file_is_named(tmp_path: Path):
    path = write(tmp_path, features("a"), features("b"))
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[:-3])
    with pytest.raises(DataError, match=r"record 1, byte .*incomplete"):
        collect(rich_hf(path))
    whole[40] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match="record 0, byte 0: the checksum"):
        collect(rich_hf(path))
    with pytest.raises(DataError, match="record 0, byte 0: the checksum"):
        list(read_rich_hf(path))
    found = collect(rich_hf(path, settings=SourceSettings(allow_errors=True)))
    assert (len(found.images), found.report["faults"]["count"]) == (1, 1)


def test_images_must_be_a_data_set(tmp_path: Path):
    path = write(tmp_path, features("a"))
    with pytest.raises(DataError, match="expected a data set of Pick-a-Pic"):
        rich_hf(path, tmp_path)
    (tmp_path / "images.parquet").write_bytes(b"PAR1 none")
    with pytest.raises(DataError, match="is no Parquet file"):
        collect(rich_hf(path, tmp_path))


def test_two_images_of_one_uid_are_refused(tmp_path: Path):
    rows = [ImageRow("one/a", "p"), ImageRow("two/a", "p")]
    save_dataset(tmp_path / "pick", to_table(rows, "images"), to_table([], "choices"))
    with pytest.raises(DataError, match="'one/a' and 'two/a' have the same uid 'a'"):
        collect(rich_hf(write(tmp_path, features("a")), tmp_path / "pick"))


def test_a_folder_without_records_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"holds no \.tfrecord file"):
        rich_hf(tmp_path)


def test_words_are_split_as_the_labels_count_them():
    assert words(' a cat. "Big"; red:fox ,,') == ["a", "cat", "Big", "red", "fox"]

"""Every shape: one dimension, images that are there, whole files or none, and equal repeats."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from palate.data.exports import common
from palate.data.exports.common import ExportSettings
from palate.data.exports.hf import HfSettings, export_hf
from palate.data.exports.hpd_v1 import HpdSettings, export_hpd
from palate.data.exports.hpd_v2 import HpdV2Settings, export_hpd_v2
from palate.data.exports.image_reward import export_image_reward
from palate.data.exports.pairs import PairsSettings, export_pairs
from palate.data.exports.webdataset import WebDatasetSettings, export_webdataset
from palate.data.records import Choice
from palate.data.tables import Dataset, load_dataset, save_dataset
from palate.errors import DataError, RunError

SHAPES: dict[str, tuple[Callable[..., dict[str, Any]], Any]] = {
    "hpd": (export_hpd, HpdSettings()),
    "hpd-v2": (export_hpd_v2, HpdV2Settings()),
    "pairs": (export_pairs, PairsSettings()),
    "imagereward": (export_image_reward, ExportSettings()),
    "webdataset": (export_webdataset, WebDatasetSettings()),
    "hf": (export_hf, HfSettings()),
}
SEVERAL = ("pairs", "webdataset", "hf")


@pytest.fixture(params=SHAPES)
def shape(request) -> str:
    return request.param


def export(shape: str, dataset: Dataset, out: Path, overwrite: bool = False, **changes: Any) -> Any:
    function, settings = SHAPES[shape]
    return function(dataset, out, replace(settings, **changes), overwrite=overwrite)


def two_dimensions(make) -> Dataset:
    rows = [("x", "overall"), ("y", "style"), ("z", "overall")]
    return make(
        [Choice(key, "p", ("a", "b"), (1, 2), dimension=dimension) for key, dimension in rows]
    )


def test_a_second_export_is_equal_and_a_repeat_does_nothing(
    shape, dataset, listing, tmp_path: Path
) -> None:
    first = export(shape, dataset, tmp_path / "one")
    before = (tmp_path / "one" / "run.json").read_bytes()
    assert export(shape, dataset, tmp_path / "one") == first
    assert (tmp_path / "one" / "run.json").read_bytes() == before
    assert export(shape, dataset, tmp_path / "two") == first
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    record = json.loads(before)
    assert record["verb"] == f"data export {shape}"
    assert set(record["inputs"]) == {"images", "choices"}
    assert not [name for name in listing(tmp_path / "one") if name.startswith(".")]


def test_several_dimensions_are_named_where_one_fits(shape, make, tmp_path: Path) -> None:
    data = two_dimensions(make)
    if shape in SEVERAL:
        assert export(shape, data, tmp_path / "out")["choices"] == 3
    else:
        with pytest.raises(
            DataError,
            match=r"holds one dimension, and there are 2: overall \(2\), style \(1\); choose one with --dimension",
        ):
            export(shape, data, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    found = export(shape, data, tmp_path / "style", dimension="style")
    assert found.get("records", found.get("choices")) == 1
    with pytest.raises(DataError, match=r"no choice judges 'zzz'; there are overall \(2\), style"):
        export(shape, data, tmp_path / "none", dimension="zzz")


def test_missing_images_are_counted_and_named(shape, dataset, listing, tmp_path: Path) -> None:
    (dataset.folder / "images" / "1.jpg").unlink()
    (dataset.folder / "images" / "4.jpg").unlink()
    with pytest.raises(
        DataError,
        match=r"2 of 6 images have no file: 'b', 'e'; --without-images exports without them",
    ):
        export(shape, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = export(shape, dataset, tmp_path / "out", images="none")
    assert result.get("records", result.get("choices"))
    endings = {Path(name).suffix for name in listing(tmp_path / "out")}
    assert endings <= {".json", ".jsonl", ".tar", ".parquet", ".md"}


def test_only_the_first_ten_are_named(shape, make, tmp_path: Path) -> None:
    keys = tuple(f"k{number:02}" for number in range(12))
    data = make([Choice("x", "p", keys, (1, *[2] * 11))])
    for file in (data.folder / "images").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"12 of 12 images have no file: 'k00'.*'k09', …; "):
        export(shape, data, tmp_path / "out")


def test_no_choice_is_nothing_to_export(shape, dataset, tmp_path: Path) -> None:
    save_dataset(tmp_path / "bare", dataset.images, dataset.choices.slice(0, 0))
    bare = load_dataset(tmp_path / "bare")
    if shape == "webdataset":
        assert export(shape, bare, tmp_path / "out", images="none")["choices"] == 0
    else:
        with pytest.raises(DataError, match="bare: holds no choice to export"):
            export(shape, bare, tmp_path / "out")


def test_a_data_set_of_choices_alone_needs_no_images(shape, dataset, tmp_path: Path) -> None:
    save_dataset(tmp_path / "bare", dataset.images.slice(0, 0), dataset.choices)
    bare = load_dataset(tmp_path / "bare")
    assert export(shape, bare, tmp_path / "out", images="none")
    if shape != "webdataset":
        with pytest.raises(DataError, match="6 of 6 images have no file"):
            export(shape, bare, tmp_path / "again")


FAULTS = [KeyboardInterrupt, OSError(28, "No space left on device")]


def break_off(patch: pytest.MonkeyPatch, fault: Any) -> None:
    """Let every export raise a fault at its second image or row."""

    def broken(items, label, total=None):
        yield from list(items)[:1]
        raise fault

    for module in ("common", "webdataset", "hf"):
        patch.setattr(f"palate.data.exports.{module}.track", broken)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_export_that_breaks_off_leaves_the_former_one_as_it_was(
    shape, fault, dataset, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "out"
    export(shape, dataset, out, images="none")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    break_off(monkeypatch, fault)
    with pytest.raises((KeyboardInterrupt, RunError)):
        export(shape, dataset, out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_file_stands_half_under_its_name(
    shape, fault, dataset, tmp_path: Path, monkeypatch
) -> None:
    """Whatever breaks in the middle of the images or at the end of the rows."""
    out = tmp_path / "out"

    with monkeypatch.context() as patch:
        break_off(patch, fault)
        with pytest.raises((KeyboardInterrupt, RunError)):
            export(shape, dataset, out)
    if fault is not KeyboardInterrupt:
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
        return
    assert [path.name for path in out.iterdir()] == ["run.json"]
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    left = out / ".data-000000.tmp0123abcd.tar"
    left.write_text("what a killed process leaves")
    folder = out / ".data.tmp0123abcd"
    folder.mkdir()
    assert export(shape, dataset, out)
    assert not left.exists()
    assert not folder.exists()
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


def test_another_export_needs_overwrite(shape, dataset, make, listing, tmp_path: Path) -> None:
    export(shape, dataset, tmp_path / "out", images="none")
    with pytest.raises(RunError, match="with other settings"):
        export(shape, dataset, tmp_path / "out", dimension="overall")
    export(shape, dataset, tmp_path / "out", overwrite=True)
    export(shape, dataset, tmp_path / "fresh")
    assert listing(tmp_path / "out") == listing(tmp_path / "fresh")


def test_the_data_set_itself_is_not_written_over(shape, dataset, tmp_path: Path) -> None:
    with pytest.raises((RunError, DataError)):
        export(shape, dataset, dataset.folder)
    with pytest.raises(DataError, match="holds images of the data set; choose another --out"):
        export(shape, dataset, dataset.folder, overwrite=True, images="none")
    assert load_dataset(dataset.folder).images.equals(dataset.images)
    assert (dataset.folder / "images" / "0.png").exists()


@pytest.mark.parametrize("packed", ["webdataset", "hf"])
def test_a_file_that_changed_since_the_import_is_refused(packed, dataset, tmp_path: Path) -> None:
    file = dataset.folder / "images" / "0.png"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"image 'a': 0\.png has changed since it was imported"):
        export(packed, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_files_cannot_have_one_name(tmp_path: Path) -> None:
    files = [("x/a", tmp_path / "1"), ("x\\a", tmp_path / "2")]
    for _, file in files:
        file.write_text("")
    places = common.Places(tmp_path / "out")
    with pytest.raises(DataError, match="two files would be called"), places.stack:
        common.place_images(files, places, "copy")
    assert list((tmp_path / "out").iterdir()) == []


def test_names_of_files_come_from_a_single_source() -> None:
    def name(*sources: str) -> str:
        return common.file_name(pa.table({"source": list(sources)}), "hpd-v1/", "other.json")

    assert name("hpd-v1/a.json", "hpd-v1/a.json") == "a.json"
    for odd in ("hpd-v1/run.json", "hpd-v1/../a.json", "hpd-v1/", "study/a.json", "hpd-v1/.json"):
        assert name(odd) == "other.json"
    assert name("hpd-v1/a.json", "hpd-v1/b.json") == "other.json"

"""The HPS v2 benchmark: images named by the places of their prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.data.importing import collect, write_import
from palate.data.records import Image
from palate.data.sources.common import Imported, SourceSettings
from palate.data.sources.hps_benchmark import STYLES, HpsBenchmarkSettings, hps_benchmark
from palate.data.tables import to_rows
from palate.errors import DataError


def write_prompts(folder: Path, *names: str, prompts: object = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or STYLES:
        texts = [f"{name} {k}" for k in range(3)] if prompts is None else prompts
        (folder / f"{name}.json").write_text(json.dumps(texts))
    return folder


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)


def fill(folder: Path, *styles: str, images: int = 3) -> Path:
    for style in styles:
        for k in range(images):
            save(folder / style / f"{k:05}.jpg")
    return folder


def images(found: Imported) -> dict[str, Image]:
    return {row.image: row for row in to_rows(found.images, Image)}


def test_one_model_is_named_by_its_folder(tmp_path: Path) -> None:
    write_prompts(tmp_path / "benchmark")
    found = collect(hps_benchmark(fill(tmp_path / "sd14", "anime", "photo")))
    rows = images(found)
    assert list(rows)[:2] == ["sd14/anime/00000.jpg", "sd14/anime/00001.jpg"]
    assert rows["sd14/photo/00002.jpg"].prompt == "photo 2"
    assert rows["sd14/photo/00002.jpg"].generator == "sd14"
    assert json.loads(rows["sd14/photo/00002.jpg"].details or "") == {"style": "photo", "index": 2}
    assert found.report["missing_images"] == 0


def test_the_release_is_read_from_the_folder_of_its_prompts(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "benchmark")
    fill(folder / "benchmark_imgs" / "a", *STYLES)
    fill(folder / "benchmark_imgs" / "b", *STYLES)
    rows = images(collect(hps_benchmark(folder)))
    assert len(rows) == 24
    assert {row.generator for row in rows.values()} == {"a", "b"}


def test_drawbench_has_no_folders_of_styles(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "benchmark", "anime", "drawbench")
    fill(folder / "drawbench", "sd14", "sd20")
    rows = images(collect(hps_benchmark(folder, folder / "drawbench")))
    assert rows["sd20/drawbench/00001.jpg"].prompt == "drawbench 1"
    assert len(rows) == 6


@pytest.mark.parametrize("place", ["images", "images/benchmark", ".", "benchmark", "elsewhere"])
def test_the_prompts_are_found_in_several_places(tmp_path: Path, place: str) -> None:
    write_prompts(tmp_path / place)
    fill(tmp_path / "images" / "sd14", "photo")
    fixed = tmp_path / place if place == "elsewhere" else None
    settings = HpsBenchmarkSettings(prompts=fixed)
    source = hps_benchmark(tmp_path / "images" / "sd14", settings=settings)
    assert len(images(collect(source))) == 3


def test_the_folder_of_prompts_is_no_model(tmp_path: Path) -> None:
    write_prompts(tmp_path / "benchmark")
    fill(tmp_path / "sd14", "photo")
    assert len(collect(hps_benchmark(tmp_path)).images) == 3


def test_without_prompts_it_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "one" / "two" / "three" / "sd14", "photo")
    with pytest.raises(DataError, match=r"holds no list of prompts such as anime\.json"):
        hps_benchmark(tmp_path / "one" / "two" / "three" / "sd14")


def test_a_missing_image_is_counted_and_named(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    fill(tmp_path / "sd14", "anime", images=2)
    found = collect(hps_benchmark(tmp_path / "sd14"))
    assert found.report["missing_first"] == ["sd14/anime/00002.jpg"]
    assert found.report["prompt_lists_of_another_length"] == 4
    with pytest.raises(DataError, match="1 of 3 images are not there"):
        collect(hps_benchmark(tmp_path / "sd14", settings=SourceSettings(missing_images="fail")))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sd14/anime/00003.jpg", "sd14/anime/00003.jpg: there is no prompt 3, only 0 to 2"),
        ("sd14/anime/3.jpg", "is not named by the five digits"),
        ("sd14/anime/00001.png", "prompt 1 has another image, 00001.jpg"),
        ("sd14/comic/00000.jpg", "sd14/comic: there are no prompts of the style 'comic'"),
    ],
)
def test_a_file_without_a_prompt_is_named(tmp_path: Path, name: str, told: str) -> None:
    write_prompts(tmp_path)
    fill(tmp_path / "sd14", "anime")
    save(tmp_path / name)
    with pytest.raises(DataError, match=told):
        collect(hps_benchmark(tmp_path / "sd14"))
    allowed = SourceSettings(allow_errors=True)
    assert len(collect(hps_benchmark(tmp_path / "sd14", settings=allowed)).images) == 3


def test_images_straight_in_the_folder_of_a_model_are_named(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    fill(tmp_path / "images", "sd14")
    with pytest.raises(DataError, match="sd14: holds images, expected folders such as anime"):
        collect(hps_benchmark(tmp_path / "images"))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no folder of a style"):
        collect(hps_benchmark(tmp_path / "none"))


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ({"0": "a"}, "expected a JSON list"),
        (["a", 3], "anime.json: prompt 1 is '3', expected a text"),
        (["a", " "], "anime.json: prompt 1 is empty"),
    ],
)
def test_a_broken_list_of_prompts_is_named(tmp_path: Path, prompts: object, told: str) -> None:
    write_prompts(tmp_path, "anime", prompts=prompts)
    fill(tmp_path / "sd14", "anime", images=1)
    with pytest.raises(DataError, match=told):
        collect(hps_benchmark(tmp_path / "sd14"))


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    fill(tmp_path / "sd14", "anime")
    (tmp_path / "sd14" / "anime" / "log.txt").write_text("x")
    (tmp_path / "sd14" / "anime" / ".hidden.jpg").write_text("x")
    assert collect(hps_benchmark(tmp_path / "sd14")).report["other_files"] == 1


def test_it_is_imported(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    fill(tmp_path / "sd14", *STYLES)
    result = write_import(hps_benchmark(tmp_path / "sd14"), tmp_path / "out")
    assert (result["images"], result["prompts"], result["choices"]) == (12, 12, 0)

"""Tars: all that the tables say comes back, in whatever way they are cut, equal byte for byte."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from palate_strategies import choices as any_choice
from palate_strategies import images as any_image

from palate.data.exports.webdataset import (
    CHOICES_MEMBER,
    WebDatasetSettings,
    export_webdataset,
)
from palate.data.importing import write_import
from palate.data.records import Choice, Image
from palate.data.sources.webdataset import webdataset
from palate.data.tables import load_dataset, save_dataset, to_rows, to_table
from palate.errors import ImageError, SettingsError


def members(out: Path) -> dict[str, dict[str, bytes]]:
    """The files of every tar, in order."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found[path.name] = {
                item.name: (tar.extractfile(item) or tar).read() for item in tar.getmembers()
            }
    return found


def told_choices(data: bytes) -> list[Choice]:
    rows = [json.loads(line) for line in data.decode().split("\n") if line]
    return [
        Choice(**row | {"images": tuple(row["images"]), "ranks": tuple(row["ranks"])})
        for row in rows
    ]


def test_an_image_is_three_files_of_one_name(dataset, tmp_path: Path) -> None:
    result = export_webdataset(dataset, tmp_path / "out")
    assert result == {"tars": 1, "images": 6, "choices": 3}
    [files] = members(tmp_path / "out").values()
    names = list(files)
    assert names[:6] == [
        "00000000-a.json",
        "00000000-a.png",
        "00000000-a.txt",
        "00000001-b.jpg",
        "00000001-b.json",
        "00000001-b.txt",
    ]
    assert names[-1] == CHOICES_MEMBER
    assert names[:-1] == sorted(names[:-1])
    assert files["00000001-b.jpg"] == (dataset.folder / "images" / "1.jpg").read_bytes()
    assert files["00000000-a.txt"] == b"a fox"
    assert json.loads(files["00000001-b.json"]) == {
        "image": "b",
        "prompt": "a fox",
        "generator": "sd",
        "seed": 1,
        "settings": '{"steps":20}',
        "details": '{"note":"é"}',
    }
    assert told_choices(files[CHOICES_MEMBER]) == list(to_rows(dataset.choices, Choice))


def test_nothing_tells_when_or_by_whom_it_was_written(dataset, tmp_path: Path) -> None:
    export_webdataset(dataset, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "data-000000.tar") as tar:
        facts = {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in tar.getmembers()}
    assert facts == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize(("per_tar", "counts"), [(1, [1] * 6), (4, [4, 2]), (6, [6]), (7, [6])])
def test_tars_are_cut_by_images(per_tar: int, counts, dataset, tmp_path: Path) -> None:
    result = export_webdataset(
        dataset, tmp_path / "out", WebDatasetSettings(images_per_tar=per_tar)
    )
    found = members(tmp_path / "out")
    assert result["tars"] == len(found) == len(counts)
    assert [sum(name.endswith(".txt") for name in files) for files in found.values()] == counts
    holding = [CHOICES_MEMBER in files for files in found.values()]
    assert holding == [False] * (len(counts) - 1) + [True]


def test_tars_are_cut_by_size(make, tmp_path: Path) -> None:
    rows = [Image(key, key * 600_000) for key in "abc"]
    data = make([Choice("x", "p", ("a", "b"), (1, 2))], rows)
    result = export_webdataset(data, tmp_path / "out", WebDatasetSettings(megabytes_per_tar=1))
    assert result["tars"] == 3
    with pytest.raises(SettingsError, match="images_per_tar is 0, expected at least 1"):
        WebDatasetSettings(images_per_tar=0)


def test_keys_of_any_kind_get_plain_names(make, tmp_path: Path) -> None:
    keys = ("a.b/c", "../x", "é" * 300, "a-b-c", "__x__")
    data = make([Choice("x", "p", keys, (1, 2, 3, 4, 5))])
    export_webdataset(data, tmp_path / "out")
    [files] = members(tmp_path / "out").values()
    told = [name for name in files if name.endswith(".json")]
    assert [json.loads(files[name])["image"] for name in told] == list(keys)
    for name in files.keys() - {CHOICES_MEMBER}:
        assert name.count(".") == 1
        assert "/" not in name
        assert len(name) < 100


def test_a_file_that_is_no_image_is_refused(dataset, tmp_path: Path) -> None:
    rows = [Image("a", "p", path="images/note.txt")]
    (dataset.folder / "images" / "note.txt").write_text("hello")
    save_dataset(dataset.folder, to_table(rows, "images"), dataset.choices.slice(0, 0))
    with pytest.raises(ImageError, match=r"note\.txt: is no image of a known format"):
        export_webdataset(load_dataset(dataset.folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(data=st.data())
def test_all_rows_come_back_from_the_tars(data, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("law")
    rows = data.draw(st.lists(any_image, max_size=5, unique_by=lambda row: row.image))
    answers = data.draw(st.lists(any_choice(), max_size=3, unique_by=lambda row: row.choice))
    shown = {key for row in answers for key in row.images} - {row.image for row in rows}
    rows += [Image(key, "p") for key in sorted(shown)]
    if not rows:
        return
    save_dataset(folder / "data", to_table(rows, "images"), to_table(answers, "choices"))
    settings = WebDatasetSettings(images="none", images_per_tar=data.draw(st.integers(1, 4)))
    export_webdataset(load_dataset(folder / "data"), folder / "out", settings)
    files = {name: text for tar in members(folder / "out").values() for name, text in tar.items()}
    told = [json.loads(text) for name, text in files.items() if name.endswith(".json")]
    for row, facts in zip(rows, told, strict=True):
        assert facts == {name: getattr(row, name) for name in facts}
    assert told_choices(files.get(CHOICES_MEMBER, b"")) == answers


def test_the_import_gives_the_tables_back(dataset, tmp_path: Path) -> None:
    export_webdataset(dataset, tmp_path / "out", WebDatasetSettings(images_per_tar=4))
    write_import(webdataset(tmp_path / "out"), tmp_path / "again")
    again = load_dataset(tmp_path / "again")
    assert again.choices.equals(dataset.choices)
    assert again.images.drop_columns("path").equals(dataset.images.drop_columns("path"))

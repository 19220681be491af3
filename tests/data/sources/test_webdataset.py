"""WebDataset tars: samples as they stream, Palate's own rows and choices, every break named."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.data.importing import collect, write_import
from palate.data.records import Choice, Image
from palate.data.sources.common import Imported, SourceSettings
from palate.data.sources.webdataset import CHOICES_MEMBER, webdataset
from palate.data.tables import to_rows
from palate.errors import DataError

Files = list[tuple[str, bytes | str]]


def picture(shade: int = 0, kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    PIL.Image.fromarray(np.full((4, 6, 3), shade, np.uint8)).save(data, kind)
    return data.getvalue()


def write_tar(path: Path, files: Files, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files:
            data = content.encode() if isinstance(content, str) else content
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            tar.addfile(facts, io.BytesIO(data))
    return path


def sample(key: str, prompt: str = "a fox", **more: bytes | str) -> Files:
    files: dict[str, bytes | str] = {"jpg": picture(), "txt": prompt}
    files.update(more)
    return [(f"{key}.{ending}", data) for ending, data in files.items()]


def own(key: str, name: str, **changes: object) -> Files:
    row = {
        "image": key,
        "prompt": " a fox ",
        "generator": "g",
        "seed": 7,
        "settings": '{"steps":20}',
        "details": '{"b":1}',
    }
    return sample(name, " a fox ", json=json.dumps(row | changes))


def line(**changes: object) -> str:
    choice = {
        "choice": "c/1",
        "prompt": " a fox ",
        "images": ["train/1.jpg", "train/2.jpg"],
        "ranks": [2, 1],
        "dimension": "overall",
        "annotator": None,
        "source": "s",
        "details": None,
    }
    return json.dumps(choice | changes) + "\n"


def images(found: Imported) -> dict[str, Image]:
    return {row.image: row for row in to_rows(found.images, Image)}


def test_a_sample_is_an_image_with_its_prompt(tmp_path: Path) -> None:
    files: Files = [*sample("a", "a fox\n"), *sample("sub/b", txt="b", png=picture(9, "PNG"))]
    files = [one for one in files if one[0] != "sub/b.jpg"]
    found = collect(webdataset(write_tar(tmp_path / "x.tar", files)))
    rows = images(found)
    assert {key: row.prompt for key, row in rows.items()} == {"a": "a fox", "sub/b": "b"}
    assert (rows["a"].width, rows["a"].height) == (6, 4)


@pytest.mark.parametrize(("mode", "ending"), [("w", "tar"), ("w:gz", "tar.gz"), ("w:xz", "tar.xz")])
def test_images_are_written_as_files_of_the_data_set(
    tmp_path: Path, mode: str, ending: str
) -> None:
    path = write_tar(tmp_path / f"x.{ending}", sample("a"), mode)
    result = write_import(webdataset(path), tmp_path / "out")
    assert (result["images"], result["choices"]) == (1, 0)
    [file] = (tmp_path / "out" / "images").rglob("*.jpg")
    assert file.read_bytes() == picture()


@pytest.mark.parametrize("name", ["prompt", "caption"])
def test_the_prompt_may_stand_in_the_json(tmp_path: Path, name: str) -> None:
    facts = {
        name: "a fox",
        "seed": 5,
        "generator": "sd",
        "settings": {"steps": 3},
        "url": "u",
        "width": 9,
    }
    files: Files = [("a.jpg", picture()), ("a.json", json.dumps(facts)), ("a.cls", "12")]
    row = images(collect(webdataset(write_tar(tmp_path / "x.tar", files))))["a"]
    assert (row.prompt, row.seed, row.generator, row.settings) == ("a fox", 5, "sd", '{"steps":3}')
    assert json.loads(row.details or "") == {"url": "u", "width": 9, "cls": 12}


def test_a_text_goes_before_the_json_and_both_are_kept(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", sample("a", "new", json='{"caption": "old"}'))
    found = collect(webdataset(path))
    assert images(found)["a"].prompt == "new"
    assert json.loads(images(found)["a"].details or "") == {"json_prompt": "old"}
    assert found.report["texts_unlike_the_json"] == 1


def test_what_has_no_column_of_its_kind_goes_to_the_details(tmp_path: Path) -> None:
    facts = json.dumps({"seed": 2**70, "settings": "fast", "generator": 3})
    row = images(collect(webdataset(write_tar(tmp_path / "x.tar", sample("a", json=facts)))))["a"]
    assert (row.seed, row.settings, row.generator) == (None, None, None)
    assert json.loads(row.details or "") == json.loads(facts)


def test_other_files_are_counted(tmp_path: Path) -> None:
    files = [*sample("a", npy=b"x"), ("README", b"x"), ("._a.jpg", b"x"), *sample("b")]
    found = collect(webdataset(write_tar(tmp_path / "x.tar", files)))
    assert (found.report["files_left_out"], found.report["hidden_files"]) == (2, 1)
    assert list(images(found)) == ["a", "b"]


def test_a_folder_of_tars_is_read_in_order(tmp_path: Path) -> None:
    write_tar(tmp_path / "t" / "1.tar", sample("b"))
    write_tar(tmp_path / "t" / "0.tar", sample("a"))
    assert list(images(collect(webdataset(tmp_path / "t")))) == ["a", "b"]


def test_rows_and_choices_of_an_export_come_back_as_they_were(tmp_path: Path) -> None:
    write_tar(tmp_path / "t" / "0.tar", own("train/1.jpg", "1"))
    last: Files = [*own("train/2.jpg", "2", details=None), (CHOICES_MEMBER, line() + "\n")]
    write_tar(tmp_path / "t" / "1.tar", last)
    found = collect(webdataset(tmp_path / "t"))
    row = images(found)["train/1.jpg"]
    assert (row.prompt, row.generator, row.seed) == (" a fox ", "g", 7)
    assert (row.settings, row.details) == ('{"steps":20}', '{"b":1}')
    assert list(to_rows(found.choices, Choice)) == [
        Choice("c/1", " a fox ", ("train/1.jpg", "train/2.jpg"), (2, 1), source="s")
    ]


def test_an_export_without_images_keeps_its_rows(tmp_path: Path) -> None:
    files = [one for one in own("a.jpg", "a") if not one[0].endswith(".jpg")]
    found = collect(webdataset(write_tar(tmp_path / "x.tar", files)))
    assert images(found)["a.jpg"].sha256 is None
    assert (found.report["samples_without_image"], found.report["missing_images"]) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": ["train/1.jpg", "x"]}, "names the image 'x', of no sample"),
        ({"ranks": [1, 2, 3]}, "2 images but 3 ranks"),
        ({"ranks": [0, 1]}, "not all between 1 and"),
        ({"ranks": [True, 2]}, "ranks holds something that is no whole number"),
        ({"images": ["train/1.jpg", "train/1.jpg"]}, "is shown twice"),
        ({"images": "ab"}, "images is 'ab', expected a list"),
        ({"more": 1}, "unknown key 'more'"),
        ({"details": "x"}, "is not a JSON object"),
    ],
)
def test_a_bad_choice_is_named(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    text = line(choice="good") + line(**changes)
    files = [*own("train/1.jpg", "1"), *own("train/2.jpg", "2"), (CHOICES_MEMBER, text)]
    path = write_tar(tmp_path / "x.tar", files)
    with pytest.raises(DataError, match=rf"x.tar, __palate__/choices.jsonl, line 2: .*{told}"):
        collect(webdataset(path))
    allowed = collect(webdataset(path, settings=SourceSettings(allow_errors=True)))
    assert len(allowed.choices) == 1


def test_choices_that_are_no_json_or_come_twice_are_named(tmp_path: Path) -> None:
    start = [*own("train/1.jpg", "1"), *own("train/2.jpg", "2")]
    for text, told in (
        ("{", "is no valid JSON"),
        (b"\xff", "is no UTF-8"),
        (line() + line(), "choice 'c/1' was there before"),
        ("[]", "expected an object"),
    ):
        path = write_tar(tmp_path / "x.tar", [*start, (CHOICES_MEMBER, text)])
        with pytest.raises(DataError, match=told):
            collect(webdataset(path))


def test_samples_after_the_choices_are_refused(tmp_path: Path) -> None:
    files = [*own("train/1.jpg", "1"), *own("train/2.jpg", "2"), (CHOICES_MEMBER, line())]
    write_tar(tmp_path / "0.tar", files)
    write_tar(tmp_path / "1.tar", own("train/3.jpg", "3"))
    with pytest.raises(DataError, match=r"1.tar, sample '3': comes after the choices in 0.tar"):
        collect(webdataset(tmp_path))
    write_tar(tmp_path / "1.tar", [(CHOICES_MEMBER, line())])
    with pytest.raises(DataError, match=r"1.tar: has choices, but those of 0.tar came before"):
        collect(webdataset(tmp_path))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([("b.txt", "b")], "sample 'b': has no image"),
        ([("b.jpg", picture())], "sample 'b': has no prompt"),
        ([("b.jpg", picture()), ("b.json", "{}")], "sample 'b': has no prompt"),
        (sample("b", png=picture()), "sample 'b': has several images: jpg, png"),
        ([*sample("b"), ("b.jpg", picture())], "sample 'b': has two files .jpg"),
        (sample("b", txt=b"\xff"), r"sample 'b': its .txt is no UTF-8 text \(byte 0\)"),
        (sample("b", json=b"{\xff"), r"sample 'b': its .json is no UTF-8 text \(byte 1\)"),
        (sample("b", json="{"), "sample 'b': its JSON is not valid"),
        (sample("b", json="[]"), "sample 'b': its JSON is '\\[\\]', expected an object"),
        ([("b.jpg", picture()), ("b.json", '{"prompt": 3}')], "has the prompt '3', expected"),
        ([*sample("b"), *sample("c"), ("b.cls", "1")], "sample 'b': was there before"),
        (own("b", "b", seed="x"), "sample 'b': seed is 'x', expected a whole number"),
        ([*own("b", "b"), *own("b", "c")], "sample 'c': image 'b' was there before, in x.tar"),
        (sample("b", jpg=b"no image"), "image 'b': b: is no image of a known format"),
        (sample("b", jpg=picture()[:-40]), "image 'b': b: is truncated or damaged"),
    ],
)
def test_a_bad_sample_is_named(tmp_path: Path, files: Files, told: str) -> None:
    path = write_tar(tmp_path / "x.tar", [*sample("a"), *files])
    with pytest.raises(DataError, match=rf"x.tar: (x.tar, )?{told}|{told}"):
        collect(webdataset(path))
    allowed = collect(webdataset(path, settings=SourceSettings(allow_errors=True)))
    assert "a" in images(allowed)
    assert allowed.report["faults"]["count"] == 1


def test_a_key_in_two_tars_is_named_with_both(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("a"))
    write_tar(tmp_path / "1.tar", sample("a"))
    with pytest.raises(DataError, match=r"1.tar, sample 'a': image 'a' was there before, in 0.tar"):
        collect(webdataset(tmp_path))


def test_a_tar_that_breaks_off_anywhere_is_named(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "x.tar", [*sample("a"), *sample("b")]).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for cut in (512, 700, 1024, end - 512, end - 100, end):
        (tmp_path / "x.tar").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"x.tar: (is damaged or )?breaks off"):
            collect(webdataset(tmp_path / "x.tar"))


def test_what_a_broken_tar_held_is_kept_where_errors_are_allowed(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "0.tar", [*sample("a"), *sample("b")]).read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[: len(whole.rstrip(b"\0")) - 600])
    write_tar(tmp_path / "1.tar", sample("c"))
    found = collect(webdataset(tmp_path, settings=SourceSettings(allow_errors=True)))
    assert list(images(found)) == ["a", "c"]
    assert found.report["faults"]["first"][0].startswith("0.tar: breaks off")


@pytest.mark.parametrize("data", [b"", b"not a tar at all" * 99, b"\x1f\x8b\x08 broken gzip"])
def test_what_is_no_tar_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"x.tar: (is no whole tar|could not be read)"):
        collect(webdataset(tmp_path / "x.tar"))


def test_a_compressed_tar_that_breaks_off_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    path = write_tar(tmp_path / "x.tar.gz", sample("a", npy=noise), "w:gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"x.tar.gz: (is damaged or )?breaks off"):
        collect(webdataset(path))


def test_a_name_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    with tarfile.open(
        tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as tar:
        tar.addfile(tarfile.TarInfo("f\xfcchs.jpg"), io.BytesIO())
    with pytest.raises(DataError, match=r"the name 'f\\udcfcchs.jpg' is no UTF-8 text"):
        collect(webdataset(tmp_path / "x.tar"))


def test_links_are_counted_and_lead_nowhere(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", sample("a"))
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = collect(webdataset(path))
    assert list(images(found)) == ["a"]
    assert found.report["links_left_out"] == 1


def test_a_name_never_leads_out_of_the_data_set(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", sample("../../b"))
    write_import(webdataset(path), tmp_path / "out")
    [file] = tmp_path.rglob("*.jpg")
    assert file.is_relative_to(tmp_path / "out" / "images")


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        webdataset(tmp_path / "x.tar")
    with pytest.raises(DataError, match="holds no tar"):
        webdataset(tmp_path)
    with pytest.raises(DataError, match="the images lie inside the tars"):
        webdataset(write_tar(tmp_path / "x.tar", []), tmp_path)
    with pytest.raises(DataError, match="holds no record that can be used"):
        collect(webdataset(tmp_path / "x.tar"))

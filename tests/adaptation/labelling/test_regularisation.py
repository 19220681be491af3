from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest

from palate.adaptation.examples import image_files
from palate.adaptation.labelling.label import LabelSettings, write_labels
from palate.adaptation.labelling.regularisation import read_regularisation
from palate.data.records import Image, Score
from palate.data.tables import read_table, to_table, write_table
from palate.errors import DataError
from palate.generation.generate import GenerateSettings, generate

PLAIN = LabelSettings(blur="none")


def fill(folder, count=2):
    """Write pictures into a folder; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        PIL.Image.fromarray(np.full((4, 6, 3), number, dtype=np.uint8)).save(folder / name)
    return names


def scored(folder):
    values = [25.0, 20.0, 20.0, 15.0]
    rows = [Score(f"{n}", "a", "hps", "overall", v, "hps", "f") for n, v in enumerate(values)]
    write_table(to_table(rows, "scores"), folder / "scores.parquet")
    names = fill(folder / "files", 4)
    images = [Image(f"{n}", "a", f"files/{name}") for n, name in enumerate(names)]
    write_table(to_table(images, "images"), folder / "images.parquet")
    return folder / "scores.parquet", folder


def captions(folder, way):
    """Give the pictures of a folder captions, in one of the ways that are read."""
    names = fill(folder)
    if way == "sidecars":
        for name in names:
            (folder / name).with_suffix(".txt").write_text(f"photo {name}\n")
    elif way == "prompts":
        lines = [{"image": name, "prompt": f"photo {name}"} for name in names]
        (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    elif way == "metadata":
        lines = [{"file_name": name, "text": f"photo {name}", "more": 1} for name in names]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    else:
        lines = [{"file_name": name, "caption": f"photo {name}"} for name in names]
        (folder / "regularization_images.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.parametrize("way", ["sidecars", "prompts", "metadata", "align_sd"])
def test_any_folder_with_captions_is_read(tmp_path, way):
    captions(tmp_path / "real", way)
    given = scored(tmp_path / "data")
    out = tmp_path / "labels"
    report = write_labels(*given, out, PLAIN, regularisation=tmp_path / "real")
    assert report["labels"] == {"preferred": 1, "rejected": 1, "regularisation": 2}
    rows = [
        row
        for row in read_table(out / "labels.parquet", "labels").to_pylist()
        if row["role"] == "regularisation"
    ]
    assert [(row["image"], row["caption"]) for row in rows] == [
        ("real/0.png", "photo 0.png"),
        ("real/1.png", "photo 1.png"),
    ]
    # what `adapt` is given: the data set of the others, and the labels' own folder
    files = image_files(tmp_path / "data", out)
    assert files["real/1.png"].path.resolve() == (tmp_path / "real" / "1.png").resolve()
    assert set(files) == {"0", "1", "2", "3", "real/0.png", "real/1.png"}


def test_generated_images_are_counted_as_such(tmp_path):
    given = scored(tmp_path / "data")
    names = fill(tmp_path / "made")
    rows = [Image(name, "a house", name, generator="sd14") for name in names]
    write_table(to_table(rows, "images"), tmp_path / "made" / "images.parquet")
    for place in (tmp_path / "made", tmp_path / "made" / "images.parquet"):
        report = write_labels(
            *given, tmp_path / "labels", PLAIN, regularisation=place, overwrite=True
        )
        assert report["regularisation"] == {
            "images": 2,
            "generated": 2,
            "thrown_away": {"marked as unsafe": 0, "marked as blurred": 0},
            "from": "data set",
        }


def test_the_base_model_may_make_them_from_captions(generator, tmp_path):
    settings = GenerateSettings(images_per_prompt=1, steps=2, run="own")
    generate(["a house", "a tree"], generator, tmp_path / "own", settings)
    scored_files = scored(tmp_path / "data")
    out = tmp_path / "labels"
    report = write_labels(*scored_files, out, PLAIN, regularisation=tmp_path / "own")
    assert report["regularisation"]["generated"] == 2
    labels = read_table(out / "labels.parquet", "labels").to_pylist()
    named = {row["caption"] for row in labels if row["role"] == "regularisation"}
    assert named == {"a house", "a tree"}
    assert {row["image"] for row in labels} <= set(image_files(tmp_path / "data", tmp_path / "own"))


def test_what_is_no_captioned_folder_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(DataError, match="does not exist, expected regularisation images"):
        read_regularisation(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image file"):
        read_regularisation(tmp_path / "empty")
    fill(tmp_path / "silent")
    with pytest.raises(DataError, match="has no prompt in a text file beside it"):
        read_regularisation(tmp_path / "silent")
    captions(tmp_path / "real", "sidecars")
    given = scored(tmp_path / "data")
    with pytest.raises(DataError, match=r"lies in the folder .*, which is read"):
        write_labels(*given, tmp_path / "real" / "out", PLAIN, regularisation=tmp_path / "real")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"file_name": "1.png"}, "has no 'caption'"),
        ({"file_name": "1.png", "caption": 3}, "caption is '3', expected a text"),
        ({"file_name": "", "caption": "a"}, "file_name is empty"),
        ({"file_name": "0.png", "caption": "a"}, "'0.png' was there before"),
        ({"file_name": "7.png", "caption": "a"}, "does not exist"),
    ],
)
def test_a_bad_caption_is_refused_by_its_number(tmp_path, line, fault):
    fill(tmp_path)
    path = tmp_path / "list.jsonl"
    lines = [{"file_name": "0.png", "caption": "a"}, line]
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match="line 2: ") as refused:
        read_regularisation(path)
    assert fault in str(refused.value)

"""align_sd's JSON Lines: read as labels, written byte for byte, bad lines refused by their number."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from palate.adaptation.labelling.align_sd import (
    Annotation,
    Caption,
    read_annotations,
    read_captions,
    write_annotations,
    write_captions,
)
from palate.adaptation.labelling.label import LabelSettings, write_labels
from palate.cli import label as cli
from palate.data.images import hash_image
from palate.data.records import Image, Score
from palate.data.tables import read_table, to_table, write_table
from palate.errors import DataError

PUBLISHED = LabelSettings(write_align_sd=True)


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(path)


def official(meta):
    """The lines of `select_training_images.py`, as it computes them, from those of the scores.

    It opens the images by their place in the data set; here, that place is all that is needed.
    """

    def softmax(scores):
        mean = sum(scores) / len(scores)
        exp = [np.exp(score - mean) for score in scores]
        return [one / sum(exp) for one in exp]

    prompts = defaultdict(list)
    for row in meta:
        if not row["blurry"]:
            prompts[row["prompt"]].append(row["id"])
    lines, counts, sources = [], {"positive": 0, "negative": 0}, []
    for prompt, ids in prompts.items():
        if len(ids) < 4:
            continue
        scores = [meta[i]["score"] for i in ids]
        for kind, probs in (
            ("positive", softmax(scores)),
            ("negative", softmax([-score for score in scores])),
        ):
            if max(probs) > 2 / len(probs):
                name = f"{kind}/{counts[kind]}.jpg"
                counts[kind] += 1
                sources.append(ids[probs.index(max(probs))])
                facts = {"id": sum(counts.values()), "file_name": name, "prompt": prompt}
                facts |= {"type": kind, "confidence": max(probs), "batch_size": len(probs)}
                lines.append(json.dumps(facts) + "\n")
    return lines, sources


def make_meta(count, seed=0):
    chance = np.random.default_rng(seed)
    return [
        {
            "id": number,
            "prompt": f"prompt {chance.integers(count // 8)}, “é”",
            # coarse steps, so that there are ties
            "score": 20 + float(chance.integers(-12, 12)) / 4,
            "blurry": bool(chance.random() < 0.1),
        }
        for number in range(count)
    ]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def release(tmp_path):
    """What align_sd's selection leaves behind: annotations, and JPEG files under their names."""
    lines, _ = official(make_meta(160))
    folder = tmp_path / "release"
    for number, line in enumerate(lines):
        picture(folder / json.loads(line)["file_name"], number)
    (folder / "annotation.jsonl").write_text("".join(lines))
    return folder / "annotation.jsonl"


def test_the_scores_of_align_sd_give_the_selection_of_align_sd(tmp_path):
    meta = make_meta(400)
    path = write_lines(tmp_path / "diffusiondb_hps.jsonl", meta)
    report = write_labels(path, None, tmp_path / "out")
    lines, sources = official(meta)
    wanted = {
        (f"{place:08}", "preferred" if '"positive"' in line else "rejected")
        for line, place in zip(lines, sources, strict=True)
    }
    table = read_table(tmp_path / "out" / "labels.parquet", "labels")
    found = set(zip(table["image"].to_pylist(), table["role"].to_pylist(), strict=True))
    assert found == wanted
    assert len(found) > 40
    assert report["thrown_away"]["blurry"] == sum(row["blurry"] for row in meta)
    assert report["images"] == 400


def test_annotations_come_back_byte_for_byte(release, tmp_path):
    rows = [row for _, row in read_annotations(release)]
    write_annotations(tmp_path / "again.jsonl", rows)
    assert (tmp_path / "again.jsonl").read_bytes() == release.read_bytes()
    assert len(rows) > 15


@given(
    st.lists(
        st.builds(
            Annotation,
            id=st.integers(),
            file_name=st.text(st.characters(codec="utf-8"), min_size=1),
            prompt=st.text(st.characters(codec="utf-8")),
            type=st.sampled_from(["positive", "negative"]),
            confidence=st.floats(0, 1, exclude_min=True),
            batch_size=st.integers(1, 2000),
        ),
        unique_by=lambda row: row.file_name,
    ),
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))
    ),
)
def test_what_is_written_is_read_again(tmp_path_factory, rows, captions):
    folder = tmp_path_factory.getbasetemp()
    write_annotations(folder / "a.jsonl", rows)
    assert [row for _, row in read_annotations(folder / "a.jsonl")] == rows
    listed = [Caption(*pair) for pair in captions.items()]
    write_captions(folder / "c.jsonl", listed)
    assert [row for _, row in read_captions(folder / "c.jsonl")] == listed


def test_annotations_become_labels_with_their_pictures(release, tmp_path):
    out = tmp_path / "out"
    report = write_labels(release, None, out)
    lines = [json.loads(line) for line in release.read_text().splitlines()]
    assert report["rule"] == "as annotated"
    assert report["images"] == len(lines)
    rows = read_table(out / "labels.parquet", "labels").to_pylist()
    assert {(row["image"], row["role"], row["caption"], row["weight"]) for row in rows} == {
        (
            one["file_name"],
            {"positive": "preferred", "negative": "rejected"}[one["type"]],
            one["prompt"],
            1.0,
        )
        for one in lines
    }
    images = read_table(out / "images.parquet", "images").to_pylist()
    for row, one in zip(images, lines, strict=True):
        file = release.parent / one["file_name"]
        assert (out / row["path"]).resolve() == file.resolve()
        assert (row["sha256"], row["width"], row["height"]) == (hash_image(file), 8, 8)
        assert json.loads(row["details"]) == {
            "confidence": one["confidence"],
            "batch_size": one["batch_size"],
        }


def test_the_command_takes_them_without_a_table_of_images(release, tmp_path):
    app = typer.Typer()
    app.command()(cli.label)
    words = [
        str(release),
        "--out",
        str(tmp_path / "out"),
        "--write-align-sd",
        "--rejected-share",
        "0",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (result.output, result.exception)
    rows = [row for _, row in read_annotations(release)]
    good, bad = (sum(row.type == kind for row in rows) for kind in ("positive", "negative"))
    assert [line.rsplit(maxsplit=1) for line in result.stdout.splitlines()[:5]] == [
        ["outcome", "images"],
        ["preferred", str(good)],
        ["rejected", "0"],
        ["thrown away: left out by rejected_share", str(bad)],
        ["all images", str(good + bad)],
    ]
    written = [row for _, row in read_annotations(tmp_path / "out" / "annotation.jsonl")]
    assert [row.prompt for row in written] == [r.prompt for r in rows if r.type == "positive"]


def test_annotations_may_be_halved_as_the_authors_halved_them(release, tmp_path):
    half = LabelSettings(rejected_share=0.5, write_align_sd=True)
    report = write_labels(release, None, tmp_path / "out", half)
    every = write_labels(release, None, tmp_path / "every")["labels"]
    assert report["labels"]["preferred"] == every["preferred"]
    assert report["labels"]["rejected"] == round(every["rejected"] / 2)
    left = report["thrown_away"]["left out by rejected_share"]
    assert report["labels"]["rejected"] + left == every["rejected"]
    written = [row for _, row in read_annotations(tmp_path / "out" / "annotation.jsonl")]
    assert [row.id for row in written] == list(range(1, len(written) + 1))
    assert len(written) == sum(report["labels"].values())
    lines = release.read_text().splitlines(keepends=True)
    turned = release.with_name("turned.jsonl")
    turned.write_text("".join(reversed(lines)))
    write_labels(turned, None, tmp_path / "turned", half)
    tables = [
        read_table(tmp_path / name / "labels.parquet", "labels") for name in ("out", "turned")
    ]
    assert tables[0].equals(tables[1])


@pytest.fixture
def dataset(tmp_path):
    """A data set of forty images with scores, and its scores."""
    chance = np.random.default_rng(3)
    folder = tmp_path / "data"
    scores, images = [], []
    for number in range(40):
        key, prompt = f"key {number:02}", f"prompt {number % 8}"
        picture(folder / "images" / f"{number}.png", number)
        images.append(Image(key, prompt, f"images/{number}.png"))
        value = float(chance.normal(20, 3))
        scores.append(Score(key, prompt, "hps", "overall", value, "hps", "f"))
    write_table(to_table(images, "images"), folder / "images.parquet")
    write_table(to_table(scores, "scores"), folder / "scores.parquet")
    return folder


def test_labels_come_back_from_annotations(dataset, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    report = write_labels(dataset / "scores.parquet", dataset, first, PUBLISHED)
    assert report["labels"]["preferred"] > 3
    assert report["labels"]["rejected"] > 3
    write_labels(first / "annotation.jsonl", dataset, again, PUBLISHED)
    before, after = (read_table(out / "labels.parquet", "labels") for out in (first, again))
    # the score is the one thing that align_sd's annotations do not hold
    assert after.drop_columns("score").equals(before.drop_columns("score"))
    assert after["score"].null_count == len(after)
    names = [
        [row for _, row in read_annotations(out / "annotation.jsonl")] for out in (first, again)
    ]
    assert names[0] == names[1]
    assert not (again / "images.parquet").exists()


def test_the_annotations_hold_the_probability_that_was_compared(dataset, tmp_path):
    write_labels(dataset / "scores.parquet", dataset, tmp_path / "out", PUBLISHED)
    scores = read_table(dataset / "scores.parquet", "scores").to_pylist()
    meta = [
        {"id": n, "prompt": row["prompt"], "score": row["value"], "blurry": False}
        for n, row in enumerate(scores)
    ]
    wanted, sources = official(meta)
    expected = {
        (row["prompt"], row["type"]): (row["confidence"], row["batch_size"], place)
        for row, place in zip(map(json.loads, wanted), sources, strict=True)
    }
    rows = [row for _, row in read_annotations(tmp_path / "out" / "annotation.jsonl")]
    assert {(row.prompt, row.type) for row in rows} == expected.keys()
    for row in rows:
        confidence, size, place = expected[row.prompt, row.type]
        assert row.confidence == pytest.approx(confidence, rel=1e-12)
        assert row.batch_size == size
        assert Path(row.file_name) == dataset.resolve() / "images" / f"{place}.png"


def test_regularisation_images_are_written_and_read_as_align_sd_has_them(dataset, tmp_path):
    for number in range(3):
        picture(tmp_path / "real" / f"{number}.jpg", 100 + number)
        (tmp_path / "real" / f"{number}.txt").write_text(f"photo {number}")
    first, again = tmp_path / "first", tmp_path / "again"
    given = (dataset / "scores.parquet", dataset)
    write_labels(*given, first, PUBLISHED, regularisation=tmp_path / "real")
    lines = [row for _, row in read_captions(first / "regularization_images.jsonl")]
    assert [row.caption for row in lines] == ["photo 0", "photo 1", "photo 2"]
    listed = first / "regularization_images.jsonl"
    report = write_labels(*given, again, PUBLISHED, regularisation=listed)
    assert report["regularisation"]["from"] == "list of captions"
    assert (again / listed.name).read_bytes() == listed.read_bytes()


GOOD = {
    "id": 1,
    "file_name": "positive/0.jpg",
    "prompt": "a cat",
    "type": "positive",
    "confidence": 0.75,
    "batch_size": 4,
}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"type": "neutral"}, "type is 'neutral', expected 'positive' or 'negative'"),
        ({"confidence": 1.5}, "confidence is 1.5, expected above 0 and at most 1"),
        ({"confidence": "high"}, "confidence is 'high', expected a number"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"batch_size": 4.0}, "batch_size is '4.0', expected a whole number"),
        ({"file_name": ""}, "file_name is empty"),
        ({"prompt": None}, "prompt is 'None', expected a text"),
        ({"prompt": "\ud800"}, "holds half a character"),
        ({"more": 1}, "has the unknown key 'more'"),
        ({}, "'positive/0.jpg' was there before"),
        ({"file_name": "positive/9.jpg"}, "positive/9.jpg: does not exist"),
    ],
)
def test_a_bad_annotation_is_refused_by_its_number(tmp_path, change, fault):
    picture(tmp_path / "positive" / "0.jpg", 0)
    picture(tmp_path / "positive" / "1.jpg", 1)
    second = GOOD | {"file_name": "positive/1.jpg"} | change if change else GOOD
    path = write_lines(tmp_path / "annotation.jsonl", [GOOD, second])
    with pytest.raises(DataError, match="line 2: ") as refused:
        write_labels(path, None, tmp_path / "out")
    assert fault in str(refused.value)
    assert not (tmp_path / "out" / "labels.parquet").exists()


def test_a_line_that_is_cut_off_is_refused_by_its_number(tmp_path):
    picture(tmp_path / "positive" / "0.jpg", 0)
    path = write_lines(tmp_path / "annotation.jsonl", [GOOD])
    path.write_text(path.read_text() + '{"id": 2, "file_na')
    with pytest.raises(DataError, match="line 2: is no valid JSON"):
        write_labels(path, None, tmp_path / "out")


def test_a_file_that_the_table_does_not_know_is_refused_by_its_number(dataset, tmp_path):
    picture(tmp_path / "positive" / "0.jpg", 0)
    path = write_lines(tmp_path / "annotation.jsonl", [GOOD])
    with pytest.raises(DataError, match=r"line 1: .* is the file of no image in the table"):
        write_labels(path, dataset, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"blurry": "no"}, "blurry is 'no', expected true or false"),
        ({"id": 0}, "'00000000' was there before"),
        ({"id": -1}, "id is -1, expected a place from 0 on"),
        ({"score": None}, "score is 'None', expected a number"),
        ({"prompt": "\udc00"}, "holds half a character"),
    ],
)
def test_a_bad_score_is_refused_by_its_number(tmp_path, change, fault):
    rows = make_meta(8)
    rows[5] |= change
    path = write_lines(tmp_path / "scores.jsonl", rows)
    with pytest.raises(DataError, match="line 6: ") as refused:
        write_labels(path, None, tmp_path / "out")
    assert fault in str(refused.value)


@pytest.mark.parametrize("text", ["", "\n", '{"a": 1}\n'])
def test_other_lines_are_refused(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match="expected align_sd's annotations"):
        write_labels(tmp_path / "a.jsonl", None, tmp_path / "out")


def test_what_is_recorded_as_blurry_must_be_recorded_of_every_image(dataset, tmp_path):
    with pytest.raises(DataError, match="no detail 'blurry', true or false"):
        write_labels(
            dataset / "scores.parquet", dataset, tmp_path / "out", LabelSettings(blur="recorded")
        )
    images = read_table(dataset / "images.parquet", "images")
    blurry = [json.dumps({"blurry": n < 10}) for n in range(len(images))]
    place = images.schema.get_field_index("details")
    field = images.schema.field(place)
    write_table(images.set_column(place, field, pa.array(blurry)), dataset / "images.parquet")
    report = write_labels(
        dataset / "scores.parquet", dataset, tmp_path / "new", LabelSettings(blur="recorded")
    )
    assert report["thrown_away"]["blurry"] == 10

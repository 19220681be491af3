from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from palate.adaptation.labelling.label import LabelSettings, label, write_labels
from palate.cli import label as cli
from palate.data.records import Image, Score
from palate.data.tables import read_table, to_table, write_table
from palate.errors import DataError, SettingsError


def tables(groups, unit="hps"):
    """Tables of scores and images, from the values of each prompt's images."""
    scores, images = [], []
    for prompt, values in groups.items():
        for number, value in enumerate(values):
            key = f"{prompt}/{number:02}"
            error = "unreadable" if value is None else None
            scores.append(Score(key, prompt, "hps", "overall", value, unit, "f", error=error))
            images.append(Image(key, prompt))
    return to_table(scores, "scores"), to_table(images, "images")


def choose(scores, images, **given):
    """Label by the paper's rule, or by other settings, without looking at files for blur."""
    folder, extra = given.pop("folder", None), given.pop("regularisation", None)
    settings = LabelSettings(**{"blur": "none"} | given)
    return label(scores, images, settings, folder=folder, regularisation=extra)


def roles(table):
    return {
        role: sorted(table.filter(pc.equal(table["role"], role))["image"].to_pylist())
        for role in ("preferred", "rejected", "regularisation")
    }


def official(groups):
    """The selection of align_sd's `select_training_images.py`, line by line."""

    def softmax(scores):
        mean = sum(scores) / len(scores)
        exp = [np.exp(score - mean) for score in scores]
        return [one / sum(exp) for one in exp]

    found = defaultdict(list)
    for prompt, scores in groups.items():
        if len(scores) < 4:
            continue
        for role, probs in (
            ("preferred", softmax(scores)),
            ("rejected", softmax([-score for score in scores])),
        ):
            if max(probs) > 2 / len(probs):
                found[role].append(f"{prompt}/{probs.index(max(probs)):02}")
    return {role: sorted(found[role]) for role in ("preferred", "rejected")}


GROUPS = st.dictionaries(
    st.text("abcdefg", min_size=1, max_size=3),
    # steps of a quarter, far from each other's rounding, with ties
    st.lists(st.integers(-16, 16).map(lambda value: 20 + value / 4), min_size=1, max_size=12),
    max_size=12,
)


@given(GROUPS)
def test_the_rule_is_the_official_one(groups):
    table, report = choose(*tables(groups))
    found = roles(table)
    assert {role: found[role] for role in ("preferred", "rejected")} == official(groups)
    kept = sum(report["labels"].values())
    assert kept + sum(report["thrown_away"].values()) == sum(map(len, groups.values()))


@given(GROUPS, st.floats(-500, 500))
def test_adding_a_number_to_all_scores_of_a_prompt_changes_nothing(groups, shift):
    moved = {prompt: [value + round(shift) for value in group] for prompt, group in groups.items()}
    assert roles(choose(*tables(moved))[0]) == roles(choose(*tables(groups))[0])


@given(GROUPS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(groups, chance):
    scores, images = tables(groups)
    order = list(range(len(scores)))
    chance.shuffle(order)
    table, report = choose(scores, images)
    mixed = pa.array(order, pa.int64())
    other, other_report = choose(scores.take(mixed), images.take(mixed[::-1]))
    assert other.equals(table)
    assert other_report == report


@given(GROUPS)
def test_a_cosine_is_the_same_as_its_hundredfold(groups):
    cosines = {prompt: [value / 100 for value in group] for prompt, group in groups.items()}
    assert roles(choose(*tables(cosines, unit="cosine"))[0]) == roles(choose(*tables(groups))[0])


def test_a_smaller_scale_asks_for_larger_differences():
    groups = {"a": [22.0, 20.0, 20.0, 20.0]}
    assert roles(choose(*tables(groups))[0])["preferred"] == ["a/00"]
    assert roles(choose(*tables(groups), scale=20.0)[0])["preferred"] == []


def test_exactly_the_threshold_is_not_enough():
    # two images a distance apart, two at minus infinity for all purposes: p = 1/2 = 2/4
    groups = {"a": [1000.0, 1000.0, 0.0, 0.0]}
    table, report = choose(*tables(groups))
    assert len(table) == 0
    assert report["prompts"]["with neither"] == 1


def test_every_image_that_is_thrown_away_is_counted_with_its_reason():
    groups = {
        "both": [25.0, 20.0, 20.0, 15.0],
        "neither": [20.0, 20.1, 20.2, 20.3],
        "best": [25.0, 20.0, 20.0, 20.0, 20.0],
        "small": [25.0, 15.0, 10.0],
        "errors": [25.0, None, 10.0, 12.0],
    }
    table, report = choose(*tables(groups))
    assert roles(table)["preferred"] == ["best/00", "both/00"]
    assert roles(table)["rejected"] == ["both/03"]
    assert report["images"] == 20
    assert report["thrown_away"] == {
        "not scored": 0,
        "no score": 1,
        "marked as unsafe": 0,
        "marked as blurred": 0,
        "blurry": 0,
        "prompt with fewer than 4 images": 6,
        "best, but not clearly": 1,
        "worst, but not clearly": 2,
        "neither best nor worst": 7,
        "left out by preferred_share": 0,
        "left out by rejected_share": 0,
    }
    assert report["prompts"] == {
        "compared": 3,
        "with both": 1,
        "with a preferred image only": 1,
        "with a rejected image only": 0,
        "with neither": 1,
    }
    row = table.filter(pc.equal(table["image"], "both/03")).to_pylist()[0]
    assert (row["caption"], row["group"], row["score"], row["weight"]) == (
        "both",
        "both",
        15.0,
        1.0,
    )


@pytest.mark.parametrize("role", ["preferred", "rejected"])
def test_a_share_is_drawn_by_seed_whatever_the_order(role):
    chance = np.random.default_rng(1)
    scores, images = tables({f"{n:03}": list(chance.normal(20, 2, 5)) for n in range(100)})
    every = roles(choose(scores, images)[0])
    half = {f"{role}_share": 0.5}
    table, report = choose(scores, images, **half)
    other = "rejected" if role == "preferred" else "preferred"
    assert roles(table)[other] == every[other]
    assert set(roles(table)[role]) < set(every[role])
    assert report["labels"][role] == round(len(every[role]) / 2)
    left = report["thrown_away"][f"left out by {role}_share"]
    assert report["labels"][role] + left == len(every[role])
    turned = scores.take(pa.array(range(len(scores) - 1, -1, -1)))
    assert choose(turned, images, **half)[0].equals(table)
    assert roles(choose(scores, images, **half, seed=1)[0])[role] != roles(table)[role]
    most = choose(scores, images, **{f"{role}_share": 0.7})[0]
    assert set(roles(table)[role]) < set(roles(most)[role])
    assert roles(choose(scores, images, **{f"{role}_share": 0.0})[0])[role] == []


def test_regularisation_images_come_with_their_prompts():
    scores, images = tables({"a": [25.0, 20.0, 20.0, 15.0]})
    extra = to_table([Image("x", "a house"), Image("y", "a tree")], "images")
    table, report = choose(scores, images, regularisation=extra)
    assert roles(table)["regularisation"] == ["x", "y"]
    assert report["labels"] == {"preferred": 1, "rejected": 1, "regularisation": 2}
    rows = table.filter(pc.equal(table["role"], "regularisation")).to_pylist()
    assert [row["caption"] for row in rows] == ["a house", "a tree"]


@pytest.mark.parametrize(("blur", "left"), [("published", 2), ("both-ways", 1)])
def test_blurry_images_are_left_out_before_prompts_are_counted(tmp_path, blur, left):
    draw = np.random.default_rng(0)
    groups = {"flat": [25.0, 20.0, 20.0, 15.0], "lines": [25.0, 20.0, 20.0, 15.0]}
    groups["sharp"] = [25.0, 20.0, 20.0, 15.0]
    scores, images = tables(groups)
    pictures = {"flat": np.full((8, 8, 3), 9), "sharp": draw.integers(0, 256, (8, 8, 3))}
    pictures["lines"] = np.repeat(draw.integers(0, 2, (8, 1, 1)) * 200, 24, axis=1).reshape(8, 8, 3)
    pictures["lines"][0] = 200 - pictures["lines"][1]
    for name, picture in pictures.items():
        PIL.Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{name}.png")
    rows = [
        Image(row["image"], row["prompt"], f"{row['prompt']}.png") for row in images.to_pylist()
    ]
    table, report = label(
        scores, to_table(rows, "images"), LabelSettings(blur=blur), folder=tmp_path
    )
    assert report["thrown_away"]["blurry"] == 4 * left
    assert len(roles(table)["preferred"]) == 3 - left


def test_no_scores_give_no_labels():
    table, report = choose(*tables({}))
    assert len(table) == 0
    assert report["labels"] == {"preferred": 0, "rejected": 0, "regularisation": 0}


def test_what_cannot_be_labelled_is_refused_in_a_sentence():
    scores, images = tables({"a": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(DataError, match="4 images that the images table does not have"):
        choose(scores, to_table([], "images"))
    with pytest.raises(DataError, match="unit 'logit', expected 'cosine', 'hps'"):
        choose(*tables({"a": [1.0, 2.0]}, unit="logit"))
    two = pa.concat_tables(
        [scores, scores.set_column(2, scores.schema.field(2), pa.array(["other"] * 4))]
    )
    with pytest.raises(DataError, match="several values of scorer"):
        choose(two, images)
    assert len(choose(two, images, scorer="hps")[0]) > 0
    with pytest.raises(DataError, match="no scorer 'mps', there is 'hps'"):
        choose(scores, images, scorer="mps")
    with pytest.raises(DataError, match="needs the folder"):
        label(scores, images)
    with pytest.raises(DataError, match=r"4 images have no file .* --blur none leaves it out"):
        label(scores, images, folder=Path())
    prompts = pa.array(["other"] * 4)
    twice = pa.concat_tables([scores, scores.set_column(1, scores.schema.field(1), prompts)])
    with pytest.raises(
        DataError, match="4 images were scored with several prompts, such as 'a/00'"
    ):
        choose(twice, images)
    for wrong in (
        {"alpha": 0.5},
        {"min_images": 1},
        {"scale": 0.0},
        {"rejected_share": 1.5},
        {"preferred_share": -0.1},
        {"nsfw_below": 0.0},
    ):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            LabelSettings(**wrong)
    with pytest.raises(SettingsError, match=r"alpha is 4\.0, expected below min_images, 4"):
        LabelSettings(rule="corrected", alpha=4.0)


def test_the_verb_writes_labels_the_report_and_every_outcome(tmp_path):
    scores, images = tables({"a": [25.0, 20.0, 20.0, 15.0], "b, c": [1.0]})
    write_table(scores, tmp_path / "scores.parquet")
    write_table(images, tmp_path / "images.parquet")
    out = tmp_path / "labels"
    asked = (tmp_path / "scores.parquet", tmp_path, out, LabelSettings(blur="none"))
    report = write_labels(*asked, regularisation=tmp_path)
    table = read_table(out / "labels.parquet", "labels")
    assert table.equals(choose(scores, images, regularisation=images)[0])
    assert json.loads((out / "run.json").read_text())["result"] == report
    assert report["labels"]["regularisation"] == 5
    assert report["regularisation"]["from"] == "data set"
    assert not (out / "images.parquet").exists()
    with (out / "outcomes.csv").open(newline="") as file:
        assert [tuple(row.values()) for row in csv.DictReader(file)] == [
            ("a/00", "a", "25", "preferred"),
            ("a/01", "a", "20", "neither best nor worst"),
            ("a/02", "a", "20", "neither best nor worst"),
            ("a/03", "a", "15", "rejected"),
            ("b, c/00", "b, c", "1", "prompt with fewer than 4 images"),
        ]
    assert write_labels(*asked, regularisation=tmp_path) == report


def test_a_scores_table_needs_its_images(tmp_path):
    write_table(tables({"a": [1.0]})[0], tmp_path / "scores.parquet")
    with pytest.raises(DataError, match="needs the table of its images; give it as --images"):
        write_labels(tmp_path / "scores.parquet", None, tmp_path / "labels")


def test_the_command_prints_a_table_whose_counts_add_up(tmp_path):
    groups = {"a": [25.0, 20.0, 20.0, 15.0], "b": [25.0, None]}
    scores, images = tables(groups)
    write_table(scores, tmp_path / "scores.parquet")
    more = to_table([Image("new", "a")], "images")
    write_table(pa.concat_tables([images, more]), tmp_path / "images.parquet")
    asked = [str(tmp_path / "scores.parquet"), "--images", str(tmp_path), "--blur", "none", "--out"]
    said = run(*asked, str(tmp_path / "labels"), "--rule", "corrected")
    lines = [line.rsplit(maxsplit=1) for line in said.splitlines()[1:-1]]
    counts = {name.strip(): int(count) for name, count in lines}
    assert counts == {
        "preferred": 1,
        "rejected": 1,
        "thrown away: not scored": 1,
        "thrown away: no score": 1,
        "thrown away: prompt with fewer than 4 images": 1,
        "thrown away: neither best nor worst": 2,
        "all images": 7,
    }
    assert sum(counts.values()) == 2 * counts["all images"]
    report = json.loads(run(*asked, str(tmp_path / "json"), "--json"))
    assert sum(report["thrown_away"].values()) == 5


def run(*words):
    """What `palate label` prints."""
    app = typer.Typer()
    app.command()(cli.label)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_a_hundred_thousand_images_are_compared_prompt_by_prompt():
    draw = np.random.default_rng(0)
    count = 100_000
    prompts = pa.array([f"prompt {n % 20_000}" for n in range(count)])
    keys = pa.array([f"image {n}" for n in range(count)])
    scores, images = tables({"a": [1.0]})
    columns = {"image": keys, "prompt": prompts, "value": pa.array(draw.normal(20, 1, count))}
    for name, kind in (("scorer", "hps"), ("dimension", "overall"), ("unit", "hps")):
        columns[name] = pa.array([kind] * count)
    columns["fingerprint"] = pa.array(["f"] * count)
    full = [columns.get(field.name, pa.nulls(count, field.type)) for field in scores.schema]
    many = pa.table(full, schema=scores.schema)
    known = [columns.get(field.name, pa.nulls(count, field.type)) for field in images.schema]
    _, report = choose(many, pa.table(known, schema=images.schema))
    assert report["prompts"]["compared"] == 20_000

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.adaptation.label import LabelSettings, label, write_labels
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
    table, report = label(*tables(groups))
    found = roles(table)
    assert {role: found[role] for role in ("preferred", "rejected")} == official(groups)
    kept = sum(report["labels"].values())
    assert kept + sum(report["thrown_away"].values()) == sum(map(len, groups.values()))


@given(GROUPS, st.floats(-500, 500))
def test_adding_a_number_to_all_scores_of_a_prompt_changes_nothing(groups, shift):
    moved = {prompt: [value + round(shift) for value in group] for prompt, group in groups.items()}
    assert roles(label(*tables(moved))[0]) == roles(label(*tables(groups))[0])


@given(GROUPS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(groups, chance):
    scores, images = tables(groups)
    order = list(range(len(scores)))
    chance.shuffle(order)
    table, report = label(scores, images)
    other, other_report = label(scores.take(pa.array(order, pa.int64())), images)
    assert other.equals(table)
    assert other_report == report


@given(GROUPS)
def test_a_cosine_is_the_same_as_its_hundredfold(groups):
    cosines = {prompt: [value / 100 for value in group] for prompt, group in groups.items()}
    assert roles(label(*tables(cosines, unit="cosine"))[0]) == roles(label(*tables(groups))[0])


def test_a_smaller_scale_asks_for_larger_differences():
    groups = {"a": [22.0, 20.0, 20.0, 20.0]}
    assert roles(label(*tables(groups))[0])["preferred"] == ["a/00"]
    gentle = LabelSettings(scale=20.0)
    assert roles(label(*tables(groups), gentle)[0])["preferred"] == []


def test_the_threshold_means_less_the_more_images_there_are():
    """A published defect, kept: 2 / n lets nearly every large group pass (`adapt.md`, 1.3)."""
    draw = np.random.default_rng(0)
    rates = {}
    for size in (4, 16):
        groups = {f"{n:04}": list(draw.normal(20, 1, size)) for n in range(700)}
        rates[size] = label(*tables(groups))[1]["by_group_size"][str(size)]["best passes"]
    assert rates[4] == pytest.approx(0.48, abs=0.06)
    assert rates[16] == pytest.approx(0.987, abs=0.015)


def test_exactly_the_threshold_is_not_enough():
    # two images a distance apart, two at minus infinity for all purposes: p = 1/2 = 2/4
    groups = {"a": [1000.0, 1000.0, 0.0, 0.0]}
    table, report = label(*tables(groups))
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
    table, report = label(*tables(groups))
    assert roles(table)["preferred"] == ["best/00", "both/00"]
    assert roles(table)["rejected"] == ["both/03"]
    assert report["thrown_away"] == {
        "no score": 1,
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


def test_a_share_is_drawn_by_seed_whatever_the_order():
    draw = np.random.default_rng(1)
    scores, images = tables({f"{n:03}": list(draw.normal(20, 2, 5)) for n in range(100)})
    every = roles(label(scores, images)[0])
    half = LabelSettings(rejected_share=0.5)
    table, report = label(scores, images, half)
    assert roles(table)["preferred"] == every["preferred"]
    assert set(roles(table)["rejected"]) < set(every["rejected"])
    assert report["labels"]["rejected"] == round(len(every["rejected"]) / 2)
    turned = scores.take(pa.array(range(len(scores) - 1, -1, -1)))
    assert label(turned, images, half)[0].equals(table)
    other = LabelSettings(rejected_share=0.5, seed=1)
    assert roles(label(scores, images, other)[0]) != roles(table)


def test_regularisation_images_come_with_their_prompts():
    scores, images = tables({"a": [25.0, 20.0, 20.0, 15.0]})
    extra = to_table([Image("x", "a house"), Image("y", "a tree")], "images")
    table, report = label(scores, images, regularisation=extra)
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
    table, report = label(*tables({}))
    assert len(table) == 0
    assert report["labels"] == {"preferred": 0, "rejected": 0, "regularisation": 0}


def test_what_cannot_be_labelled_is_refused_in_a_sentence():
    scores, images = tables({"a": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(DataError, match="4 images that the images table does not have"):
        label(scores, to_table([], "images"))
    with pytest.raises(DataError, match="unit 'logit', expected 'cosine', 'hps'"):
        label(*tables({"a": [1.0, 2.0]}, unit="logit"))
    two = pa.concat_tables(
        [scores, scores.set_column(2, scores.schema.field(2), pa.array(["other"] * 4))]
    )
    with pytest.raises(DataError, match="several values of scorer"):
        label(two, images)
    assert len(label(two, images, LabelSettings(scorer="hps"))[0]) > 0
    with pytest.raises(DataError, match="no scorer 'mps', there is 'hps'"):
        label(scores, images, LabelSettings(scorer="mps"))
    with pytest.raises(DataError, match="needs the folder"):
        label(scores, images, LabelSettings(blur="published"))
    for wrong in ({"alpha": 0.5}, {"min_images": 1}, {"scale": 0.0}, {"rejected_share": 1.5}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            LabelSettings(**wrong)


def test_the_verb_writes_labels_and_the_report(tmp_path):
    scores, images = tables({"a": [25.0, 20.0, 20.0, 15.0]})
    write_table(scores, tmp_path / "scores.parquet")
    write_table(images, tmp_path / "images.parquet")
    out = tmp_path / "labels"
    report = write_labels(tmp_path / "scores.parquet", tmp_path, out, regularisation=tmp_path)
    table = read_table(out / "labels.parquet", "labels")
    assert table.equals(label(scores, images, regularisation=images)[0])
    assert json.loads((out / "run.json").read_text())["result"] == report
    assert report["labels"]["regularisation"] == 4
    assert (
        write_labels(tmp_path / "scores.parquet", tmp_path, out, regularisation=tmp_path) == report
    )


def test_a_hundred_thousand_images_take_a_moment():
    import time

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
    start = time.process_time()
    _, report = label(many, pa.table(known, schema=images.schema))
    assert time.process_time() - start < 5
    assert report["prompts"]["compared"] == 20_000

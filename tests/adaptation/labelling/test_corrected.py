"""The corrected rule: one threshold for every size of group, and marks that are honoured."""

from __future__ import annotations

import math

import numpy as np
import PIL.Image
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from palate.adaptation.labelling.label import LabelSettings, label
from palate.adaptation.labelling.selection import Groups, pick_extreme
from palate.data.records import Image, Score, json_text
from palate.data.tables import to_table
from palate.errors import DataError


def choose(groups, details=None, **given):
    """Roles by image, and the report, from the scores (HPS) of each prompt's images."""
    scores, images = [], []
    for prompt, values in groups.items():
        for number, value in enumerate(values):
            key = f"{prompt}/{number:02}"
            scores.append(Score(key, prompt, "hps", "overall", float(value), "hps", "f"))
            images.append(Image(key, prompt, details=json_text((details or {}).get(key, {}))))
    settings = LabelSettings(**{"rule": "corrected", "blur": "none"} | given)
    table, report = label(to_table(scores, "scores"), to_table(images, "images"), settings)
    return dict(zip(table["image"].to_pylist(), table["role"].to_pylist(), strict=True)), report


def slowly(groups, alpha=2.0, size=4):
    """The rule in so many words: the best against its three nearest rivals, and the worst likewise."""
    found = {}
    for prompt, values in groups.items():
        if len(values) < size:
            continue
        for sign, role in ((1, "preferred"), (-1, "rejected")):
            logits = [sign * value for value in values]
            compared = sorted(logits, reverse=True)[:size]
            total = math.fsum(math.exp(one - compared[0]) for one in compared)
            if 1 / total > alpha / size:
                found[f"{prompt}/{logits.index(compared[0]):02}"] = role
    return found


QUARTERS = st.integers(-16, 16).map(lambda value: 20 + value / 4)
GROUPS = st.dictionaries(
    st.text("abcd", min_size=1, max_size=3), st.lists(QUARTERS, min_size=1, max_size=12), max_size=8
)


@given(GROUPS)
def test_the_rule_is_what_it_says(groups):
    found, report = choose(groups)
    assert found == slowly(groups)
    kept = sum(report["labels"].values())
    assert kept + sum(report["thrown_away"].values()) == report["images"]
    assert report["images"] == sum(map(len, groups.values()))


@given(st.lists(QUARTERS, min_size=4, max_size=4))
def test_with_as_many_images_as_a_prompt_needs_it_is_the_papers_rule(values):
    assert choose({"a": values})[0] == choose({"a": values}, rule="hps2023")[0]


@given(st.lists(QUARTERS, min_size=4, max_size=12), QUARTERS)
def test_an_image_that_is_no_near_rival_changes_nothing(values, further):
    assume(further < sorted(values)[-4])
    found = {key: role for key, role in choose({"a": values})[0].items() if role == "preferred"}
    more = choose({"a": [*values, further]})[0]
    assert {key: role for key, role in more.items() if role == "preferred"} == found


@given(st.lists(QUARTERS, min_size=4, max_size=12), QUARTERS)
def test_another_image_never_makes_the_best_clearer(values, further):
    assume(further <= max(values))
    before = "preferred" in choose({"a": values})[0].values()
    assert before or "preferred" not in choose({"a": [*values, further]})[0].values()


def test_the_published_rule_breaks_that_law():
    """A fifth image that nobody wants makes the best of four pass; by the corrected rule it does not."""
    four = [21.0, 20.0, 20.0, 20.0]
    for values, published in ((four, {}), ([*four, 0.0], {"a/00": "preferred"})):
        found = choose({"a": values}, rule="hps2023")[0]
        assert {key: role for key, role in found.items() if role == "preferred"} == published
        assert "preferred" not in choose({"a": values})[0].values()


@pytest.mark.parametrize(
    ("size", "published", "corrected"), [(4, 0.48, 0.48), (8, 0.85, 0.27), (16, 0.99, 0.17)]
)
def test_large_groups_are_no_longer_let_through(size, published, corrected):
    """How many pass of independent normal scores with a deviation of 1, as the page says."""
    count = 4000
    values = np.random.default_rng(size).normal(20, 1, size * count)
    rows = np.arange(size * count)
    sizes = np.full(count, size)
    groups = Groups([], [], values, rows, rows[::size], sizes, rows[:0])
    for nearest, share in ((None, published), (4, corrected)):
        passed = pick_extreme(groups, values, 2.0, nearest).passed
        assert passed.mean() == pytest.approx(share, abs=0.025)


def test_marked_images_are_left_out_before_prompts_are_counted():
    four = [25.0, 20.0, 20.0, 15.0]
    groups = {"nsfw": four, "prompt": four, "host": four, "list": four, "safe": four, "black": four}
    details = {
        "nsfw/00": {"image_nsfw": 0.5, "prompt_nsfw": 0.1},
        "prompt/00": {"prompt_nsfw": 0.9},
        "host/00": {"image_nsfw": 2.0, "blurred": True},
        "list/00": {"nsfw": [0.1, 0.8]},
        "safe/00": {"image_nsfw": 0.49, "blurred": False, "nsfw": False},
        "black/00": {"flagged": True},
    }
    found, report = choose(groups, details)
    assert found == {"safe/00": "preferred", "safe/03": "rejected"}
    assert report["thrown_away"]["marked as unsafe"] == 4
    assert report["thrown_away"]["marked as blurred"] == 1
    assert report["thrown_away"]["prompt with fewer than 4 images"] == 15
    assert report["images with a mark"] == 6
    kept = choose(groups, details, marked="keep")[0]
    assert kept == choose(groups)[0]
    assert choose(groups, details, rule="hps2023", marked="leave-out")[0] == found
    assert "host/00" not in choose(groups, details, nsfw_below=1.0)[0]
    assert "prompt/00" in choose(groups, details, nsfw_below=0.95)[0]


def test_a_mark_that_says_nothing_is_refused():
    for value in ("yes", {"a": 1}, [], ["no"]):
        with pytest.raises(
            DataError, match=r"image 'a/00': the mark nsfw is .*, expected a number"
        ):
            choose({"a": [1.0]}, {"a/00": {"nsfw": value}})


def test_marked_regularisation_images_are_left_out_too():
    images = to_table(
        [
            Image("x", "a house", generator="sd14", details='{"flagged":true}'),
            Image("y", "a tree", generator="sd14"),
            Image("z", "a cat"),
        ],
        "images",
    )
    empty = to_table([], "scores"), to_table([], "images")
    table, report = label(*empty, LabelSettings(rule="corrected"), regularisation=images)
    assert table["image"].to_pylist() == ["y", "z"]
    assert report["regularisation"] == {
        "images": 3,
        "generated": 1,
        "thrown_away": {"marked as unsafe": 1, "marked as blurred": 0},
    }
    assert len(label(*empty, regularisation=images)[0]) == 3


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("name", ["rows", "flat", "edge", "soft"])
def test_turning_or_flipping_every_picture_changes_no_label(tmp_path, turns, flip, name):
    """The same pictures turned must give the same labels; by the published test they do not."""
    pictures = {
        "rows": np.repeat((np.arange(8) % 2 * 200)[:, None], 8, axis=1),
        "flat": np.full((8, 8), 90),
        "edge": np.repeat((np.arange(8) > 3)[None, :] * 40, 8, axis=0),
        "soft": np.repeat(np.arange(8)[:, None] * 9, 8, axis=1),
    }
    picture = np.rot90(pictures[name], turns)
    picture = np.repeat((picture[:, ::-1] if flip else picture)[:, :, None], 3, axis=2)
    PIL.Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "a.png")
    values = [25.0, 20.0, 20.0, 15.0]
    scores = [Score(f"{n}", "a", "hps", "overall", v, "hps", "f") for n, v in enumerate(values)]
    images = [Image(f"{n}", "a", "a.png") for n in range(4)]
    tables = to_table(scores, "scores"), to_table(images, "images")
    table, report = label(*tables, LabelSettings(rule="corrected"), folder=tmp_path)
    blurry = name in {"flat", "soft"}
    assert report["thrown_away"]["blurry"] == (4 if blurry else 0)
    assert len(table) == (0 if blurry else 2)
    if name == "rows":
        lying = turns % 2 == 0
        published = label(*tables, folder=tmp_path)[1]["thrown_away"]["blurry"]
        assert published == (4 if lying else 0)

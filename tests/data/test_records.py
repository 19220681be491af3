"""A record that breaks a promise cannot be made."""

from __future__ import annotations

import dataclasses

import pytest

from palate.data.records import Choice, Image, Label, Score, json_text, pick_ranks
from palate.errors import DataError

IMAGE = Image("a.png", "a fox")
CHOICE = Choice("c1", "a fox", ("a", "b", "c", "d"), (2, 1, 2, 2))
SCORE = Score("a.png", "a fox", "hps-v1", "overall", 20.5, "hps", "f00d")
LABEL = Label("a.png", "preferred", "a fox", "g1")


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        (IMAGE, {"image": ""}, "an empty image"),
        (IMAGE, {"width": 0}, "width 0 is not between 1"),
        (IMAGE, {"height": 2**31}, "height 2147483648 is not between"),
        (IMAGE, {"seed": 2**63}, "seed 9223372036854775808 is not between"),
        (IMAGE, {"sha256": "F00D"}, "sha256 'F00D' is not 64 lower-case hex digits"),
        (IMAGE, {"settings": "[1]"}, r"settings '\[1\]' is not a JSON object"),
        (IMAGE, {"details": "{"}, "details '{' is not a JSON object"),
        (IMAGE, {"prompt": "\ud800"}, "prompt holds half a character"),
        (CHOICE, {"ranks": (1, 2, 2)}, r"4 images but 3 ranks: \(1, 2, 2\)"),
        (CHOICE, {"images": ("a",), "ranks": (1,)}, "1 image, but a choice needs at least 2"),
        (CHOICE, {"ranks": (0, 1, 1, 1)}, r"ranks \(0, 1, 1, 1\) are not all between 1"),
        (CHOICE, {"ranks": (1, 2, 2, 2**15)}, "are not all between 1 and 32767"),
        (CHOICE, {"images": ("a", "b", "a", "d")}, "image 'a' is shown twice"),
        (CHOICE, {"images": ("a", "", "c", "d")}, "an empty image"),
        (CHOICE, {"dimension": ""}, "an empty dimension"),
        (SCORE, {"value": float("nan")}, "value is nan, expected a finite number"),
        (SCORE, {"value": None}, "either a value or an error"),
        (SCORE, {"error": "no file"}, "either a value or an error"),
        (SCORE, {"area_kept": 1.5}, "area_kept 1.5 is not between 0 and 1"),
        (SCORE, {"tokens_kept": -1}, "tokens_kept -1 is not between 0"),
        (LABEL, {"role": "liked"}, "role 'liked' is not one of preferred, rejected, regular"),
        (LABEL, {"weight": -1.0}, "weight -1.0 is below 0"),
        (LABEL, {"weight": float("inf")}, "weight is inf"),
        (LABEL, {"score": float("nan")}, "score is nan"),
    ],
)
def test_a_broken_promise_is_named(record, change, message) -> None:
    with pytest.raises(DataError, match=message):
        dataclasses.replace(record, **change)


def test_the_best_rank_need_not_be_one() -> None:
    assert Choice("c", "p", ("a", "b"), (2, 5)).ranks == (2, 5)


def test_a_pick_outside_the_images_is_refused() -> None:
    assert pick_ranks(2, 0) == (1, 2)
    with pytest.raises(
        DataError, match=r"position 4 was picked, but there are 4 images \(0 to 3\)"
    ):
        pick_ranks(4, 4)
    with pytest.raises(DataError, match="position -1"):
        pick_ranks(4, -1)


def test_no_facts_are_no_json() -> None:
    assert json_text({}) is None
    assert json_text({"b": 1, "a": "é"}) == '{"a":"é","b":1}'

"""MHP: one pair, up to four dimensions, one choice each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.importing import collect, write_import
from palate.data.records import Choice
from palate.data.records import Image as ImageRow
from palate.data.sources.common import SourceSettings
from palate.data.sources.mhp import DIMENSIONS, mhp
from palate.data.tables import to_rows
from palate.errors import DataError


def pair(number: int = 0, **changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "prompt": f"p{number}",
        "images": [f"{number}a.png", f"{number}b.png"],
        "choices": {"overall": 1, "aesthetics": 0, "detail": "tie", "alignment": 0},
    }
    return base | changes


def write(folder: Path, *records: object) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def choices(path: Path, **settings: Any) -> list[Choice]:
    return list(to_rows(collect(mhp(path, settings=SourceSettings(**settings))).choices, Choice))


def test_a_pair_is_one_choice_on_each_dimension(tmp_path: Path):
    rows = choices(write(tmp_path, pair(annotator="ann", category="animals", id="x7")))
    assert [(row.dimension, row.ranks) for row in rows] == [
        ("overall", (2, 1)),
        ("aesthetics", (1, 2)),
        ("detail", (1, 1)),
        ("alignment", (1, 2)),
    ]
    assert {(row.annotator, row.images, row.details) for row in rows} == {
        ("ann", ("0a.png", "0b.png"), '{"category":"animals"}')
    }
    assert rows[0].choice == "mhp/pairs/id-x7/overall"


def test_a_dimension_without_an_answer_is_counted(tmp_path: Path):
    path = write(tmp_path, pair(choices={"overall": 0, "detail": None}), pair(1))
    found = collect(mhp(path))
    assert len(found.choices) == 5
    counts = {name: found.report.get(f"without_{name}", 0) for name in DIMENSIONS}
    assert counts == {"overall": 0, "aesthetics": 1, "detail": 1, "alignment": 1}


def test_an_image_of_several_pairs_comes_once_with_its_generator(tmp_path: Path):
    path = write(
        tmp_path,
        pair(generators=["sd", "gan"]),
        pair(images=["0a.png", "c.png"], generators=["sd", None]),
        pair(images=["0b.png", "c.png"]),
    )
    found = collect(mhp(path))
    rows = {row.image: row.generator for row in to_rows(found.images, ImageRow)}
    assert rows == {"0a.png": "sd", "0b.png": "gan", "c.png": None}
    assert found.report["images_under_another_generator"] == 1


@given(st.lists(st.sampled_from([0, 1, "tie"]), min_size=1, max_size=6))
def test_an_answer_ranks_the_better_image_first(
    tmp_path_factory: pytest.TempPathFactory, answers: list[Any]
):
    folder = tmp_path_factory.mktemp("m")
    records = [pair(k, choices={"overall": answer}) for k, answer in enumerate(answers)]
    for row, answer in zip(choices(write(folder, *records)), answers, strict=True):
        assert row.ranks == {0: (1, 2), 1: (2, 1), "tie": (1, 1)}[answer]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": ["a.png"]}, "images has 1 names, expected 2"),
        ({"images": ["a.png", 3]}, "no text"),
        ({"images": ["a.png", "a.png"]}, "is shown twice"),
        ({"images": ["../a.png", "b.png"]}, "does not stay inside"),
        ({"generators": ["sd"]}, "generators has 1 names, expected 2"),
        ({"generators": []}, "generators has 0 names, expected 2"),
        ({"choices": {}}, "choices has no answer"),
        ({"choices": {"overall": None}}, "choices has no answer"),
        ({"choices": {"beauty": 1}}, "unknown dimension 'beauty'"),
        ({"choices": {"overall": 2}}, 'overall is 2, expected 0, 1 or "tie"'),
        ({"choices": {"overall": True}}, "overall is True"),
        ({"choices": {"overall": "skip"}}, "overall is 'skip'"),
        ({"choices": {"overall": [0]}}, r"overall is \[0\]"),
        ({"choices": 1}, "choices is '1', expected an object"),
        ({"annotator": 7}, "annotator is '7', expected a text"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"id": "first"}, "id 'first' was there before"),
    ],
)
def test_a_bad_pair_is_named(tmp_path: Path, changes: dict[str, object], told: str):
    path = write(tmp_path, pair(0, id="first"), pair(1, **changes))
    with pytest.raises(DataError, match=f"pairs.jsonl: line 2: .*{told}"):
        choices(path)
    assert len(choices(path, allow_errors=True)) == 4


def test_the_id_of_a_pair_that_was_refused_stays_free(tmp_path: Path):
    path = write(tmp_path, pair(0, id="x", choices={"overall": 7}), pair(1, id="x"))
    rows = choices(path, allow_errors=True)
    assert [row.choice.split("/")[2] for row in rows] == ["id-x"] * 4


def test_a_line_that_is_cut_is_named(tmp_path: Path):
    path = write(tmp_path, pair(0))
    path.write_text(path.read_text() + '{"prompt": "p')
    with pytest.raises(DataError, match="line 2: is no valid JSON"):
        choices(path)


def test_the_example_of_the_page_runs(tmp_path: Path, root: Path):
    page = (root / "docs" / "sources" / "mhp.md").read_text(encoding="utf-8")
    [text] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    result = write_import(mhp(path), tmp_path / "out")
    assert (result["choices"], result["images"]) == (6, 3)
    known = set().union(*(json.loads(line) for line in text.splitlines()))
    assert known == {"prompt", "images", "generators", "annotator", "choices", "category", "id"}

"""Simulacra: grades and ratings become choices; a rater is named only where the database tells one."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from palate.data.importing import collect, write_import
from palate.data.records import Choice
from palate.data.records import Image as ImageRow
from palate.data.sources.common import SourceSettings
from palate.data.sources.simulacra import simulacra
from palate.data.tables import load_dataset, to_rows
from palate.errors import DataError

GRADED = [
    "bad/7_a_red_fox_2.png",
    "good/7_a_red_fox_1.png",
    "good/9_a_red_fox_4.png",
    "good/8_a__sloth_1.png",
    "good/8_a_sloth_2.png",
    "great/5_alone_1.png",
]


def graded(folder: Path, names: list[str] = GRADED) -> Path:
    place = folder / "samples"
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (4, 4)).save(place / name)
    return place


def choices(source: Any) -> list[Choice]:
    return list(to_rows(collect(source).choices, Choice))


def test_images_of_one_prompt_with_different_grades_are_a_choice(tmp_path: Path):
    found = collect(simulacra(graded(tmp_path)))
    [row] = to_rows(found.choices, Choice)
    assert (row.prompt, row.dimension, row.annotator) == ("a red fox", "aesthetics", None)
    assert row.images == tuple(GRADED[:3])
    assert row.ranks == (2, 1, 1)
    assert json.loads(row.details or "") == {
        "derived_from": "grades",
        "grades": ["bad", "good", "good"],
    }
    assert (found.report["prompts_graded_alike"], found.report["single"]) == (1, 1)


def test_a_graded_image_keeps_what_its_name_says(tmp_path: Path):
    result = write_import(simulacra(graded(tmp_path)), tmp_path / "out")
    assert (result["images"], result["choices"]) == (6, 1)
    row = next(to_rows(load_dataset(tmp_path / "out").images, ImageRow))
    assert (row.image, row.width) == ("bad/7_a_red_fox_2.png", 4)
    assert json.loads(row.details or "") == {"grade": "bad", "id": "7", "k": "2"}


@pytest.mark.parametrize(
    ("name", "told"),
    [("good/fox.png", "expected a name like"), ("fine/1_a_fox_1.png", "the grade is 'fine'")],
)
def test_a_bad_name_is_told(tmp_path: Path, name: str, told: str):
    folder = graded(tmp_path, [*GRADED, name])
    with pytest.raises(DataError, match=f"image '{name}': {told}"):
        choices(simulacra(folder))
    assert len(choices(simulacra(folder, settings=SourceSettings(allow_errors=True)))) == 1


def test_a_truncated_image_is_named(tmp_path: Path):
    folder = graded(tmp_path)
    file = folder / GRADED[0]
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"7_a_red_fox_2\.png"):
        choices(simulacra(folder))


def test_the_real_samples(shared: Path):
    folder = shared / "data" / "simulacra"
    if not folder.is_dir():
        pytest.skip("needs data/simulacra of the shared folder")
    found = collect(simulacra(folder))
    # every sample has a prompt of its own
    assert (len(found.images), len(found.choices), found.report["single"]) == (20, 0, 20)


# ----------------------------------------------------------------------------------- the database

SCHEMA = """
CREATE TABLE survey (id INTEGER, qid INTEGER, rating INTEGER, PRIMARY KEY(id, qid));
CREATE TABLE generations (id INTEGER PRIMARY KEY, sid INTEGER, method INTEGER, prompt TEXT, verified INTEGER);
CREATE TABLE images (id INTEGER PRIMARY KEY AUTOINCREMENT, gid INTEGER, idx INTEGER, UNIQUE(gid,idx));
CREATE TABLE paths (iid INTEGER, path TEXT);
CREATE TABLE ratings (sid INTEGER, iid INTEGER, rating INTEGER, verified INTEGER);
CREATE TABLE upscales (iid INTEGER PRIMARY KEY, method INTEGER);
INSERT INTO survey VALUES (1, 0, 5), (1, 1, 9), (2, 0, 1);
INSERT INTO generations VALUES (0, 1, 2, 'a fox', 1), (1, 1, 3, 'a fox', 1), (2, 3, 12, 'a cat', 0);
INSERT INTO images VALUES (1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 1), (5, 2, 1), (6, 2, 2);
INSERT INTO paths VALUES (1, '0_a_fox_1.png'), (2, '0_a_fox_2.png'), (3, '0_a_fox_3.png'),
    (4, '1_a_fox_1.png'), (5, '2_a_cat_1.png'), (6, '2_a_cat_2.png');
INSERT INTO upscales VALUES (2, 7);
"""
AUTHORS = [(1, 2, 7, 1), (1, 1, 3, 1), (1, 3, 7, 1), (1, 4, 9, 1), (3, 5, 2, 0), (3, 6, 4, 0)]
PEOPLE = [*AUTHORS, (2, 1, 10, 1), (2, 4, 4, 1), (2, 5, 1, 1)]


def database(folder: Path, ratings: list[Any], more: str = "") -> Path:
    path = folder / "sac.sqlite"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(SCHEMA)
        made.executemany("INSERT INTO ratings VALUES (?, ?, ?, ?)", ratings)
        made.executescript(more)
        made.commit()
    return path


def test_where_ratings_say_who_gave_them_a_person_and_prompt_is_a_choice(tmp_path: Path):
    found = collect(simulacra(database(tmp_path, PEOPLE)))
    one, two, nobody = to_rows(found.choices, Choice)
    assert found.report["raters_known"] is True
    assert (one.annotator, one.prompt) == ("1", "a fox")
    assert one.images == ("0_a_fox_1.png", "0_a_fox_2.png", "0_a_fox_3.png", "1_a_fox_1.png")
    assert one.ranks == (3, 2, 2, 1)
    assert json.loads(one.details or "") == {
        "ratings": [3, 7, 7, 9],
        "survey": [5, 9],
        "verified": 1,
    }
    assert (two.annotator, two.ranks) == ("2", (1, 2))
    # number 3 answered no survey: everybody without one has that number
    assert (nobody.annotator, nobody.prompt, nobody.ranks) == (None, "a cat", (2, 1))
    assert found.report["single"] == 1


def test_where_ratings_name_the_author_alone_the_rater_is_unknown(tmp_path: Path):
    found = collect(simulacra(database(tmp_path, [*AUTHORS, (1, 3, 2, 1)])))
    fox, cat = to_rows(found.choices, Choice)
    assert found.report["raters_known"] is False
    assert found.report["ratings_without_rater"] == 7
    assert (fox.annotator, cat.annotator) == (None, None)
    # one generation alone, and without the image that two people rated
    assert (fox.images, fox.ranks) == (("0_a_fox_1.png", "0_a_fox_2.png"), (2, 1))
    assert json.loads(fox.details or "")["derived_from"] == "ratings by people not told"
    assert json.loads(fox.details or "")["author"] == 1
    assert (found.report["images_rated_again"], found.report["single"]) == (1, 1)


def test_an_image_keeps_everything_the_database_says(tmp_path: Path):
    source = simulacra(database(tmp_path, PEOPLE))
    rows = {row.image: row for row in to_rows(collect(source).images, ImageRow)}
    fox = rows["0_a_fox_2.png"]
    assert (fox.prompt, fox.generator) == ("a fox", "CompVis latent GLIDE")
    assert json.loads(fox.details or "") == {
        "author": 1,
        "generation": 0,
        "id": 2,
        "index": 2,
        "method": 2,
        "ratings": [[1, 7, 1]],
        "upscaled": 7,
        "verified": 1,
    }
    assert rows["2_a_cat_1.png"].generator == "method 12"
    assert "upscaled" not in json.loads(rows["2_a_cat_1.png"].details or "")


def test_an_image_that_was_upscaled_twice_comes_once(tmp_path: Path):
    more = "DROP TABLE upscales; CREATE TABLE upscales (iid INTEGER, method INTEGER);"
    more += "INSERT INTO upscales VALUES (2, 7), (2, 8), (3, NULL);"
    found = collect(simulacra(database(tmp_path, PEOPLE, more)))
    rows = [json.loads(row.details or "") for row in to_rows(found.images, ImageRow)]
    assert [row.get("upscaled", "not") for row in rows[:3]] == ["not", [7, 8], None]
    assert (len(rows), found.report["upscaled"]) == (6, 2)


def test_all_tied_and_missing_ratings_are_counted(tmp_path: Path):
    ratings = [(1, 1, 3, 1), (1, 2, 3, 1), (1, 3, None, 1)]
    found = collect(simulacra(database(tmp_path, ratings)))
    assert next(to_rows(found.choices, Choice)).ranks == (1, 1)
    assert (found.report["all_tied"], found.report["ratings_without_value"]) == (1, 1)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            "INSERT INTO ratings VALUES (1, 1, 11, 1)",
            "rating 7: the rating is 11, expected 1 to 10",
        ),
        ("INSERT INTO ratings VALUES (1, 1, 'x', 1)", "rating 7: the rating is 'x'"),
        ("INSERT INTO ratings VALUES (1, 99, 3, 1)", "rating 7: its image 99 is not among"),
        ("INSERT INTO images VALUES (7, 0, 7)", "image 7: has no path"),
        (
            "INSERT INTO images VALUES (7, 0, x'00ff'); INSERT INTO paths VALUES (7, 'x.png')",
            r"image 7: idx is b'\\x00\\xff', expected a number",
        ),
        (
            "INSERT INTO images VALUES (7, 0, 7); INSERT INTO paths VALUES (7, 'x'), (7, 'y')",
            "image 7: has 2 paths, expected one",
        ),
        ("INSERT INTO survey VALUES (1, 7, x'00')", r"survey 1: the rating is b'\\x00'"),
        ("INSERT INTO images VALUES (7, 99, 7)", "image 7: its generation 99 has no prompt"),
        (
            "INSERT INTO images VALUES (7, 0, 7); INSERT INTO paths VALUES (7, '../x.png')",
            "image 7: .* does not stay inside",
        ),
        (
            "INSERT INTO images VALUES (7, 0, 7); INSERT INTO paths VALUES (7, '0_a_fox_1.png')",
            "image 7: .* was there before",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, more: str, told: str):
    path = database(tmp_path, AUTHORS, more)
    with pytest.raises(DataError, match=told):
        choices(simulacra(path))
    assert len(choices(simulacra(path, settings=SourceSettings(allow_errors=True)))) == 2


def test_a_rating_of_an_image_that_was_left_out_makes_no_choice(tmp_path: Path):
    path = database(tmp_path, AUTHORS, "UPDATE paths SET path = '/x.png' WHERE iid = 5")
    source = simulacra(path, settings=SourceSettings(allow_errors=True))
    result = write_import(source, tmp_path / "out")
    assert (result["images"], result["choices"]) == (5, 1)


def test_files_are_looked_for_in_the_folder_of_images(tmp_path: Path):
    folder = tmp_path / "sac"
    folder.mkdir()
    PIL.Image.new("RGB", (4, 3)).save(folder / "0_a_fox_1.png")
    found = collect(simulacra(database(tmp_path, AUTHORS), folder))
    assert found.report["missing_images"] == 5
    assert next(to_rows(found.images, ImageRow)).height == 3


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("DROP TABLE upscales", "has no table 'upscales'"),
        ("ALTER TABLE ratings RENAME COLUMN sid TO uid", "table ratings has no column 'sid'"),
    ],
)
def test_another_database_is_refused(tmp_path: Path, more: str, told: str):
    with pytest.raises(DataError, match=told):
        choices(simulacra(database(tmp_path, AUTHORS, more)))


@pytest.mark.parametrize("data", [b"a text, and no database" * 100, b"SQLite format 3\0cut"])
def test_what_is_no_database_is_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "sac.sqlite"
    path.write_bytes(data)
    with pytest.raises(DataError, match="is no SQLite database, or a damaged one"):
        choices(simulacra(path))


def test_surveys_that_are_known_to_be_broken_are_counted(tmp_path: Path):
    more = "".join(f"INSERT INTO survey VALUES (4, {k}, 5);" for k in range(21))
    report = collect(simulacra(database(tmp_path, AUTHORS, more))).report
    assert (report["surveys"], report["surveys_of_more_than_20_answers"]) == (3, 1)

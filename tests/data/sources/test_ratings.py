"""Ratings become choices by one rule: same person, same prompt, equal is a tie."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate.data.records import Choice, Image
from palate.data.sources.ratings import AVT, RatingsSettings, read_ratings
from palate.data.tables import to_rows
from palate.errors import DataError

KEYS = [f"{name}.png" for name in "abcd"]
PROMPTS = {"a.png": "p", "b.png": "p", "c.png": "p", "d.png": "q"}
BASE = RatingsSettings(prompt="prompt")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for key in KEYS:
        PIL.Image.new("RGB", (4, 4)).save(folder / key)
    return folder


def table(folder: Path, rows: list[tuple[str, str, str, object]]) -> Path:
    path = folder / "ratings.csv"
    lines = [f"{who},{key},{PROMPTS[key]},{what},{value}" for who, key, what, value in rows]
    path.write_text("\n".join(["rater,image,prompt,dimension,value", *lines]))
    return path


def read(folder: Path, rows, **changes) -> list[Choice]:
    found = read_ratings(
        table(folder, rows), folder / "images", settings=dataclasses.replace(BASE, **changes)
    )
    return list(to_rows(found.choices, Choice))


def test_ratings_of_one_person_and_prompt_are_one_choice(images: Path, tmp_path: Path) -> None:
    rows = [
        ("u", "c.png", "appeal", 2),
        ("u", "a.png", "appeal", 5),
        ("v", "b.png", "appeal", 1),
        ("u", "b.png", "appeal", 2),
        ("u", "d.png", "appeal", 4),
        ("v", "a.png", "detail", 1),
        ("v", "b.png", "detail", 4.5),
    ]
    first, second = read(tmp_path, rows)
    assert (first.images, first.ranks) == (("c.png", "a.png", "b.png"), (2, 1, 2))
    assert (first.annotator, first.dimension, first.prompt) == ("u", "appeal", "p")
    assert first.details == '{"ratings":[2.0,5.0,2.0]}'
    assert (second.images, second.ranks, second.annotator) == (("a.png", "b.png"), (2, 1), "v")
    (other, _) = read(tmp_path, rows, higher_is_better=False)
    assert other.ranks == (1, 2, 1)


ratings = st.dictionaries(
    st.tuples(st.sampled_from("uv"), st.sampled_from(KEYS), st.sampled_from(["x", "y"])),
    st.integers(1, 5),
    min_size=1,
    max_size=16,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(rated=ratings, gap=st.sampled_from([0.0, 1.0, 2.0, 3.0]))
def test_pairs_follow_the_rule_one_by_one(rated, gap, images: Path, tmp_path: Path) -> None:
    rows = [(who, key, what, value) for (who, key, what), value in rated.items()]
    expected = {}
    for left, right in combinations(rows, 2):
        same = left[0] == right[0] and left[2] == right[2] and PROMPTS[left[1]] == PROMPTS[right[1]]
        apart = left[3] - right[3]
        if same and not 0 < abs(apart) < gap:
            ranks = (1, 1) if apart == 0 else (1, 2) if apart > 0 else (2, 1)
            expected[left[0], left[2], left[1], right[1]] = ranks
    if not expected:
        with pytest.raises(DataError, match="nobody rated two images of one prompt"):
            read(tmp_path, rows, form="pairs", minimum_gap=gap)
        return
    found = read(tmp_path, rows, form="pairs", minimum_gap=gap)
    assert {(row.annotator, row.dimension, *row.images): row.ranks for row in found} == expected


@pytest.mark.parametrize(("low", "high"), [("0.1", "0.3"), ("1.1", "1.3"), ("0.7", "0.9")])
def test_a_gap_is_that_of_the_numbers_as_written(low, high, images: Path, tmp_path: Path) -> None:
    rows = [("u", "a.png", "x", low), ("u", "b.png", "x", high), ("u", "c.png", "x", f"{low}0")]
    found = read(tmp_path, rows, form="pairs", minimum_gap=0.2)
    assert [row.ranks for row in found] == [(2, 1), (1, 1), (1, 2)]
    assert len(read(tmp_path, rows, form="pairs", minimum_gap=0.21)) == 1


def test_many_prompts_give_keys_of_their_own(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    # the hashes of these two prompts have the same first eight digits
    prompts = ["prompt 14944", "prompt 66623"] * 2
    lines = [f"u,{key},{prompt},x,1" for prompt, key in zip(prompts, KEYS, strict=True)]
    path.write_text("\n".join(["rater,image,prompt,dimension,value", *lines]))
    found = read_ratings(path, images, settings=BASE)
    assert len(set(found.choices.column("choice").to_pylist())) == 2


def test_groups_cannot_have_a_gap() -> None:
    with pytest.raises(DataError, match="a minimum gap needs form 'pairs'"):
        RatingsSettings(prompt="prompt", minimum_gap=1.0)
    with pytest.raises(DataError, match="a minimum gap of -1"):
        RatingsSettings(prompt="prompt", minimum_gap=-1.0, form="pairs")
    with pytest.raises(DataError, match="from a column or from a pattern"):
        RatingsSettings()
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(DataError, match=f"a minimum share of {share}, expected 0 to 1"):
            RatingsSettings(prompt="prompt", minimum_share=share)


TWICE = [("u", "a.png", "x", 1), ("u", "b.png", "x", 3), ("u", "a.png", "x", 5)]


def test_a_repeated_rating_counts_as_told(images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"line 4: rater 'u' rated 'a\.png' on x again \(first on l"
    ):
        read(tmp_path, TWICE)
    wanted = {
        "first": (("a.png", "b.png"), (2, 1)),
        "last": (("b.png", "a.png"), (2, 1)),
    }
    for rule, (shown, ranks) in wanted.items():
        (row,) = read(tmp_path, TWICE, repeats=rule)
        assert (row.images, row.ranks) == (shown, ranks)


def test_images_without_a_file_are_refused_kept_or_dropped(images: Path, tmp_path: Path) -> None:
    rows = [("u", key, "x", k) for k, key in enumerate(KEYS[:3])]
    (images / "c.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 rated images are not in .*: 'c\.png'$"):
        read(tmp_path, rows)
    assert read(tmp_path, rows, missing_images="keep")[0].images == ("a.png", "b.png", "c.png")
    assert read(tmp_path, rows, missing_images="drop")[0].images == ("a.png", "b.png")


def test_missing_images_are_counted_and_the_first_ten_are_named(
    images: Path, tmp_path: Path
) -> None:
    lines = [f"u,{k:02}.png,p,x,{k}" for k in range(11)] + [f"u,{'x' * 300}.png,p,x,1"]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(["rater,image,prompt,dimension,value", *lines]))
    with pytest.raises(DataError, match=r"12 of 12 rated images are not in .*: '00.*'09\.png', …$"):
        read_ratings(path, images, settings=BASE)


def test_folders_are_looked_into_only_for_files_that_are_not_there(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or iterdir(path))
    rows = [("u", key, "x", k) for k, key in enumerate(KEYS[:3])]
    assert len(read(tmp_path, rows)[0].images) == 3
    assert listed == []
    for name in ("a", "b"):
        (images / f"{name}.png").rename(images / f"{name}.JPG")
    assert len(read(tmp_path, rows)[0].images) == 3
    assert listed == [images]


def test_a_file_may_have_another_suffix(images: Path, tmp_path: Path) -> None:
    (images / "c.png").rename(images / "c.jpg")
    rows = [("u", key, "x", k) for k, key in enumerate(KEYS[:3])]
    assert len(read(tmp_path, rows)[0].images) == 3
    (images / "c.jpg").rename(images / "c.webp")
    (images / "c.gif").write_bytes((images / "a.png").read_bytes())
    with pytest.raises(DataError, match=r"'c\.png' may be c\.gif or c\.webp"):
        read(tmp_path, rows)


def test_unfinished_raters_are_named_and_may_be_left_out(images: Path, tmp_path: Path) -> None:
    rows = [("u", key, "x", k) for k, key in enumerate(KEYS)]
    rows += [("v", "a.png", "x", 1), ("v", "b.png", "x", 2)]
    path = table(tmp_path, rows)
    whole = read_ratings(path, images, settings=BASE)
    assert len(whole.choices) == 2
    assert whole.report["unfinished_raters"] == {
        "count": 1,
        "left_out": 0,
        "images_rated": {"v": 2},
    }
    strict = read_ratings(path, images, settings=dataclasses.replace(BASE, minimum_share=0.9))
    assert [row.annotator for row in to_rows(strict.choices, Choice)] == ["u"]
    assert strict.report["unfinished_raters"]["left_out"] == 1


def test_a_share_is_that_of_the_number_as_written(images: Path, tmp_path: Path) -> None:
    for k in range(25):
        (images / f"{k}.png").write_bytes((images / "a.png").read_bytes())
    lines = [f"u,{k}.png,p,x,{k}" for k in range(25)] + [f"v,{k}.png,p,x,{k}" for k in range(7)]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(["rater,image,prompt,dimension,value", *lines]))
    # 0.28 of 25 is 7, but 7.000000000000001 in binary
    found = read_ratings(path, images, settings=dataclasses.replace(BASE, minimum_share=0.28))
    assert found.report["unfinished_raters"]["left_out"] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u,a.png,p,x,good", "line 3: the rating is 'good', expected a number"),
        ("u,a.png,p,x,", "line 3: the rating is '', expected a number"),
        ("u,a.png,p,x,nan", "line 3: the rating is 'nan', expected a number"),
        (",a.png,p,x,1", "line 3: rater is empty"),
        ("u,,p,x,1", "line 3: an empty image"),
        ("u,../outside.png,p,x,1", r"line 3: the path '\.\./outside\.png' does not stay inside"),
        ("u,/a.png,p,x,1", r"line 3: the path '/a\.png' does not stay inside"),
        ("u,/,p,x,1", "line 3: the path '/' does not stay inside"),
        ("u,a.png,p,x,1e999", "line 3: the rating is '1e999', expected a number"),
        ("u,b.png,q,x,1", r"line 3: image 'b\.png' had another prompt before, 'p'"),
        ("u,a.png,p,x", "line 3: 4 cells, but the header has 5"),
    ],
)
def test_a_bad_rating_is_named_by_its_line(line, message, images: Path, tmp_path: Path) -> None:
    path = table(tmp_path, [("u", "b.png", "x", 1)])
    path.write_text(path.read_text() + f"\n{line}\nu,c.png,p,x,2\n")
    with pytest.raises(DataError, match=message):
        read_ratings(path, images, settings=BASE)
    if "cells" not in message:
        found = read_ratings(path, images, settings=dataclasses.replace(BASE, allow_errors=True))
        assert (len(found.choices), found.report["faults"]["count"]) == (1, 1)


def test_wrong_columns_and_files_are_refused(images: Path, tmp_path: Path) -> None:
    path = table(tmp_path, [("u", "b.png", "x", 1)])
    with pytest.raises(DataError, match="has no column 'who'; there are rater, image, prompt"):
        read_ratings(path, images, settings=dataclasses.replace(BASE, rater="who"))
    with pytest.raises(DataError, match="nowhere: is no folder of images"):
        read_ratings(path, tmp_path / "nowhere")
    with pytest.raises(DataError, match="nobody rated two images of one prompt"):
        read_ratings(path, images)
    path.write_text("rater,image,prompt,dimension,value\n")
    with pytest.raises(DataError, match="holds no rating that can be used"):
        read_ratings(path, images)


def test_prompts_are_looked_up_by_a_pattern(images: Path, tmp_path: Path) -> None:
    path, prompts = (
        table(tmp_path, [("u", "a.png", "x", 1), ("u", "b.png", "x", 2)]),
        tmp_path / "p",
    )
    known = RatingsSettings(image_pattern=r"(?P<prompt_id>\w)\.png")
    with pytest.raises(DataError, match="so a prompts file is needed"):
        read_ratings(path, images, settings=known)
    prompts.write_text("id,prompt\na,an owl\n")
    with pytest.raises(
        DataError, match=r"line 3: prompt 'b' of image 'b\.png' is not in the prompt"
    ):
        read_ratings(path, images, prompts, known)
    prompts.write_text("id,prompt\na,an owl \nb,an owl\n")
    found = read_ratings(path, images, prompts, known)
    assert [row.prompt for row in to_rows(found.choices, Choice)] == ["an owl"]
    prompts.write_text("id,prompt\na,an owl\na,a fox\n")
    with pytest.raises(DataError, match="line 3: 'a' was there before"):
        read_ratings(path, images, prompts, known)
    with pytest.raises(DataError, match="has no prompt or prompt_id"):
        read_ratings(path, images, settings=RatingsSettings(image_pattern="(?P<generator>.)"))
    with pytest.raises(DataError, match=r"image 'a\.png' does not match the pattern"):
        read_ratings(path, images, settings=RatingsSettings(image_pattern="(?P<prompt>x)"))


def test_the_real_ratings_become_choices(shared: Path) -> None:
    study = shared / "data" / "avt"
    where = (study / "ratings_study2.csv", study / "images", study / "prompts.csv")
    found = read_ratings(*where, AVT)
    assert (len(found.images), len(found.choices)) == (69, 658)
    report = found.report
    assert (report["ratings"], report["raters"]) == (3532, 28)
    assert report["missing_images"] == ["midjourney/p25.png"]
    assert report["repeats"]["count"] == 4
    assert report["unfinished_raters"]["images_rated"] == {"13": 12, "15": 2, "21": 2, "46": 67}
    assert (report["single"], report["all_tied"]) == (16, 36)
    dimensions = [row.dimension for row in to_rows(found.choices, Choice)]
    assert (dimensions.count("appeal"), dimensions.count("quality")) == (329, 329)
    prompts = {row.prompt for row in to_rows(found.images, Image)}
    assert len(prompts) == 13
    assert "A red colored car" in prompts
    pairs = read_ratings(*where, dataclasses.replace(AVT, form="pairs", minimum_gap=2.0))
    assert (len(pairs.choices), pairs.report["too_close"]) == (4875, 2617)

"""AGIQA: means become choices that say they are means; a prompt is the column, or all but the generator."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.importing import collect, write_import
from palate.data.records import Choice
from palate.data.records import Image as ImageRow
from palate.data.sources.agiqa import (
    Opinion,
    OpinionSettings,
    agiqa_1k,
    agiqa_3k,
    opinion_choices,
)
from palate.data.sources.common import Faults, Report, SourceSettings
from palate.data.tables import load_dataset, to_rows
from palate.errors import DataError, MissingExtraError

HEADER = "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align"
LAKE = '"a lake at dawn, soft lighting, abstract style",soft lighting,,abstract style'
ROWS = [
    f"AttnGAN_normal_001.jpg,{LAKE},1.5,0.5,0.9,0.4",
    "AttnGAN_normal_002.jpg,a fox,,,,1.0,0.5,0.5,0.4",
    f"sd1.5_lowstep_001.jpg,{LAKE},3.1,0.5,0.9,0.3",
    f"sd1.5_normal_001.jpg,{LAKE},3.2,0.6,2.0,0.2",
]


def table(folder: Path, rows: list[str], header: str = HEADER) -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def choices(source: Any) -> list[Choice]:
    return list(to_rows(collect(source).choices, Choice))


def images(source: Any) -> dict[str, ImageRow]:
    return {row.image: row for row in to_rows(collect(source).images, ImageRow)}


def test_a_prompt_gives_one_choice_on_each_dimension_in_the_order_of_the_table(tmp_path: Path):
    quality, alignment = choices(agiqa_3k(table(tmp_path, ROWS)))
    names = ("AttnGAN_normal_001.jpg", "sd1.5_lowstep_001.jpg", "sd1.5_normal_001.jpg")
    assert (quality.images, quality.ranks, quality.dimension) == (names, (3, 2, 1), "quality")
    assert (alignment.ranks, alignment.dimension) == ((2, 2, 1), "alignment")
    assert quality.annotator is None
    assert "mean opinion score" in quality.source
    assert json.loads(quality.details or "") == {
        "derived_from": "mean opinion score",
        "means": [1.5, 3.1, 3.2],
        "stds": [0.5, 0.5, 0.6],
    }


def test_a_prompt_with_one_image_is_counted(tmp_path: Path):
    found = collect(agiqa_3k(table(tmp_path, ROWS)))
    assert (found.report["single"], found.report["records"]) == (2, 4)


def test_what_the_table_says_of_an_image_stands_in_its_row(tmp_path: Path):
    rows = images(agiqa_3k(table(tmp_path, ROWS)))
    lake = rows["sd1.5_lowstep_001.jpg"]
    assert (lake.generator, lake.prompt) == (
        "sd1.5",
        "a lake at dawn, soft lighting, abstract style",
    )
    assert json.loads(lake.details or "") == {
        "adjectives": ["soft lighting"],
        "mean": {"quality": 3.1, "alignment": 0.9},
        "setting": "lowstep",
        "std": {"quality": 0.5, "alignment": 0.3},
        "style": "abstract style",
    }
    assert "style" not in json.loads(rows["AttnGAN_normal_002.jpg"].details or "")


def test_pairs_below_the_gap_are_left_out_and_ties_stay(tmp_path: Path):
    settings = OpinionSettings(form="pairs", minimum_gap=0.5)
    found = collect(agiqa_3k(table(tmp_path, ROWS), settings=settings))
    rows = list(to_rows(found.choices, Choice))
    assert [(row.choice.split("/", 1)[1], row.ranks) for row in rows] == [
        ("0/quality/0~1", (2, 1)),
        ("0/quality/0~2", (2, 1)),
        ("0/alignment/0~1", (1, 1)),
        ("0/alignment/0~2", (2, 1)),
        ("0/alignment/1~2", (2, 1)),
    ]
    assert (found.report["too_close"], found.report["all_tied"]) == (1, 1)


def test_a_gap_is_that_of_the_numbers_as_written():
    report = Report(Faults("", allowed=False))
    told = [Opinion("a.jpg", 0.1), Opinion("b.jpg", 0.3)]
    settings = OpinionSettings(form="pairs", minimum_gap=0.2)
    [pair] = opinion_choices("k/0", "p", "quality", told, settings, report)
    assert (pair.ranks, report.counts) == ((2, 1), {})


@pytest.mark.parametrize(
    ("form", "gap", "told"),
    [("groups", 0.5, "needs form 'pairs'"), ("pairs", -1.0, "expected 0 or more")],
)
def test_a_gap_that_no_ranking_can_hold_is_refused(form: Any, gap: float, told: str):
    with pytest.raises(DataError, match=told):
        OpinionSettings(form=form, minimum_gap=gap)


@given(st.lists(st.integers(0, 5).map(float), min_size=2, max_size=8))
def test_groups_and_pairs_agree_and_higher_means_rank_first(means: list[float]):
    report = Report(Faults("", allowed=False))
    told = [Opinion(f"{place}.jpg", mean) for place, mean in enumerate(means)]
    [group] = opinion_choices("k/0", "p", "quality", told, OpinionSettings(), report)
    pairs = opinion_choices("k/0", "p", "quality", told, OpinionSettings(form="pairs"), report)
    ranks = dict(zip(group.images, group.ranks, strict=True))
    assert min(group.ranks) == 1
    for pair in pairs:
        one, two = pair.images
        assert (ranks[one] > ranks[two]) == (pair.ranks[0] > pair.ranks[1])
        assert (ranks[one] == ranks[two]) == (pair.ranks[0] == pair.ranks[1])
    for (a, mean_a), (b, mean_b) in zip(enumerate(means), enumerate(means[1:], 1), strict=False):
        assert (mean_a > mean_b) == (group.ranks[a] < group.ranks[b])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("AttnGAN_normal_001.jpg,p,,,,1,1,1,1", "'AttnGAN_normal_001.jpg' was there before"),
        ("fox.jpg,p,,,,1,1,1,1", "expected generator_setting_number.jpg"),
        ("glide_normal_001.jpg, ,,,,1,1,1,1", "prompt is empty"),
        ("glide_normal_001.jpg,p,,,,good,1,1,1", "mos_quality is 'good', expected a number"),
        ("glide_normal_001.jpg,p,,,,nan,1,1,1", "mos_quality is 'nan', expected a number"),
        ("glide_normal_001.jpg,p,,,,1,-1,1,1", "std_quality is '-1', expected 0 or more"),
        ("../glide_normal_001.jpg,p,,,,1,1,1,1", "does not stay inside"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, told: str):
    path = table(tmp_path, [*ROWS, row])
    with pytest.raises(DataError, match=f"line 6: .*{told}"):
        choices(agiqa_3k(path))
    assert len(choices(agiqa_3k(path, settings=SourceSettings(allow_errors=True)))) == 2


@pytest.mark.parametrize(
    ("header", "rows", "told"),
    [
        (HEADER.replace("mos_align", "mos"), ROWS, "has no column 'mos_align'"),
        (HEADER, [*ROWS, "glide_normal_001.jpg,p"], "line 6: 2 cells, but the header has 9"),
    ],
)
def test_a_table_that_is_cut_or_another_is_refused(tmp_path: Path, header, rows, told):
    with pytest.raises(DataError, match=told):
        choices(agiqa_3k(table(tmp_path, rows, header)))


def test_a_column_of_another_edition_stays_in_the_details(tmp_path: Path):
    path = table(tmp_path, [f"{row},7" for row in ROWS], HEADER + ",votes")
    row = images(agiqa_3k(path))["AttnGAN_normal_002.jpg"]
    assert json.loads(row.details or "")["votes"] == "7"


def test_images_that_are_there_are_read_and_the_others_are_counted(tmp_path: Path):
    PIL.Image.new("RGB", (5, 4)).save(tmp_path / "AttnGAN_normal_001.jpg")
    result = write_import(agiqa_3k(table(tmp_path, ROWS)), tmp_path / "out")
    assert result["missing_images"] == 3
    rows = load_dataset(tmp_path / "out").images.to_pylist()
    assert [row["width"] for row in rows] == [5, None, None, None]
    settings = SourceSettings(missing_images="fail")
    with pytest.raises(DataError, match="3 of 4 images are not there"):
        collect(agiqa_3k(table(tmp_path, ROWS), settings=settings))


def test_the_real_table_by_a_plain_count(shared: Path):
    path = shared / "data" / "agiqa_3k" / "data.csv"
    if not path.is_file():
        pytest.skip("needs data/agiqa_3k/data.csv of the shared folder")
    found = collect(agiqa_3k(path))
    with path.open(newline="") as file:
        told = list(csv.DictReader(file))
    own: dict[str, list[dict[str, str]]] = {}
    for row in told:
        own.setdefault(row["prompt"], []).append(row)
        # the column prompt holds the whole text already
        assert all(row[part] in row["prompt"] for part in ("adj1", "adj2", "style"))
    assert (len(found.images), len(found.choices), len(own)) == (2982, 600, 300)
    for choice in to_rows(found.choices, Choice):
        rows = own[choice.prompt]
        column = {"quality": "mos_quality", "alignment": "mos_align"}[choice.dimension]
        means = [float(row[column]) for row in rows]
        assert choice.images == tuple(row["name"] for row in rows)
        assert choice.ranks == tuple(len({m for m in means if m > mean}) + 1 for mean in means)
        # all images of a prompt have its number in their name
        assert len({name.rsplit("_", 1)[1] for name in choice.images}) == 1


# ------------------------------------------------------------------------------------------ AGIQA-1K

RAW = [
    "Image,Score",
    "deepai_0_1_0_1.jpg,3.5",
    "dreamStudio_0_1_0_1.jpg,4.5",
    "deepai_1_1_0_1.jpg,1",
]


def raw(folder: Path, lines: list[str] = RAW) -> Path:
    path = folder / "AIGC_all.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def book(folder: Path, rows: list[tuple[Any, ...]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    path = folder / "AIGC_MOS_Zscore.xlsx"
    made = openpyxl.Workbook()
    for row in [("Image", "Prompt", "MOS"), *rows]:
        made.active.append(row)
    made.save(path)
    return path


BIRD = "bird driving bike, city, realistic style"
BOOK = [
    ("deepai_0_1_0_1.jpg", BIRD, 2.25),
    ("dreamStudio_0_1_0_1.jpg", BIRD, 2),
    ("deepai_1_1_0_1.jpg", "cat driving bike, city, realistic style", 1.0),
]


def test_without_a_workbook_the_prompt_is_made_of_the_name(tmp_path: Path):
    [choice] = choices(agiqa_1k(raw(tmp_path)))
    assert (choice.prompt, choice.dimension, choice.ranks) == (BIRD, "quality", (2, 1))
    assert json.loads(choice.details or "") == {
        "derived_from": "mean opinion score",
        "means": [3.5, 4.5],
    }
    row = images(agiqa_1k(raw(tmp_path)))["dreamStudio_0_1_0_1.jpg"]
    assert row.generator == "dreamStudio"
    assert json.loads(row.details or "")["object"] == "bird"


def test_names_of_words_are_read_as_they_are(tmp_path: Path):
    path = raw(tmp_path, ["Image,Score", "deepai_teddy-bear_using CD_wild_anime style.jpg,1"])
    [row] = images(agiqa_1k(path)).values()
    assert row.prompt == "teddy bear using CD, wild, anime style"


@pytest.mark.parametrize("together", [False, True])
def test_with_a_workbook_its_prompts_and_scores_count(tmp_path: Path, together: bool):
    path = book(tmp_path, BOOK)
    if together:
        raw(tmp_path)
        path = tmp_path
    [choice] = choices(agiqa_1k(path))
    assert (choice.ranks, choice.prompt) == ((1, 2), BIRD)
    row = images(agiqa_1k(path))["deepai_0_1_0_1.jpg"]
    assert json.loads(row.details or "").get("score") == (3.5 if together else None)


def test_the_two_tables_must_name_the_same_images(tmp_path: Path):
    raw(tmp_path)
    book(tmp_path, BOOK[:2])
    with pytest.raises(DataError, match=r"'deepai_1_1_0_1.jpg': the image is not in AIGC_MOS"):
        choices(agiqa_1k(tmp_path))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("deepai_0_1_0.jpg,1", "expected {generator}_{object}_{action}_{place}_{style}.jpg"),
        ("deepai_12_1_0_1.jpg,1", "object is number 12, expected 0 to 11"),
        ("deepai_0_1_0_1.jpg,1", "was there before"),
        ("deepai_0_1_0_0.jpg,x", "Score is 'x', expected a number"),
    ],
)
def test_a_bad_row_of_1k_is_named(tmp_path: Path, line: str, told: str):
    with pytest.raises(DataError) as fault:
        choices(agiqa_1k(raw(tmp_path, [*RAW, line])))
    assert "line 5: " in str(fault.value)
    assert told in str(fault.value)


def test_a_bad_row_of_a_workbook_is_named(tmp_path: Path):
    path = book(tmp_path, [*BOOK, ("deepai_2_1_0_1.jpg", None, 1.0)])
    with pytest.raises(DataError, match="line 5: Prompt is empty"):
        choices(agiqa_1k(path))
    with pytest.raises(DataError, match="MOS is 'high', expected a number"):
        choices(agiqa_1k(book(tmp_path, [("deepai_2_1_0_1.jpg", "p", "high")])))


def test_a_workbook_that_is_none_is_refused(tmp_path: Path):
    pytest.importorskip("openpyxl")
    path = tmp_path / "AIGC_MOS_Zscore.xlsx"
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match="is no workbook, or a damaged one"):
        choices(agiqa_1k(path))


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "AIGC_MOS_Zscore.xlsx"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"palate\[sheets\]"):
        choices(agiqa_1k(path))


def test_a_folder_with_neither_table_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="holds neither"):
        agiqa_1k(tmp_path)

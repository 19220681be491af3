"""One table, however it is kept, gives the same choices."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.data.sources.ratings import RatingsSettings, read_ratings
from palate.data.sources.sheets import separator, table_rows
from palate.errors import DataError

HEADER = ["rater", "image", "value", "dimension", "prompt"]
ROWS = [
    ["ann", "a.png", 3, "appeal", "a fox, red; and\tquick"],
    ["ann", "b.png", 4.5, "appeal", "a fox, red; and\tquick"],
    ["ben", "a.png", 2, "appeal", "a fox, red; and\tquick"],
    ["ben", "b.png", 2, "appeal", "a fox, red; and\tquick"],
]


def keep(kind: str, path: Path) -> None:
    if kind in {",", ";", "\t"}:
        lines = [HEADER, *ROWS]
        path.write_text("\n".join(kind.join(f'"{cell}"' for cell in line) for line in lines))
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(HEADER, row, strict=True))) for row in ROWS))
    elif kind == "parquet":
        columns = {
            name: [str(row[k]) if name != "value" else float(row[k]) for row in ROWS]
            for k, name in enumerate(HEADER)
        }
        pq.write_table(pa.table(columns), path)
    else:
        openpyxl = pytest.importorskip("openpyxl", reason="workbooks need the extra sheets")
        book = openpyxl.Workbook()
        for line in [HEADER, *ROWS]:
            book.active.append(line)
        book.save(path)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        (",", "csv"),
        (";", "csv"),
        ("\t", "tsv"),
        ("jsonl", "jsonl"),
        ("parquet", "parquet"),
        ("xlsx", "xlsx"),
    ],
)
def test_the_kind_of_table_makes_no_difference(tmp_path: Path, kind: str, suffix: str) -> None:
    for name in ("a.png", "b.png"):
        PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    path = tmp_path / f"ratings.{suffix}"
    keep(kind, path)
    found = read_ratings(path, tmp_path, settings=RatingsSettings(prompt="prompt"))
    assert found.choices.column("ranks").to_pylist() == [[2, 1], [1, 1]]
    assert found.choices.column("annotator").to_pylist() == ["ann", "ben"]
    assert set(found.choices.column("prompt").to_pylist()) == {"a fox, red; and\tquick"}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "xlsx"])
def test_a_column_that_stands_there_twice_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    if kind == "csv":
        path.write_text("a,b,a\n1,2,3\n")
    elif kind == "jsonl":
        path.write_text('{"a": 1, "b": 2, "a": 3}\n')
    elif kind == "parquet":
        pq.write_table(pa.table([["1"], ["2"], ["3"]], names=["a", "b", "a"]), path)
    else:
        openpyxl = pytest.importorskip("openpyxl", reason="workbooks need the extra sheets")
        book = openpyxl.Workbook()
        # columns without a name are none, and may be several
        for line in [["a", None, "a", None], [1, 2, 3, 4]]:
            book.active.append(line)
        book.save(path)
    with pytest.raises(DataError, match="twice"):
        list(table_rows(path))


def test_a_workbook_whose_sheet_is_cut_is_named(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl", reason="workbooks need the extra sheets")
    whole, cut = tmp_path / "whole.xlsx", tmp_path / "cut.xlsx"
    keep("xlsx", whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(cut, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[:-100] if "sheet1.xml" in name else data)
    with pytest.raises(DataError, match=r"cut\.xlsx: is no whole workbook"):
        list(table_rows(cut))


def test_the_header_says_what_separates(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a;b;c, d\n1;2;3\n")
    assert separator(path) == ";"
    assert list(table_rows(path)) == [(2, {"a": "1", "b": "2", "c, d": "3"})]


@pytest.mark.parametrize(
    ("name", "told"), [("x.ods", "tables are read from"), ("x.xlsx", "is no workbook")]
)
def test_what_is_no_table_is_named(tmp_path: Path, name: str, told: str) -> None:
    path = tmp_path / name
    path.write_text("nothing")
    with pytest.raises(DataError, match=told):
        list(table_rows(path))

"""Rows, columns and files say the same; what they may not say is refused in one sentence."""

from __future__ import annotations

import dataclasses
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from palate_strategies import records, tables

from palate.data.records import Choice, Image
from palate.data.schemas import RECORDS, SCHEMAS, kind_of
from palate.data.tables import (
    Dataset,
    image_path,
    load_dataset,
    read_table,
    relocate_images,
    save_dataset,
    stored_path,
    to_rows,
    to_table,
    write_table,
)
from palate.errors import DataError, ImageError, RunError

KINDS = list(SCHEMAS)
ON_DISK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", KINDS)
def test_the_columns_are_the_fields_in_order(kind: str) -> None:
    assert SCHEMAS[kind].names == [field.name for field in dataclasses.fields(RECORDS[kind])]


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_says_what_it_means(kind: str) -> None:
    for field in SCHEMAS[kind]:
        assert field.metadata[b"doc"].endswith(b".")


@pytest.mark.parametrize("kind", KINDS)
@ON_DISK
@given(data=st.data())
def test_rows_columns_and_parquet_are_equal(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    rows = data.draw(tables(kind))
    table = to_table(rows, kind)
    assert table.schema.equals(SCHEMAS[kind], check_metadata=True)
    assert list(to_rows(table)) == rows
    path = tmp_path / f"{kind}.parquet"
    write_table(table, path)
    again = read_table(path, kind)
    assert again.equals(table)
    assert again.schema.equals(SCHEMAS[kind], check_metadata=True)
    assert list(to_rows(again)) == rows


@pytest.mark.parametrize("kind", KINDS)
@ON_DISK
@given(data=st.data())
def test_a_slice_in_chunks_has_the_same_rows(
    kind: str, data: st.DataObject, tmp_path: Path
) -> None:
    rows = data.draw(tables(kind))
    start = data.draw(st.integers(0, len(rows)))
    table = pa.concat_tables([to_table([row], kind) for row in rows] or [to_table([], kind)])
    assert list(to_rows(table.slice(start))) == rows[start:]
    write_table(table.slice(start), tmp_path / "x.parquet")
    assert list(to_rows(read_table(tmp_path / "x.parquet", kind))) == rows[start:]


def test_more_rows_than_one_batch_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palate.data.tables._BATCH", 4)
    rows = [Image(f"{k}.png", "p") for k in range(13)]
    table = to_table(iter(rows), "images")
    assert table.column("image").num_chunks == 4
    assert list(to_rows(table)) == rows


def test_a_stranger_among_the_rows_is_refused() -> None:
    with pytest.raises(DataError, match="a Image among the choices, expected Choice"):
        to_table([Image("a", "p")], "choices")


def choice_table(**columns: object) -> pa.Table:
    base: dict[str, object] = {
        "choice": ["c0", "c1"],
        "prompt": ["p", "p"],
        "images": [["a", "b"], ["a", "b", "c", "d"]],
        "ranks": [[1, 2], [1, 2, 2, 3]],
        "dimension": ["overall", "overall"],
        "annotator": [None, "u"],
        "source": ["s", "s"],
        "details": [None, '{"a":1}'],
    }
    return pa.table(base | columns)


def score_table(**columns: object) -> pa.Table:
    base: dict[str, object] = {
        "image": ["a", "b"],
        "prompt": ["p", "p"],
        "scorer": ["s", "s"],
        "dimension": ["overall", "overall"],
        "value": [1.0, None],
        "unit": ["hps", "hps"],
        "fingerprint": ["f", "f"],
        "tokens_given": [3, None],
        "tokens_kept": [3, None],
        "area_kept": [0.5, None],
        "error": [None, "no file"],
    }
    return pa.table(base | columns)


def image_table(**columns: object) -> pa.Table:
    base = {name: [None, None] for name in SCHEMAS["images"].names}
    return pa.table(base | {"image": ["a", "b"], "prompt": ["p", "q"]} | columns)


def label_table(**columns: object) -> pa.Table:
    base: dict[str, object] = {
        "image": ["a", "b"],
        "role": ["preferred", "rejected"],
        "caption": ["p", "p"],
        "group": ["g", "g"],
        "score": [1.0, None],
        "weight": [1.0, 1.0],
    }
    return pa.table(base | columns)


def test_tables_of_other_tools_are_read_where_nothing_is_lost(tmp_path: Path) -> None:
    table = choice_table(
        choice=pa.array(["c0", "c1"], pa.large_string()),
        dimension=pa.array(["overall", "overall"]).dictionary_encode(),
        annotator=pa.nulls(2),
    )
    assert table.schema.field("ranks").type.value_type == pa.int64()
    pq.write_table(table.select(table.schema.names[::-1]), tmp_path / "choices.parquet")
    read = read_table(tmp_path / "choices.parquet", Choice)
    assert read.schema == SCHEMAS["choices"]
    assert [row.ranks for row in to_rows(read, Choice)] == [(1, 2), (1, 2, 2, 3)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (choice_table(ranks=[[1, 2], [1, 2, 2]]), r", row 1: 4 images but 3 ranks: \(1, 2, 2\)"),
        (choice_table(ranks=[[1, 2], [0, 1, 1, 1]]), r", row 1: ranks \(0, 1, 1, 1\) are not all"),
        (choice_table(ranks=[[1, 2], [1, 2, None, 3]]), ": a list of images or ranks has an empty"),
        (choice_table(ranks=[[1, 2], [1, 2, 3, 40_000]]), ": column 'ranks' holds list.* not fit"),
        (
            choice_table(ranks=[[1.0], [2.5]]),
            ": column 'ranks' holds list.*double.*a list of int16",
        ),
        (choice_table(ranks=["1,2", "2,1"]), ": column 'ranks' holds string, expected a list of"),
        (choice_table(images=[["a", "b"], ["a", "b", "a", "d"]]), ", row 1: image 'a' is shown tw"),
        (choice_table(images=[["a", "b"], ["a", "", "c", "d"]]), ": an image key is an empty text"),
        (choice_table(choice=["c0", "c0"]), ", row 1: choice 'c0' stands in the table twice"),
        (choice_table(choice=["c0", ""]), ", row 1: the choice is an empty text"),
        (choice_table(choice=[0, 1]), ": column 'choice' holds int64, expected string"),
        (choice_table(prompt=["p", None]), ", row 1: column 'prompt' is empty"),
        (choice_table(details=[None, "no"]), ", row 1: details 'no' is not a JSON object"),
        (choice_table(dimensoin=[1, 2]), ": unknown column 'dimensoin'; did you mean 'dimension'?"),
        (choice_table(zzz=[1, 2]), ": unknown column 'zzz' in a table of choices"),
        (choice_table().drop_columns("source"), ": column 'source' is missing from a table of ch"),
        (score_table(value=[float("nan"), None]), ", row 0: the value is not a finite number"),
        (score_table(value=["high", "low"]), ": column 'value' holds string, expected double"),
        (score_table(value=[1.0, 2.0]), ", row 1: needs either a value or an error"),
        (score_table(error=[None, None]), ", row 1: needs either a value or an error"),
        (score_table(tokens_kept=[-1, None]), ", row 0: tokens_kept is below 0"),
        (score_table(area_kept=[1.5, None]), ", row 0: area_kept is not between 0 and 1"),
        (image_table(sha256=["x" * 64, None]), ", row 0: the sha256 is not 64 lower-case hex"),
        (image_table(width=[None, 0]), ", row 1: the width is below 1"),
        (image_table(width=[None, 2**31]), ": column 'width' holds int64 values that do not fit"),
        (image_table(settings=["3", None]), ", row 0: settings '3' is not a JSON object"),
        (label_table(role=["liked", "rejected"]), ", row 0: the role is not one of preferred"),
        (label_table(weight=[1.0, -1.0]), ", row 1: the weight is below 0"),
        (label_table(score=[float("inf"), None]), ", row 0: the score is not finite"),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(
    table: pa.Table, message: str, tmp_path: Path
) -> None:
    names = set(table.schema.names)
    kind = max(SCHEMAS, key=lambda kind: len(names & set(SCHEMAS[kind].names)))
    path = tmp_path / f"{kind}.parquet"
    pq.write_table(table, path)
    with pytest.raises(DataError, match=f"{kind}.parquet{message}") as caught:
        read_table(path, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_what_the_columns_accept_the_rows_accept(kind: str, data: st.DataObject) -> None:
    row = data.draw(records[kind])
    assert next(to_rows(to_table([row], kind), RECORDS[kind])) == row


def test_wrong_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "choices.parquet"
    with pytest.raises(DataError, match=r"choices.parquet: does not exist, expected a Parquet"):
        read_table(path, "choices")
    with pytest.raises(DataError, match="is a folder, expected a Parquet file of choices"):
        read_table(tmp_path, "choices")
    path.write_text("choice,prompt\n")
    with pytest.raises(DataError, match=r"choices.parquet: is no Parquet file, or a damaged one"):
        read_table(path, "choices")
    write_table(choice_table(), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="is no Parquet file, or a damaged one"):
        read_table(path, "choices")


def test_the_kind_of_a_table_follows_from_its_columns() -> None:
    for kind, schema in SCHEMAS.items():
        assert kind_of(schema) == kind_of(schema.empty_table()) == kind_of(RECORDS[kind]) == kind
    with pytest.raises(DataError, match="no table is called 'votes'"):
        kind_of("votes")
    with pytest.raises(DataError, match="the columns a, b are those of no table"):
        kind_of(pa.table({"a": [1], "b": [2]}))


def test_a_refused_table_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "choices.parquet"
    write_table(choice_table(), path)
    before = path.read_bytes()
    with pytest.raises(DataError):
        write_table(choice_table(choice=["c", "c"]), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["choices.parquet"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = [Image(f"image {k} of many", f"prompt {k * k}") for k in range(4_000)]
    table = to_table(rows, "images")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, hard))
    try:
        with pytest.raises(RunError, match=r"images.parquet: could not be written: File too large"):
            save_dataset(tmp_path, table, SCHEMAS["choices"].empty_table())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------- data sets

IMAGES = to_table([Image(key, "p", path=f"images/{key}") for key in "abcd"], "images")
CHOICES = to_table([Choice("c", "p", ("a", "b"), (1, 2))], "choices")


def test_a_data_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    save_dataset(tmp_path, IMAGES, CHOICES)
    read = load_dataset(tmp_path)
    assert read.images.equals(IMAGES)
    assert read.choices.equals(CHOICES)
    assert read.folder == tmp_path


def test_either_table_may_be_missing(tmp_path: Path) -> None:
    empty = SCHEMAS["choices"].empty_table()
    save_dataset(tmp_path, IMAGES, CHOICES)
    save_dataset(tmp_path, IMAGES, empty)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images.parquet"]
    assert load_dataset(tmp_path).choices.equals(empty)
    with pytest.raises(DataError, match="neither an image nor a choice to write"):
        save_dataset(tmp_path, SCHEMAS["images"].empty_table(), empty)


def test_a_choice_between_unknown_images_is_refused(tmp_path: Path) -> None:
    rows = [Choice("c0", "p", ("a", "b", "d"), (1, 2, 2)), Choice("c1", "p", ("a", "e"), (1, 2))]
    choices = to_table(rows, "choices")
    message = r"choices.parquet, row 1: image 'e' is not in images.parquet \(1 such places"
    with pytest.raises(DataError, match=message):
        save_dataset(tmp_path, IMAGES, choices)
    write_table(IMAGES, tmp_path / "images.parquet")
    write_table(choices, tmp_path / "choices.parquet")
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)
    assert len(load_dataset(tmp_path, strict=False).choices) == 2


def test_wrong_folders_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: does not exist, expected the folder of a data"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds neither images.parquet nor choices.parquet"):
        load_dataset(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: is a file"):
        load_dataset(tmp_path / "file")


def test_paths_are_relative_inside_the_folder_and_absolute_outside(tmp_path: Path) -> None:
    inside, outside = tmp_path / "set" / "images" / "a.png", tmp_path / "other" / "a.png"
    folder = tmp_path / "set"
    assert stored_path(inside, folder) == "images/a.png"
    assert stored_path(outside, folder) == outside.as_posix()
    for path in (inside, outside):
        row = Image("a", "p", path=stored_path(path, folder))
        assert image_path(row, folder) == path
        assert image_path({"image": "a", "path": row.path}, folder) == path
    with pytest.raises(ImageError, match="image 'a' has no file"):
        image_path(Image("a", "p"), folder)


def test_moved_tables_still_find_their_images(tmp_path: Path) -> None:
    moved = relocate_images(IMAGES, tmp_path / "old", tmp_path / "old" / "train")
    for before, after in zip(to_rows(IMAGES, Image), to_rows(moved, Image), strict=True):
        there = image_path(before, tmp_path / "old")
        assert image_path(after, tmp_path / "old" / "train") == there
    assert moved.schema.equals(SCHEMAS["images"], check_metadata=True)
    back = relocate_images(moved, tmp_path / "old" / "train", tmp_path / "old")
    assert Dataset(back, CHOICES, tmp_path).images.equals(IMAGES)

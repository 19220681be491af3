"""Pick-a-Pic: labels, ties, rows without an answer, images inside the file, and what is refused."""

from __future__ import annotations

import datetime as dt
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.importing import collect, write_import
from palate.data.records import Choice, Image
from palate.data.sources.common import Imported, SourceSettings
from palate.data.sources.pick_a_pic import pick_a_pic
from palate.data.tables import to_rows
from palate.errors import DataError

SCHEMA = pa.schema(
    [
        ("are_different", pa.bool_()),
        ("best_image_uid", pa.string()),
        ("caption", pa.string()),
        ("created_at", pa.timestamp("ns")),
        ("has_label", pa.bool_()),
        ("image_0_uid", pa.string()),
        ("image_0_url", pa.string()),
        ("image_1_uid", pa.string()),
        ("image_1_url", pa.string()),
        ("jpg_0", pa.binary()),
        ("jpg_1", pa.binary()),
        ("label_0", pa.float64()),
        ("label_1", pa.float64()),
        ("model_0", pa.string()),
        ("model_1", pa.string()),
        ("ranking_id", pa.int64()),
        ("user_id", pa.int64()),
        ("num_example_per_prompt", pa.int64()),
        ("__index_level_0__", pa.int64()),
    ]
)
WHEN = dt.datetime(2023, 3, 5, 7, 8, 9, 123456)  # noqa: DTZ001 - the release has no zone
NO_IMAGES = {"jpg_0", "jpg_1"}


def jpeg(colour: int) -> bytes:
    data = io.BytesIO()
    PIL.Image.fromarray(np.full((8, 12, 3), colour % 256, np.uint8)).save(data, "JPEG")
    return data.getvalue()


def row(number: int, **changes: object) -> dict[str, Any]:
    """Row `number` compares images `2n` and `2n + 1`; the first is preferred."""
    first, second = f"uid-{2 * number}", f"uid-{2 * number + 1}"
    base = {
        "are_different": True,
        "best_image_uid": first,
        "caption": f"p{number}",
        "created_at": WHEN,
        "has_label": True,
        "image_0_uid": first,
        "image_0_url": f"https://pictures.example/{first}.png",
        "image_1_uid": second,
        "image_1_url": f"https://pictures.example/{second}.png",
        "jpg_0": jpeg(2 * number),
        "jpg_1": jpeg(2 * number + 1),
        "label_0": 1.0,
        "label_1": 0.0,
        "model_0": "stabilityai/stable-diffusion-2-1",
        "model_1": "dreamlike-art/dreamlike-photoreal-2.0",
        "ranking_id": 1000 + number,
        "user_id": 17,
        "num_example_per_prompt": 3,
        "__index_level_0__": 500 + number,
    }
    return base | changes


def write(
    folder: Path,
    rows: list[dict[str, Any]],
    name: str = "train-00000-of-00001.parquet",
    leave_out: set[str] | frozenset[str] = frozenset(),
) -> Path:
    known = {field.name: field.type for field in SCHEMA}
    columns = {
        key: pa.array([one[key] for one in rows], known.get(key))
        for key in rows[0]
        if key not in leave_out
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def read(path: Path, images: Path | None = None, **settings: Any) -> Imported:
    return collect(pick_a_pic(path, images, SourceSettings(**settings)))


def choices(found: Imported) -> list[Choice]:
    return list(to_rows(found.choices, Choice))


def images(found: Imported) -> dict[str, Image]:
    return {one.image: one for one in to_rows(found.images, Image)}


def test_a_row_is_a_choice_between_two_images(tmp_path: Path) -> None:
    found = read(write(tmp_path, [row(0)]))
    [one] = choices(found)
    assert (one.choice, one.prompt, one.images) == ("pick-a-pic/1000", "p0", ("uid-0", "uid-1"))
    assert (one.ranks, one.annotator, one.dimension) == ((1, 2), "17", "overall")
    assert one.source == "pick-a-pic/train-00000-of-00001.parquet"
    assert json.loads(one.details or "") == {
        "__index_level_0__": 500,
        "are_different": True,
        "created_at": "2023-03-05 07:08:09.123456000",
        "num_example_per_prompt": 3,
        "ranking_id": 1000,
    }
    first = images(found)["uid-0"]
    assert first.generator == "stabilityai/stable-diffusion-2-1"
    assert (first.width, first.height) == (12, 8)
    assert json.loads(first.details or "") == {"url": "https://pictures.example/uid-0.png"}


@pytest.mark.parametrize(
    ("labels", "best", "ranks"),
    [((1, 0), "uid-0", (1, 2)), ((0, 1), "uid-1", (2, 1)), ((0.5, 0.5), "tie", (1, 1))],
)
def test_labels_are_ranks(
    tmp_path: Path, labels: tuple[float, float], best: str, ranks: tuple[int, int]
) -> None:
    given_row = row(0, label_0=labels[0], label_1=labels[1], best_image_uid=best)
    found = read(write(tmp_path, [given_row]))
    assert choices(found)[0].ranks == ranks
    assert found.report.get("ties", 0) == (ranks == (1, 1))


@pytest.mark.parametrize("best", ["tie", "none", "", None])
def test_a_tie_keeps_what_stands_for_the_best(tmp_path: Path, best: str | None) -> None:
    tie = row(0, label_0=0.5, label_1=0.5, best_image_uid=best)
    found = read(write(tmp_path, [tie]))
    assert json.loads(choices(found)[0].details or "").get("best_image_uid") == best
    assert found.report.get("ties_marked_none", 0) == (best == "none")


def test_a_row_without_an_answer_gives_its_images_only(tmp_path: Path) -> None:
    silent = row(0, has_label=False, label_0=0.5, label_1=0.5, best_image_uid="none")
    found = read(write(tmp_path, [silent, row(1)]))
    assert [one.choice for one in choices(found)] == ["pick-a-pic/1001"]
    assert len(found.images) == 4
    assert found.report["unlabelled"] == 1


def test_an_image_of_several_rows_comes_once(tmp_path: Path) -> None:
    again = row(1, image_0_uid="uid-0", best_image_uid="uid-0", caption="p0", jpg_0=jpeg(0))
    again |= {"image_0_url": row(0)["image_0_url"]}
    found = read(write(tmp_path, [row(0), again]))
    assert list(images(found)) == ["uid-0", "uid-1", "uid-3"]
    assert len(found.choices) == 2
    assert "images_under_another_prompt" not in found.report


def test_an_image_that_is_described_otherwise_later_is_counted(tmp_path: Path) -> None:
    again = row(1, image_0_uid="uid-0", best_image_uid="uid-0", model_0="other")
    found = read(write(tmp_path, [row(0), again]))
    assert found.report["images_under_another_prompt"] == 1
    assert found.report["images_under_another_generator_or_url"] == 1
    assert images(found)["uid-0"].prompt == "p0"


def test_the_same_answer_comes_once_and_another_of_its_ranking_has_its_own_key(
    tmp_path: Path,
) -> None:
    other = row(1, ranking_id=1000)
    found = read(write(tmp_path, [row(0), row(0), other, other]))
    assert [one.choice for one in choices(found)] == [
        "pick-a-pic/1000",
        "pick-a-pic/1000/train-00000-of-00001/2",
    ]
    assert found.report["repeated_rows"] == 2
    assert found.report["rankings_with_another_answer"] == 1


def test_a_folder_is_one_set_and_the_small_part_keeps_its_name(tmp_path: Path) -> None:
    write(tmp_path, [row(0), row(1)], "test-00000-of-00001.parquet")
    write(tmp_path, [row(1)], "test_unique-00000-of-00001.parquet")
    found = read(tmp_path)
    told = {one.choice: one.source for one in choices(found)}
    assert told == {
        "pick-a-pic/1001": "pick-a-pic/test_unique-00000-of-00001.parquet",
        "pick-a-pic/1000": "pick-a-pic/test-00000-of-00001.parquet",
    }
    assert found.report["repeated_rows"] == 1


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    for number, name in enumerate("xy"):
        write(tmp_path / name, [row(number, ranking_id=None)], "train.parquet")
    told = {one.choice: one.source for one in choices(read(tmp_path))}
    assert told == {
        "pick-a-pic/x/train/0": "pick-a-pic/x/train.parquet",
        "pick-a-pic/y/train/0": "pick-a-pic/y/train.parquet",
    }
    write(tmp_path / "y", [row(1, label_0=3.0)], "train.parquet")
    with pytest.raises(DataError, match=r"y/train\.parquet, row 0: label_0"):
        read(tmp_path)


def test_a_row_that_was_refused_leaves_its_ranking_to_others(tmp_path: Path) -> None:
    bad = row(0, image_1_uid="uid-0", user_id=None)
    path = write(tmp_path, [bad, row(1, ranking_id=1000)])
    found = read(path, allow_errors=True)
    assert [one.choice for one in choices(found)] == ["pick-a-pic/1000"]
    assert "rankings_with_another_answer" not in found.report
    assert "without_user" not in found.report


def test_users_and_urls_of_another_kind_are_no_end_of_it(tmp_path: Path) -> None:
    path = write(tmp_path, [row(0)], leave_out={"user_id", "image_0_url"})
    table = pq.read_table(path)
    pq.write_table(
        table.append_column("user_id", pa.array([17])).append_column(
            "image_0_url", pa.array([["a", "b"]])
        ),
        path,
    )
    assert json.loads(images(read(path))["uid-0"].details or "") == {"url": "['a', 'b']"}
    pq.write_table(table.append_column("user_id", pa.array([[17]])), path)
    with pytest.raises(DataError, match=r"row 0: user_id is \[17\], expected a whole number"):
        read(path)


def test_images_are_written_as_they_are_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "in", [row(number) for number in range(3)])
    result = write_import(pick_a_pic(path), tmp_path / "out")
    assert (result["images"], result["choices"]) == (6, 3)
    table = pq.read_table(tmp_path / "out" / "images.parquet")
    for number, one in enumerate(to_rows(table, Image)):
        assert one.image == f"uid-{number}"
        assert (tmp_path / "out" / (one.path or "")).read_bytes() == jpeg(number)


def test_pictures_may_be_objects_with_bytes(tmp_path: Path) -> None:
    given_row = row(0)
    del given_row["jpg_0"], given_row["jpg_1"]
    path = write(tmp_path, [given_row])
    table = pq.read_table(path)
    for place in (0, 1):
        column = pa.array([{"bytes": jpeg(place), "path": None}])
        table = table.append_column(f"jpg_{place}", column)
    pq.write_table(table, path)
    assert {one.width for one in images(read(path)).values()} == {12}


def test_without_images_rows_have_none_and_none_is_missing(tmp_path: Path) -> None:
    found = read(write(tmp_path, [row(0)], leave_out=NO_IMAGES), missing_images="fail")
    assert {one.path for one in images(found).values()} == {None}
    assert found.report["missing_images"] == 0


def test_an_empty_picture_is_a_missing_image(tmp_path: Path) -> None:
    path = write(tmp_path, [row(0, jpg_1=None)])
    assert read(path).report["missing_first"] == ["uid-1"]
    with pytest.raises(DataError, match="1 of 2 images are not there: 'uid-1'"):
        read(path, missing_images="fail")


def test_a_folder_of_images_stands_in_for_pictures_that_are_not_in_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "uid-0.png").write_bytes(jpeg(0))
    found = read(write(tmp_path, [row(0)], leave_out=NO_IMAGES), folder)
    assert (images(found)["uid-0"].path or "").endswith("uid-0.png")
    assert found.report["missing_first"] == ["uid-1"]
    bad = write(tmp_path, [row(0, image_1_uid="../x")], "bad.parquet", NO_IMAGES)
    with pytest.raises(DataError, match=r"row 0: .*does not stay inside"):
        read(bad, folder)


def test_a_broken_picture_is_a_fault_and_its_answer_can_be_kept(tmp_path: Path) -> None:
    path = write(tmp_path, [row(0, jpg_0=jpeg(0)[:-200])])
    with pytest.raises(DataError, match="image 'uid-0'"):
        read(path)
    assert len(read(path, allow_errors=True).choices) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"label_0": 1.0, "label_1": 1.0}, "label_0 and label_1 are 1.0 and 1.0, expected 1 and 0"),
        ({"label_0": 0.0}, "are 0.0 and 0.0"),
        ({"label_0": 0.7, "label_1": 0.3}, "are 0.7 and 0.3"),
        ({"label_1": None}, "are 1.0 and None"),
        ({"label_1": float("nan")}, "are 1.0 and nan"),
        ({"best_image_uid": "uid-3"}, "best_image_uid is 'uid-3', but the labels prefer 'uid-2'"),
        ({"best_image_uid": "tie"}, "best_image_uid is 'tie', but the labels prefer 'uid-2'"),
        ({"label_0": 0.5, "label_1": 0.5}, "best_image_uid is 'uid-2', but the labels are a tie"),
        ({"has_label": None}, "has_label is None, expected true or false"),
        ({"caption": None}, "caption is None, expected a text"),
        ({"image_1_uid": ""}, "image_1_uid is empty"),
        ({"image_1_uid": "uid-2"}, "is shown twice"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    path = write(tmp_path, [row(0), row(1, **changes), row(2)])
    with pytest.raises(DataError, match=f"{path.name}: row 1: .*{told}"):
        read(path)
    found = read(path, allow_errors=True)
    assert [one.choice for one in choices(found)] == ["pick-a-pic/1000", "pick-a-pic/1002"]


def test_who_answered_may_be_unknown_and_gaps_may_make_numbers_of_another_kind(
    tmp_path: Path,
) -> None:
    rows = [row(0), row(1)]
    for one, user in zip(rows, (17.0, None), strict=True):
        one |= {"user": user}
    path = write(tmp_path, rows, leave_out={"user_id"})
    table = pq.read_table(path).rename_columns({"user": "user_id"})
    pq.write_table(table, path)
    found = read(path)
    assert [one.annotator for one in choices(found)] == ["17", None]
    assert found.report["without_user"] == 1


def test_columns_that_are_not_official_are_kept_but_for_bytes(tmp_path: Path) -> None:
    found = read(write(tmp_path, [row(0, country="fr", blob=b"x", words=["a"])]))
    details = json.loads(choices(found)[0].details or "")
    assert (details["country"], details["words"]) == ("fr", "['a']")
    assert found.report["values_of_blob_left_out"] == 1


@pytest.mark.parametrize("name", ["has_label", "label_1", "user_id", "ranking_id", "model_0"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, [row(0)], leave_out={name})
    with pytest.raises(DataError, match=f"has no column '{name}'; there are "):
        read(path)


@pytest.mark.parametrize("name", ["__index_level_0__", "created_at", "image_0_url"])
def test_a_column_that_no_choice_needs_may_be_absent(tmp_path: Path, name: str) -> None:
    assert len(read(write(tmp_path, [row(0)], leave_out={name})).choices) == 1


def test_a_truncated_file_is_refused_and_its_row_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, [row(0)])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="is no whole Parquet file, it breaks off before row 0"):
        read(path)
    path.write_text("caption,label_0\n")
    with pytest.raises(DataError, match="is no whole Parquet file"):
        read(path)


def test_a_damaged_page_is_refused_and_its_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    rows = [row(number, caption=f"caption number {number}") for number in range(200)]
    table = pa.Table.from_pylist(rows, SCHEMA)
    pq.write_table(table, path, row_group_size=100, compression="snappy", write_page_checksum=True)
    place = pq.ParquetFile(path).metadata.row_group(1).column(2).data_page_offset
    data = bytearray(path.read_bytes())
    data[place : place + 60] = bytes(60)
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"breaks off before row (64|100)"):
        read(path)


def test_in_a_folder_a_broken_file_is_a_fault_and_the_others_stand(tmp_path: Path) -> None:
    write(tmp_path, [row(0)], "train-0.parquet")
    broken = write(tmp_path, [row(1)], "train-1.parquet")
    broken.write_bytes(broken.read_bytes()[:-9])
    write(tmp_path, [row(2)], "train-2.parquet")
    with pytest.raises(DataError, match=r"train-1\.parquet: .*is no whole Parquet file"):
        read(tmp_path)
    found = read(tmp_path, allow_errors=True)
    assert [one.choice for one in choices(found)] == ["pick-a-pic/1000", "pick-a-pic/1002"]
    write(tmp_path, [row(1, label_0=3.0)], "train-1.parquet")
    with pytest.raises(DataError, match=r"train-1\.parquet, row 0: label_0"):
        read(tmp_path)


def test_no_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="holds no Parquet file"):
        read(tmp_path)


@given(winners=st.lists(st.sampled_from([0, 1, None]), min_size=1, max_size=12))
def test_every_answer_comes_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, winners: list[int | None]
) -> None:
    rows = []
    for number, winner in enumerate(winners):
        labels = (0.5, 0.5) if winner is None else (1.0 - winner, float(winner))
        best = "tie" if winner is None else f"uid-{2 * number + winner}"
        rows.append(row(number, label_0=labels[0], label_1=labels[1], best_image_uid=best))
    path = write(tmp_path_factory.mktemp("p"), rows, leave_out=NO_IMAGES)
    ranks = [one.ranks for one in choices(read(path))]
    assert ranks == [{0: (1, 2), 1: (2, 1), None: (1, 1)}[winner] for winner in winners]

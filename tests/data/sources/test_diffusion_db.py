"""DiffusionDB: parts and metadata, settings by name, marks and what they leave out."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.data.importing import collect, write_import
from palate.data.records import Image
from palate.data.sources.common import Imported, SourceSettings
from palate.data.sources.diffusion_db import DiffusionDbSettings, diffusion_db
from palate.data.tables import to_rows
from palate.errors import DataError

WHEN = dt.datetime(2022, 8, 11, 9, 5, tzinfo=dt.UTC)


def record(number: int = 0, **changes: object) -> dict[str, object]:
    return {"p": f"p{number}", "se": number, "c": 7.0, "st": 50, "sa": "k_lms"} | changes


def write_part(folder: Path, number: int, records: object, *, images: bool = True) -> Path:
    part = folder / f"part-{number:06}"
    part.mkdir(parents=True)
    text = records if isinstance(records, str) else json.dumps(records)
    (part / f"part-{number:06}.json").write_text(text, encoding="utf-8")
    if images and isinstance(records, dict):
        for name in records:
            save(part / name)
    return part


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)


def fact(number: int, **changes: object) -> dict[str, object]:
    base = {
        "image_name": f"{number}.png",
        "prompt": f"p{number}",
        "part_id": 1,
        "seed": 2**32 - 1,
        "step": 50,
        "cfg": 7.1,
        "sampler": 8,
        "width": 512,
        "height": 768,
        "user_name": "ab" * 32,
        "timestamp": WHEN,
        "image_nsfw": 0.25,
        "prompt_nsfw": 0.1,
    }
    return base | changes


def write_metadata(
    folder: Path, rows: list[dict[str, Any]], name: str = "metadata.parquet"
) -> Path:
    kinds = {
        "part_id": pa.uint16(),
        "seed": pa.uint32(),
        "step": pa.uint16(),
        "cfg": pa.float32(),
        "sampler": pa.uint8(),
        "width": pa.uint16(),
        "height": pa.uint16(),
        "timestamp": pa.timestamp("ns", "UTC"),
        "image_nsfw": pa.float32(),
        "prompt_nsfw": pa.float32(),
    }
    columns = {key: pa.array([row[key] for row in rows], kinds.get(key)) for key in rows[0]}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def images(found: Imported) -> dict[str, Image]:
    return {row.image: row for row in to_rows(found.images, Image)}


def test_a_folder_of_parts_gives_every_image_with_its_settings(tmp_path: Path) -> None:
    write_part(tmp_path, 1, {"a.png": record(4_294_967_295)})
    write_part(tmp_path, 2, {"b.png": record(2, c=12, sa="ddim")})
    rows = images(collect(diffusion_db(tmp_path)))
    assert list(rows) == ["a.png", "b.png"]
    assert rows["a.png"].seed == 2**32 - 1
    assert rows["a.png"].generator == "stable-diffusion"
    assert (rows["a.png"].width, rows["a.png"].height) == (6, 4)
    assert json.loads(rows["b.png"].settings or "") == {
        "guidance": 12.0,
        "steps": 50,
        "sampler": "ddim",
    }
    assert json.loads(rows["b.png"].details or "") == {"part_id": 2}


def test_one_part_is_enough_and_a_release_folder_is_looked_into(tmp_path: Path) -> None:
    part = write_part(tmp_path / "images", 7, {"a.png": record(1), "b.png": record(2)})
    assert len(collect(diffusion_db(part)).images) == 2
    assert len(collect(diffusion_db(tmp_path)).images) == 2


def test_the_metadata_gives_names_marks_and_times(tmp_path: Path) -> None:
    table = write_metadata(tmp_path, [fact(0)])
    save(tmp_path / "images" / "part-000001" / "0.png")
    row = images(collect(diffusion_db(table)))["0.png"]
    assert row.path is not None
    assert row.seed == 2**32 - 1
    assert json.loads(row.settings or "") == {
        "guidance": 7.1,
        "steps": 50,
        "sampler": "k_lms",
        "width": 512,
        "height": 768,
    }
    assert json.loads(row.details or "") == {
        "part_id": 1,
        "user_name": "ab" * 32,
        "timestamp": "2022-08-11T09:05:00Z",
        "image_nsfw": 0.25,
        "prompt_nsfw": 0.1,
    }


def test_an_unknown_column_is_kept(tmp_path: Path) -> None:
    table = write_metadata(tmp_path, [fact(0, ratio=0.5, likes=3)])
    row = images(collect(diffusion_db(table)))["0.png"]
    details = json.loads(row.details or "")
    assert (details["ratio"], details["likes"]) == ("0.5", 3)


def test_metadata_beside_parts_is_read_and_their_json_is_not(tmp_path: Path) -> None:
    write_part(tmp_path / "images", 1, {"0.png": record(5), "1.png": record(6)})
    write_metadata(tmp_path, [fact(0), fact(1)])
    rows = images(collect(diffusion_db(tmp_path)))
    assert [row.seed for row in rows.values()] == [2**32 - 1] * 2


def test_a_missing_image_of_a_part_is_counted_and_an_absent_part_is_told_apart(
    tmp_path: Path,
) -> None:
    save(tmp_path / "part-000001" / "0.png")
    table = write_metadata(tmp_path, [fact(0), fact(1), fact(2, part_id=9)])
    found = collect(diffusion_db(table))
    assert found.report["missing_first"] == ["1.png"]
    assert found.report["images_of_parts_not_there"] == 1
    assert images(found)["2.png"].path is None
    with pytest.raises(DataError, match=r"2 of 3 images are not there: '1.png', '2.png'"):
        collect(diffusion_db(table, settings=SourceSettings(missing_images="fail")))
    only = collect(diffusion_db(table, settings=DiffusionDbSettings(only_parts_there=True)))
    assert list(images(only)) == ["0.png", "1.png"]
    assert only.report["left_out_as_part_not_there"] == 1


def test_the_folder_of_images_may_lie_elsewhere(tmp_path: Path) -> None:
    table = write_metadata(tmp_path / "tables", [fact(0)], "metadata-large.parquet")
    save(tmp_path / "large" / "diffusiondb-large-part-1" / "part-000001" / "0.png")
    assert images(collect(diffusion_db(table, tmp_path / "large")))["0.png"].path is not None


def test_blurred_images_are_marked_and_may_be_left_out(tmp_path: Path) -> None:
    table = write_metadata(tmp_path, [fact(0, image_nsfw=2.0), fact(1)])
    found = collect(diffusion_db(table))
    assert json.loads(images(found)["0.png"].details or "")["blurred"] is True
    assert "blurred" not in json.loads(images(found)["1.png"].details or "")
    assert found.report["blurred"] == 1
    less = collect(diffusion_db(table, settings=DiffusionDbSettings(drop_blurred=True)))
    assert list(images(less)) == ["1.png"]
    assert less.report["left_out_as_blurred"] == 1


def test_a_limit_leaves_out_what_is_at_it_above_it_or_without_a_mark(tmp_path: Path) -> None:
    rows = [
        fact(0),
        fact(1, image_nsfw=0.5),
        fact(2, prompt_nsfw=0.9),
        fact(3, image_nsfw=None),
        fact(4, image_nsfw=float("nan")),
        fact(5, image_nsfw=2.0),
    ]
    table = write_metadata(tmp_path, rows)
    found = collect(diffusion_db(table, settings=DiffusionDbSettings(nsfw_below=0.5)))
    assert list(images(found)) == ["0.png"]
    assert found.report["left_out_as_nsfw"] == 3
    assert found.report["left_out_without_nsfw_mark"] == 2
    with pytest.raises(DataError, match="more than 0 and at most 1"):
        DiffusionDbSettings(nsfw_below=2.0)


def test_marks_need_the_metadata(tmp_path: Path) -> None:
    write_part(tmp_path, 1, {"a.png": record(1)})
    with pytest.raises(DataError, match="has no NSFW marks; give the metadata"):
        diffusion_db(tmp_path, settings=DiffusionDbSettings(drop_blurred=True))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sampler": 10}, "sampler is 10, expected a number from 1 to 9"),
        ({"sampler": None}, "sampler is None"),
        ({"seed": None}, "seed is None, expected a whole number"),
        ({"prompt": None}, "prompt is None, expected a text"),
        ({"cfg": float("inf")}, "cfg is inf, expected a finite number"),
        ({"image_nsfw": 1.5}, "image_nsfw is 1.5, expected 0 to 1, or 2"),
        ({"prompt_nsfw": 2.0}, "prompt_nsfw is 2.0, expected 0 to 1"),
        ({"image_name": "../1.png"}, "does not stay inside"),
        ({"part_id": None}, "part_id is None"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    table = write_metadata(tmp_path, [fact(0), fact(1, **changes)])
    with pytest.raises(DataError, match=rf"metadata.parquet: row 1 \(image .*\): .*{told}"):
        collect(diffusion_db(table))
    assert len(collect(diffusion_db(table, settings=SourceSettings(allow_errors=True))).images) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"se": -1}, "se is -1, expected a whole number from 0 to 4,294,967,295"),
        ({"se": True}, "se is 'True'"),
        ({"st": 70_000}, "st is 70000"),
        ({"c": "7"}, "c is '7', expected a number"),
        ({"c": 10**400}, "c is 10+, expected a finite number"),
        ({"p": None}, "p is 'None', expected a text"),
        ({"x": 1}, "unknown key 'x'"),
    ],
)
def test_a_bad_record_of_a_part_is_named(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    write_part(tmp_path, 3, {"a.png": record(1), "b.png": record(2, **changes)})
    with pytest.raises(DataError, match=f"part-000003.json, image 'b.png': .*{told}"):
        collect(diffusion_db(tmp_path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a.png": {"p": "x"', "breaks off; the file is incomplete"),
        ('{"a.png": {"p": "x', "breaks off; the file is incomplete"),
        ('{"a.png" 3}', "is no valid JSON"),
        ("[1]", "expected an object of image names"),
        ('{"a.png": 3}', "expected an object, found '3'"),
        ('{"a.png": {"p": "x", "p": "y"}}', "has a key twice"),
    ],
)
def test_a_broken_part_is_one_fault_and_the_others_stay(
    tmp_path: Path, text: str, told: str
) -> None:
    write_part(tmp_path, 1, text)
    write_part(tmp_path, 2, {"b.png": record(2)})
    with pytest.raises(DataError, match=f"part-000001.json.*{told}"):
        collect(diffusion_db(tmp_path))
    allowed = collect(diffusion_db(tmp_path, settings=SourceSettings(allow_errors=True)))
    assert list(images(allowed)) == ["b.png"]


def test_a_part_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    part = write_part(tmp_path, 1, "")
    (part / "part-000001.json").write_bytes(b'{"a.png": {"p": "\xff"}}')
    with pytest.raises(DataError, match=r"part-000001.json: is no UTF-8 text \(byte 17\)"):
        collect(diffusion_db(tmp_path))


def test_an_image_that_the_json_does_not_name_is_counted(tmp_path: Path) -> None:
    part = write_part(tmp_path, 1, {"a.png": record(1)})
    save(part / "b.png")
    assert collect(diffusion_db(tmp_path)).report["images_not_in_the_json"] == 1


def test_an_image_that_comes_twice_is_refused(tmp_path: Path) -> None:
    text = json.dumps({"a.png": record(1)})
    write_part(tmp_path / "db", 1, text[:-1] + ", " + text[1:])
    with pytest.raises(DataError, match=r"image 'a.png' comes twice"):
        write_import(diffusion_db(tmp_path / "db"), tmp_path / "out")


def replaced(table: Path, name: str, column: pa.Array) -> None:
    found = pq.read_table(table)
    pq.write_table(found.set_column(found.schema.get_field_index(name), name, column), table)


def test_a_column_of_another_kind_is_no_end_of_it(tmp_path: Path) -> None:
    table = write_metadata(tmp_path, [fact(0), fact(1)])
    replaced(table, "user_name", pa.array([b"ab", None]))
    rows = images(collect(diffusion_db(table)))
    assert json.loads(rows["0.png"].details or "")["user_name"] == "b'ab'"
    replaced(table, "sampler", pa.array([[8], None]))
    with pytest.raises(
        DataError, match=r"2 of 2 rows .*sampler is \[8\], expected a number from 1"
    ):
        collect(diffusion_db(table))


def test_a_prompt_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    table = write_metadata(tmp_path, [fact(0), fact(1)])
    replaced(table, "prompt", pa.array([b"fox", b"\xff"]).view(pa.string()))
    with pytest.raises(DataError, match="holds a text after row 0 that is no UTF-8"):
        collect(diffusion_db(table))


def test_what_is_no_diffusion_db_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no folder such as part-000001"):
        diffusion_db(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        diffusion_db(tmp_path / "none")
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="is no whole Parquet file"):
        collect(diffusion_db(tmp_path))
    pq.write_table(pa.table({"image_name": ["a"]}), tmp_path / "metadata.parquet")
    with pytest.raises(DataError, match="has no column 'prompt'"):
        collect(diffusion_db(tmp_path))
    write_metadata(tmp_path, [fact(0)], "metadata-large.parquet")
    with pytest.raises(DataError, match="give the path of one of them"):
        diffusion_db(tmp_path)


def test_an_import_is_found_again_and_told_apart_by_its_files(tmp_path: Path) -> None:
    part = write_part(tmp_path / "db", 1, {"a.png": record(1)})
    result = write_import(diffusion_db(tmp_path / "db"), tmp_path / "out")
    assert (result["images"], result["choices"], result["prompts"]) == (1, 0, 1)
    before = diffusion_db(tmp_path / "db").inputs
    assert before == diffusion_db(tmp_path / "db").inputs
    save(part / "b.png")
    assert diffusion_db(tmp_path / "db").inputs != before


def test_the_data_set_may_not_replace_the_images(tmp_path: Path) -> None:
    write_part(tmp_path, 1, {"a.png": record(1)})
    with pytest.raises(DataError, match="holds files that are imported"):
        write_import(diffusion_db(tmp_path), tmp_path, overwrite=True)

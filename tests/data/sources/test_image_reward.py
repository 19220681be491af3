"""ImageReward: rankings with ties, rows of one image, groups and pairs, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.data.importing import collect, write_import
from palate.data.records import Choice, Image
from palate.data.sources.common import Imported, SourceSettings
from palate.data.sources.image_reward import image_reward
from palate.data.tables import to_rows
from palate.errors import DataError

RANKS = (2, 1, 4, 2)
OVERALL = (4, 7, 1, 4)


def ranking(number: int, **changes: object) -> dict[str, object]:
    names = [f"part-005658/images/{number:04}/{k}.webp" for k in range(3)]
    base = {"id": f"005658-{number:04}", "prompt": f"p{number}", "generations": names}
    return base | {"ranking": [1, 3, 3]} | changes


def row(place: int, prompt: int = 0, **changes: object) -> dict[str, Any]:
    base = {
        "image_id": f"{prompt}-{place}",
        "image_path": f"images/train/train_1/{prompt}-{place}.webp",
        "prompt_id": f"000864-{prompt:04}",
        "prompt": f"p{prompt}",
        "classification": "People",
        "image_amount_in_total": 4,
        "rank": RANKS[place],
        "overall_rating": OVERALL[place],
        "image_text_alignment_rating": 3,
        "fidelity_rating": 7 - place,
    }
    return base | changes


def rows(prompt: int = 0, **changes: object) -> list[dict[str, Any]]:
    return [row(place, prompt, **changes) for place in range(4)]


def picture(colour: int = 0) -> bytes:
    data = io.BytesIO()
    PIL.Image.fromarray(np.full((4, 6, 3), colour, np.uint8)).save(data, "WEBP", lossless=True)
    return data.getvalue()


def write(folder: Path, records: object, name: str = "test.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".jsonl"):
        assert isinstance(records, list)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        path.write_text(json.dumps(records))
    return path


def write_parquet(folder: Path, records: list[dict[str, Any]], name: str = "m.parquet") -> Path:
    whole = ("image_amount_in_total", "rank", *(key for key in records[0] if "rating" in key))
    kinds = {
        key: pa.int8() for key in whole if key in records[0] and isinstance(records[0][key], int)
    }
    columns = {key: pa.array([one[key] for one in records], kinds.get(key)) for key in records[0]}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def read(path: Path, images: Path | None = None, **settings: Any) -> Imported:
    return collect(image_reward(path, images, SourceSettings(**settings)))


def choices(found: Imported) -> dict[str, Choice]:
    return {one.choice: one for one in to_rows(found.choices, Choice)}


def images(found: Imported) -> dict[str, Image]:
    return {one.image: one for one in to_rows(found.images, Image)}


def test_a_ranking_keeps_ties_and_unused_ranks(tmp_path: Path) -> None:
    [one] = choices(read(write(tmp_path, [ranking(7)]))).values()
    assert (one.choice, one.ranks, one.dimension) == (
        "image-reward/005658-0007",
        (1, 3, 3),
        "overall",
    )
    assert one.images == tuple(f"part-005658/images/0007/{k}.webp" for k in range(3))
    assert (one.annotator, one.source) == (None, "image-reward/test.json")


def test_nothing_of_the_real_rankings_is_lost(shared: Path) -> None:
    path = shared / "data" / "image_reward" / "test.json"
    official = json.loads(path.read_text())
    found = read(path)
    told = [
        {
            "id": one.choice.removeprefix("image-reward/"),
            "prompt": one.prompt,
            "generations": list(one.images),
            "ranking": list(one.ranks),
        }
        for one in choices(found).values()
    ]
    assert told == official
    assert len(told) == 466
    assert len(found.images) == 2720
    assert found.report["faults"]["count"] == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ranking": [1, 2]}, "ranking has 2 places for 3 images"),
        ({"ranking": [0, 1, 2]}, "not all between 1"),
        ({"ranking": [1, 2, "x"]}, "no whole number"),
        ({"ranking": None}, "expected a list"),
        ({"generations": ["a", "b", 3]}, "no text"),
        ({"generations": ["a", "b", "a"]}, "shown twice"),
        ({"generations": ["a", "b", "../c"]}, "does not stay inside"),
        ({"id": "005658-0000"}, "was there before"),
        ({"prompt": 3}, "expected a text"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_a_bad_ranking_is_named(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    path = write(tmp_path, [ranking(0), ranking(1, **changes), ranking(2)])
    with pytest.raises(DataError, match=f"test.json: record 1: .*{told}"):
        read(path)
    assert len(read(path, allow_errors=True).choices) == 2


def test_rows_of_a_prompt_are_a_ranking_and_three_ratings(tmp_path: Path) -> None:
    found = read(write(tmp_path, rows(), "train_1.json"))
    told = {one.dimension: one.ranks for one in choices(found).values()}
    assert told == {
        "overall": RANKS,
        "rating": (2, 1, 3, 2),
        "alignment": (1, 1, 1, 1),
        "fidelity": (1, 2, 3, 4),
    }
    rating = choices(found)["image-reward-db/000864-0000/rating"]
    assert json.loads(rating.details or "") == {
        "prompt_id": "000864-0000",
        "ratings": list(OVERALL),
    }
    assert rating.source == "image-reward/train_1.json"
    assert found.report["all_tied"] == 1
    image = images(found)["images/train/train_1/0-2.webp"]
    assert json.loads(image.details or "") == {
        "classification": "People",
        "fidelity_rating": 5,
        "image_id": "0-2",
        "image_text_alignment_rating": 3,
        "overall_rating": 1,
        "prompt_id": "000864-0000",
    }


def test_rows_of_a_prompt_need_not_follow_each_other(tmp_path: Path) -> None:
    mixed = [one for pair in zip(rows(0), rows(1), strict=True) for one in pair]
    found = read(write(tmp_path, mixed, "m.json"))
    assert {one.images for one in choices(found).values()} == {
        tuple(one["image_path"] for one in rows(prompt)) for prompt in (0, 1)
    }


def test_every_way_to_write_the_rows_gives_the_same(tmp_path: Path) -> None:
    both = [*rows(0), *rows(1)]
    told = [
        [(one.choice, one.images, one.ranks) for one in choices(read(path)).values()]
        for path in (
            write(tmp_path, both, "a.json"),
            write(tmp_path, both, "b.jsonl"),
            write_parquet(tmp_path, both),
        )
    ]
    assert told[0] == told[1] == told[2]
    assert len(told[0]) == 8


def test_a_folder_of_shards_is_one_set_and_a_prompt_may_go_over_its_edge(tmp_path: Path) -> None:
    both = [*rows(0), *rows(1)]
    write_parquet(tmp_path / "meta", both[:3], "metadata-0.parquet")
    write_parquet(tmp_path / "meta", both[3:], "metadata-1.parquet")
    found = read(tmp_path / "meta")
    assert len(found.choices) == 8
    assert choices(found)["image-reward-db/000864-0001/overall"].source == (
        "image-reward/metadata-1.parquet"
    )


def test_a_folder_of_json_parts_is_one_set(tmp_path: Path) -> None:
    write(tmp_path, rows(0), "images/train/train_1/train_1.json")
    write(tmp_path, rows(1), "images/train/train_2/train_2.json")
    assert len(read(tmp_path).choices) == 8


@pytest.mark.parametrize(
    "place",
    ["images/train/train_1/0-1.webp", "images/train/0-1.webp", "train_1/0-1.webp", "0-1.webp"],
)
def test_an_image_is_found_however_its_zip_was_unpacked(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(picture())
    found = read(write(tmp_path, rows(), "m.json"))
    assert images(found)["images/train/train_1/0-1.webp"].width == 6
    assert found.report["missing_images"] == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"overall_rating": 8}, "overall_rating is 8, expected a whole number from 1 to 7"),
        ({"fidelity_rating": 0}, "fidelity_rating is 0"),
        ({"image_text_alignment_rating": 2.5}, "image_text_alignment_rating is 2.5"),
        ({"rank": 0}, "rank is 0, expected a whole number from 1"),
        ({"rank": None}, "rank is None"),
        ({"prompt": "other"}, "prompt is 'other', but 'p0' in the rows before"),
        ({"image_amount_in_total": 3}, "image_amount_in_total is 3, but 4 in the rows before"),
        ({"image_path": ""}, "image has neither a path nor bytes"),
    ],
)
def test_a_bad_row_is_named_and_takes_its_ranking_along(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    broken = rows(0)
    broken[2] |= changes
    path = write(tmp_path, [*broken, *rows(1)], "m.json")
    with pytest.raises(DataError, match=f"m.json: record 2: {told}"):
        read(path)
    found = read(path, allow_errors=True)
    assert {one.prompt for one in choices(found).values()} == {"p1"}
    assert found.report["rankings_left_out"] == 1
    assert found.report["faults"]["count"] == 1


def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    broken = rows(0)
    broken[3]["image_path"] = "../x.webp"
    with pytest.raises(DataError, match=r"record 3: .*does not stay inside"):
        read(write(tmp_path, broken, "m.json"))


def test_too_few_images_of_a_prompt_are_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path, [*rows(0)[:3], *rows(1)], "m.json")
    with pytest.raises(DataError, match=r"record 0 and on: .* has 3 images, .* is 4"):
        read(path)
    assert len(read(path, allow_errors=True).choices) == 4


def test_too_many_images_of_a_prompt_are_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path, [*rows(0), row(0, image_path="x.webp")], "m.json")
    with pytest.raises(DataError, match=r"record 4: .*more images than image_amount_in_total"):
        read(path)


def test_an_image_twice_in_a_ranking_is_a_fault(tmp_path: Path) -> None:
    broken = rows(0)
    broken[1]["image_path"] = broken[0]["image_path"]
    with pytest.raises(DataError, match="is shown twice"):
        read(write(tmp_path, broken, "m.json"))


def test_a_prompt_with_one_image_gives_the_image_only(tmp_path: Path) -> None:
    found = read(write(tmp_path, [row(0, image_amount_in_total=1)], "m.json"))
    assert (len(found.images), len(found.choices), found.report["single"]) == (1, 0, 1)


def test_a_group_is_the_same_as_its_rows(tmp_path: Path) -> None:
    lists = ("rank", "overall_rating", "image_text_alignment_rating", "fidelity_rating")
    group = {key: row(0)[key] for key in ("prompt_id", "prompt", "classification")}
    group |= {key: [one[key] for one in rows()] for key in lists}
    group["image"] = [{"path": f"cache/0-{k}.webp", "bytes": picture(k)} for k in range(4)]
    found = read(write_parquet(tmp_path, [group]))
    alone = read(write(tmp_path, rows(), "m.json"))
    assert [one.ranks for one in choices(found).values()] == [
        one.ranks for one in choices(alone).values()
    ]
    assert list(images(found)) == [f"0-{k}.webp" for k in range(4)]
    assert {one.width for one in images(found).values()} == {6}
    group["rank"] = [1, 2]
    with pytest.raises(DataError, match="row 0: rank has 2 places for 4 images"):
        read(write_parquet(tmp_path, [group]))


def test_pairs_stand_in_an_order_that_does_not_give_the_better_one_away(tmp_path: Path) -> None:
    base = {key: row(0)[key] for key in ("prompt_id", "prompt", "classification")}
    pairs = [
        base
        | {
            "img_better": {"path": f"{better}.webp", "bytes": picture(1)},
            "img_worse": {"path": f"{worse}.webp", "bytes": picture(2)},
        }
        for better, worse in (("a", "b"), ("c", "a"))
    ]
    found = read(write_parquet(tmp_path, pairs))
    assert [(one.images, one.ranks) for one in choices(found).values()] == [
        (("a.webp", "b.webp"), (1, 2)),
        (("a.webp", "c.webp"), (2, 1)),
    ]
    assert len(found.images) == 3
    assert found.report["pairs"] == 2


def test_bytes_beside_the_path_are_written_as_they_are(tmp_path: Path) -> None:
    one_each = rows()
    for place, one in enumerate(one_each):
        del one["image_path"]
        one["image"] = {"path": f"{place}.webp", "bytes": picture(place)}
    source = image_reward(write_parquet(tmp_path / "in", one_each))
    write_import(source, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "images.parquet")
    for place, one in enumerate(to_rows(table, Image)):
        assert one.image == f"{place}.webp"
        assert (tmp_path / "out" / (one.path or "")).read_bytes() == picture(place)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"id": "a", "prompt"', "breaks off in record 0"),
        ("", "empty file"),
        ('[{"colour": 1}]', "record 0: has no 'generations', .*; there are colour"),
        ("[3]", "record 0: expected an object, found '3'"),
        ("colour,prompt\n", "expected a JSON list"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "test.json"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        read(path)


def test_mixed_encodings_and_truncated_parquet_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    path.write_bytes(json.dumps([ranking(0)]).encode()[:-40] + "é".encode("latin-1"))
    with pytest.raises(DataError, match="is no UTF-8 text"):
        read(path)
    whole = write_parquet(tmp_path, rows())
    whole.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(DataError, match="is no whole Parquet file, it breaks off before row 0"):
        read(whole)


def test_an_empty_folder_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no Parquet or JSON file"):
        read(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "x.json")

"""Images inside tars and Parquet files are scored as files are, and what is wrong with them is told."""

from __future__ import annotations

import io
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from palate.cli.main import main
from palate.errors import DataError, RunError
from palate.models.tiny import tiny_clip
from palate.scoring.cache import FeatureCache
from palate.scoring.inputs import gather_images
from palate.scoring.networks import ClipScorer
from palate.scoring.packed import expand
from palate.scoring.score import ScoreSettings, score_gathered, score_images


@pytest.fixture(scope="module")
def scorer():
    return ClipScorer(tiny_clip(0), "tiny")


@pytest.fixture
def wanted(pictures, packing, scorer, tmp_path):
    """The scores of the same images as files."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in packing.members(pictures, range(11)):
        (folder / name).write_bytes(data)
    return score_gathered(gather_images([folder]), scorer, ScoreSettings(shard=4))[0]


def same(found, wanted):
    return found.drop(["image"]).equals(wanted.drop(["image"]))


@pytest.mark.parametrize("kind", ["txt", "json"])
def test_a_tar_is_scored_as_its_files_are(pictures, packing, wanted, scorer, tmp_path, kind):
    path = packing.tar(tmp_path / "a.tar", packing.members(pictures, range(11), kind))
    gathered = gather_images([path])
    assert (gathered.survey.rows, gathered.survey.size) == (11, path.stat().st_size)
    found, result = score_gathered(gathered, scorer, ScoreSettings(shard=4))
    assert found["image"].to_pylist()[:2] == ["a/00", "a/01"]
    assert same(found, wanted)
    assert result["images"] == 11


def test_many_tars_by_folder_by_pattern_and_by_name_are_the_same(
    pictures, packing, wanted, scorer, tmp_path
):
    for place, numbers in enumerate((range(4), range(4, 9), range(9, 11))):
        packing.tar(tmp_path / f"t-{place:03d}.tar", packing.members(pictures, numbers))
    ways = [[tmp_path / "t-{000..002}.tar"], [tmp_path / f"t-{n:03d}.tar" for n in range(3)]]
    (tmp_path / "set").mkdir()
    for path in ways[1]:
        (tmp_path / "set" / path.name).write_bytes(path.read_bytes())
    for way in (*ways, [tmp_path / "set"]):
        found, _ = score_gathered(gather_images(way), scorer, ScoreSettings(shard=4))
        assert found["image"].to_pylist()[3:5] == ["t-000/03", "t-001/04"]
        assert found["prompt"].equals(wanted["prompt"])
        assert np.allclose(found["value"], wanted["value"], atol=1e-4)


def test_a_tar_that_nobody_counted_is_one_piece(
    pictures, packing, wanted, scorer, tmp_path, monkeypatch
):
    monkeypatch.setattr("palate.scoring.tars._LOOKED_THROUGH", 0)
    path = packing.tar(tmp_path / "a.tar", packing.members(pictures, range(11)))
    gathered = gather_images([path])
    assert gathered.survey.rows is None
    assert len(list(gathered.source.pieces(4))) == 1
    out = tmp_path / "s.csv"
    with FeatureCache(tmp_path / "cache", 10**8) as cache:
        result = score_images(gathered, scorer, out, ScoreSettings(batch=4), cache=cache)
    assert result["images"] == 11
    assert result["cache"]["misses"] == 11
    found, _ = score_gathered(gathered, scorer, ScoreSettings())
    assert found["prompt"].equals(wanted["prompt"])


@pytest.mark.parametrize("column", ["image", "jpg"])
def test_parquet_with_the_images_inside_is_scored_as_files_are(
    pictures, packing, wanted, scorer, tmp_path, column
):
    path = packing.rows(tmp_path / "p.parquet", pictures, range(11), group=4)
    if column != "image":
        table = pa.table({"caption": pq.read_table(path)["prompt"], column: pictures})
        pq.write_table(table, path, row_group_size=2)
    gathered = gather_images([path])
    assert gathered.survey.rows == 11
    found, _ = score_gathered(gathered, scorer, ScoreSettings(shard=4))
    assert found["image"].to_pylist()[:2] == ["p/0", "p/1"]
    assert same(found, wanted)
    (tmp_path / "set").mkdir()
    packing.rows(tmp_path / "set" / "0.parquet", pictures, range(6))
    packing.rows(tmp_path / "set" / "1.parquet", pictures, range(6, 11))
    found, _ = score_gathered(gather_images([tmp_path / "set"]), scorer)
    assert found["image"].to_pylist()[5:7] == ["0/5", "1/0"]


def test_prompts_may_come_from_elsewhere(pictures, packing, scorer, tmp_path):
    path = packing.tar(tmp_path / "a.tar", [("x/1.png", pictures[0]), ("x/2.png", pictures[1])])
    with pytest.raises(DataError, match=r"a\.tar: 'x/1' has no prompt; give --prompt"):
        gather_images([path])
    rows = list(gather_images([path], prompt="all").source.rows())
    assert [(row.image, row.prompt) for row in rows] == [("a/x/1", "all"), ("a/x/2", "all")]
    lines = tmp_path / "p.csv"
    lines.write_text("image,prompt\na/x/1,one\nx/2,two\n")
    rows = gather_images([path], prompts=lines).source.rows()
    assert [row.prompt for row in rows] == ["one", "two"]
    assert [row.prompt for row in gather_images([path], need_prompts=False).source.rows()] == [
        ""
    ] * 2


def test_a_run_on_tars_goes_on_and_notices_a_change(pictures, packing, scorer, tmp_path):
    path = packing.tar(tmp_path / "a.tar", packing.members(pictures, range(11)))
    how, whole, part = ScoreSettings(shard=4), tmp_path / "w.parquet", tmp_path / "p.parquet"
    score_images(gather_images([path]), scorer, whole, how)
    broken = FailsLate(tiny_clip(0))
    with pytest.raises(RuntimeError):
        score_images(gather_images([path]), broken.scorer, part, how)
    assert len(list((tmp_path / "p.run/shards").iterdir())) == 2
    score_images(gather_images([path]), scorer, part, how)
    assert part.read_bytes() == whole.read_bytes()
    os.utime(path, (1, 1))
    with pytest.raises(RunError, match="on other inputs"):
        score_images(gather_images([path]), scorer, part, how)


class FailsLate:
    """A scorer that breaks at its third piece."""

    def __init__(self, clip):
        self.scorer, self.calls = ClipScorer(clip, "tiny"), 0
        real = self.scorer.eye.see_ready

        def see(pixels):
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("broken")
            return real(pixels)

        self.scorer.eye.see_ready = see


@pytest.mark.parametrize("cut", [512, 700, 3000, -1024])
def test_a_tar_that_breaks_off_is_told(pictures, packing, tmp_path, cut):
    path = packing.tar(tmp_path / "a.tar", packing.members(pictures, range(3)))
    with tarfile.open(path) as tar:
        last = list(tar)[-1]
    end = last.offset_data + 512
    path.write_bytes(path.read_bytes()[: cut if cut > 0 else end])
    with pytest.raises(DataError, match=r"a\.tar: (is no whole tar|is damaged or breaks off)"):
        gather_images([path])


def test_a_damaged_header_is_no_end(pictures, packing, tmp_path):
    path = packing.tar(tmp_path / "a.tar", packing.members(pictures, range(5)))
    with tarfile.open(path) as tar:
        place = tar.getmembers()[4].offset
    data = bytearray(path.read_bytes())
    data[place : place + 100] = b"\xff" * 100
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"is damaged or breaks off after"):
        gather_images([path])


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("1.png", 0), ("1.txt", b"x"), ("2.png", 1), ("2.txt", b""), ("1.json", b"{}")], "twice"),
        ([("1.png", 0), ("1.jpg", 1), ("1.txt", b"x")], "'1' has several images: png, jpg"),
        ([("1.png", 0), ("1.txt", b"x"), ("1.txt", b"y")], r"'1' has two files \.txt"),
        ([("1.png", 0), ("1.json", b"{")], "'1' has a broken text"),
        ([("1.png", 0), ("1.json", b'{"prompt": 3}')], "'1' has the prompt 3, expected a text"),
        ([("1.png", 0), ("1.json", b'{"seed": 3}')], "'1' has no prompt"),
        ([("1.png", 0), ("1.json", b'{"prompt": "\\ud800"}')], "'1' has half a character"),
        ([("\udce9.png", 0), ("\udce9.txt", b"x")], "is no name in UTF-8"),
        ([("1.png", 0), ("1.txt", b"\xff")], "'1' has a broken text"),
        ([], "holds no image"),
    ],
)
def test_a_fault_inside_a_tar_is_told(pictures, packing, scorer, tmp_path, members, told):
    named = [(name, pictures[data] if isinstance(data, int) else data) for name, data in members]
    path = packing.tar(tmp_path / "a.tar", named)
    with pytest.raises(DataError, match=told):
        score_gathered(gather_images([path]), scorer)


def test_a_broken_image_inside_is_a_row_with_an_error(pictures, packing, scorer, tmp_path):
    members = [
        ("1.png", pictures[0]),
        ("1.txt", b"x"),
        ("2.png", b"no"),
        ("2.txt", b"x"),
        ("3.txt", b"x"),
    ]
    found, result = score_gathered(
        gather_images([packing.tar(tmp_path / "a.tar", members)]), scorer
    )
    assert result["errors"] == 2
    assert "a/2: is no image of a known format" in found["error"].to_pylist()[1]
    assert found["error"].to_pylist()[2] == "a.tar has no image for '3'"
    images = [{"bytes": pictures[0], "path": None}, {"bytes": None, "path": "x"}, None]
    pq.write_table(pa.table({"image": images, "prompt": ["x"] * 3}), tmp_path / "p.parquet")
    found, result = score_gathered(gather_images([tmp_path / "p.parquet"]), scorer)
    assert found["error"].to_pylist()[1:] == [f"p.parquet has no image in row {n}" for n in (1, 2)]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"image": [b"x"]}, "has no column 'prompt'; there are image"),
        ({"image": [b"x"], "prompt": [3]}, "the column 'prompt' is int64, expected texts"),
        (
            {"image": pa.array([], pa.binary()), "prompt": pa.array([], pa.string())},
            "holds no image",
        ),
    ],
)
def test_parquet_without_its_columns_is_told(tmp_path, columns, told):
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=told):
        gather_images([tmp_path / "p.parquet"])


def test_a_column_of_keys_names_the_rows_of_parquet(pictures, tmp_path):
    rows = {"prompt": ["x"] * 4, "image": pictures[:4]}
    for name, keys, told in (
        ("image_id", ["w", "x", "y", "z"], None),
        ("key", ["a", "b", "a", "c"], r"p\.parquet: image 'a' is there twice"),
        ("path", ["a", "", "b", "c"], r"p\.parquet: row 1 has no path"),
    ):
        pq.write_table(pa.table({name: keys, **rows}), tmp_path / "p.parquet", row_group_size=2)
        if told is None:
            found = list(gather_images([tmp_path / "p.parquet"]).source.rows())
            assert [(row.image, row.data) for row in found] == list(
                zip(keys, pictures[:4], strict=True)
            )
        else:
            with pytest.raises(DataError, match=told):
                gather_images([tmp_path / "p.parquet"])


def test_what_is_wrong_with_a_damaged_page_is_one_sentence(pictures, packing, scorer, tmp_path):
    path = packing.rows(tmp_path / "p.parquet", pictures, range(11))
    data = bytearray(path.read_bytes())
    data[10:2010] = b"\xff" * 2000
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"p\.parquet") as told:
        score_gathered(gather_images([path]), scorer)
    assert "\n" not in str(told.value)


def test_a_prompt_that_lacks_in_a_row_is_told(pictures, scorer, tmp_path):
    pq.write_table(
        pa.table({"image": [pictures[0]], "prompt": pa.array([None], pa.string())}),
        tmp_path / "p.parquet",
    )
    with pytest.raises(DataError, match=r"p\.parquet: '0' has no prompt"):
        score_gathered(gather_images([tmp_path / "p.parquet"]), scorer)


def test_a_damaged_parquet_file_of_a_folder_is_told(pictures, packing, tmp_path):
    for number in range(2):
        packing.rows(tmp_path / f"{number}.parquet", pictures, range(3))
    (tmp_path / "1.parquet").write_bytes((tmp_path / "1.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"1\.parquet: not a readable Parquet file"):
        gather_images([tmp_path])


def test_kinds_and_names_that_do_not_go_together_are_told(pictures, packing, tmp_path):
    tar = packing.tar(tmp_path / "a.tar", packing.members(pictures, range(2)))
    (tmp_path / "b").mkdir()
    other = packing.tar(tmp_path / "b" / "a.tar", packing.members(pictures, range(2)))
    (tmp_path / "x.png").write_bytes(pictures[0])
    for paths, told in (
        ([tar, tmp_path / "x.png"], "are of several kinds"),
        ([tmp_path], "holds tars and images"),
        ([tar, other], "is called like"),
        ([tar, tar], "was given twice"),
        ([tmp_path / "a-{0..1}.tar"], r"a-0\.tar: no such file"),
    ):
        with pytest.raises(DataError, match=told):
            gather_images(paths)


@given(st.integers(0, 1200), st.integers(0, 30), st.integers(1, 4))
@settings(max_examples=30)
def test_a_pattern_is_written_out(first, more, width):
    names = expand(f"x-{{{first:0{width}d}..{first + more}}}.tar")
    assert names == [f"x-{n:0{width}d}.tar" for n in range(first, first + more + 1)]


def test_the_command_takes_tars_and_has_no_gallery_of_them(pictures, packing, tmp_path, capsys):
    path = packing.tar(tmp_path / "a.tar", packing.members(pictures, range(3)))
    assert (
        main(["score", str(path), "--scorer", "miniature", "--out", str(tmp_path / "s.csv")]) == 0
    )
    assert "a/02" in (tmp_path / "s.csv").read_text()
    command = ["score", str(path), "--scorer", "miniature", "--gallery", str(tmp_path / "g.html")]
    assert main(command) == 2
    assert "a gallery is made of image files" in capsys.readouterr().err


def test_a_large_tar_is_never_in_memory_whole(packing, scorer, tmp_path):
    import tracemalloc

    sink = io.BytesIO()
    Picture.new("RGB", (64, 64)).save(sink, "PNG")
    data = sink.getvalue() + bytes(200_000)  # what follows the picture's end is not looked at
    members = (m for n in range(300) for m in ((f"{n}.png", data), (f"{n}.txt", b"x")))
    path = packing.tar(tmp_path / "a.tar", members)
    gathered = gather_images([path])
    tracemalloc.start()
    score_gathered(gathered, scorer, ScoreSettings(batch=4, shard=300, workers=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25_000_000  # of 60 MB

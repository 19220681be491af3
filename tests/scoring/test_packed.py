"""Images packed into tars and Parquet: scored like the same files in a folder, and broken ones are told."""

from __future__ import annotations

import io
import json
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

from palate.errors import DataError
from palate.scoring.catalog import load
from palate.scoring.inputs import gather_images
from palate.scoring.score import score_gathered

PROMPTS = ("a fox", "two cats, asleep", "a fox", "", "ein Bär", "a boat", "a fox in snow")


@pytest.fixture(scope="module")
def scorer():
    return load("miniature")


@pytest.fixture(scope="module")
def pictures():
    """Give the name, bytes and prompt of seven pictures."""
    random = np.random.default_rng(0)
    found = []
    for number, prompt in enumerate(PROMPTS):
        sink, ending = io.BytesIO(), ("png", "jpg", "webp")[number % 3]
        pixels = random.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        Picture.fromarray(pixels).save(sink, {"jpg": "jpeg"}.get(ending, ending))
        found.append((f"{number:04d}", ending, sink.getvalue(), prompt))
    return found


def write_tar(path, files, how=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=how) as tar:
        for name, data in files:
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            tar.addfile(facts, io.BytesIO(data))
    return path


def members(pictures, *, of_json=False):
    """Give the files of a tar: each image, and its prompt beside it."""
    for key, ending, data, prompt in pictures:
        yield f"{key}.{ending}", data
        if of_json:
            yield f"{key}.json", json.dumps({"caption": prompt, "width": 40}).encode()
        else:
            yield f"{key}.txt", prompt.encode()


def write_parquet(path, pictures, *, struct=True, prompt="prompt", **how):
    images = [data for _, _, data, _ in pictures]
    if struct:
        images = [{"bytes": data, "path": None} for data in images]
    columns = {"image" if struct else "jpg": images, prompt: [row[3] for row in pictures]}
    pq.write_table(pa.table(columns), path, **how)
    return path


def write_folder(path, pictures):
    path.mkdir()
    for key, ending, data, prompt in pictures:
        (path / f"{key}.{ending}").write_bytes(data)
        (path / f"{key}.txt").write_text(prompt, encoding="utf-8")
    return path


def rows_of(paths, **how):
    return list(gather_images(paths, **how).source.rows())


def keys(paths, **how):
    return [row.image for row in rows_of(paths, **how)]


def scored(paths, scorer):
    return score_gathered(gather_images(paths), scorer)[0]


def packings(place, pictures):
    """Give the same pictures in every kind of packing, each of more than one piece, group or file."""
    yield [write_tar(place / "one.tar", members(pictures))]
    yield [write_tar(place / "j.tar", members(pictures, of_json=True), tarfile.GNU_FORMAT)]
    (place / "tars").mkdir()
    write_tar(place / "tars" / "a.tar", members(pictures[:3]))
    write_tar(place / "tars" / "b.tar", members(pictures[3:]))
    yield [place / "tars"]
    yield [place / "tars" / "a.tar", place / "tars" / "b.tar"]
    yield [write_parquet(place / "one.parquet", pictures, row_group_size=2)]
    yield [write_parquet(place / "flat.parquet", pictures, struct=False, prompt="text")]
    (place / "parts").mkdir()
    write_parquet(place / "parts" / "0.parquet", pictures[:4], prompt="caption")
    write_parquet(place / "parts" / "1.parquet", pictures[4:], prompt="caption")
    yield [place / "parts"]


def test_packed_pictures_score_as_those_in_a_folder(tmp_path, pictures, scorer):
    wanted = scored([write_folder(tmp_path / "folder", pictures)], scorer)
    for paths in packings(tmp_path, pictures):
        found = scored(paths, scorer)
        assert found["prompt"].equals(wanted["prompt"])
        assert found["error"].null_count == len(pictures)
        if len(paths) == 1 and paths[0].is_file():
            assert found["value"].equals(wanted["value"]), paths
        else:  # several files are several pieces, and prompts in other batches differ by rounding
            assert np.allclose(found["value"], wanted["value"], rtol=0, atol=1e-4), paths


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_pieces_survive_a_pickle_and_give_all_rows(tmp_path, pictures, size):
    for paths in packings(tmp_path, pictures):
        source = gather_images(paths).source
        pieces = [pickle.dumps(piece) for piece in source.pieces(size)]
        assert max(map(len, pieces)) < 2_000  # what a piece holds are places, not images
        rows = [row for piece in pieces for row in pickle.loads(piece).rows()]
        assert rows == list(source.rows())
        assert [row.data for row in rows] == [data for _, _, data, _ in pictures]
        marks = [piece.mark() for piece in source.pieces(size)]
        assert marks == [pickle.loads(piece).mark() for piece in pieces]
        assert len(set(marks)) == len(marks)


def test_a_survey_counts_and_knows_a_changed_tar(tmp_path, pictures):
    path = write_tar(tmp_path / "a.tar", members(pictures))
    before = gather_images([path])
    assert (before.survey.rows, before.survey.size) == (len(pictures), path.stat().st_size)
    assert gather_images([path]).survey == before.survey
    marks = [piece.mark() for piece in before.source.pieces(3)]
    changed = [*pictures[:-1], (*pictures[-1][:2], pictures[0][2], pictures[-1][3])]
    write_tar(path, members(changed))
    after = gather_images([path])
    assert after.survey.state != before.survey.state
    assert not {piece.mark() for piece in after.source.pieces(3)} & set(marks)


def test_a_key_ends_at_the_first_dot_after_the_last_slash(tmp_path, pictures):
    data = pictures[0][2]
    files = [("v1.2/a.b.png", data), ("v1.2/a.png", data), ("v1.2/a.txt", b"a fox\n")]
    path = write_tar(tmp_path / "s.00.tar", [*files, ("._a.png", b"\0"), ("b.PNG", data)])
    assert [(row.image, row.data) for row in rows_of([path], need_prompts=False)] == [
        ("s.00/v1.2/a", data),
        ("s.00/b", data),
    ]


@pytest.mark.parametrize("how", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_whole_in_every_piece(tmp_path, pictures, how):
    long = [(f"{'long/' * 40}{key}", *rest) for key, *rest in pictures]
    source = gather_images([write_tar(tmp_path / "a.tar", members(long), how)]).source
    found = [row.image for piece in source.pieces(2) for row in piece.rows()]
    assert found == [f"a/{row[0]}" for row in long]


def test_prompts_are_asked_for_unless_given_or_not_needed(tmp_path, pictures):
    bare = [(f"{key}.{ending}", data) for key, ending, data, _ in pictures]
    path = write_tar(tmp_path / "bare.tar", bare)
    with pytest.raises(DataError, match=r"bare\.tar: '0000' has no prompt; give --prompt"):
        gather_images([path])
    assert {row.prompt for row in rows_of([path], prompt="a fox")} == {"a fox"}
    assert {row.prompt for row in rows_of([path], need_prompts=False)} == {""}
    table = pa.table({"image": [{"bytes": pictures[0][2], "path": "x.png"}]})
    pq.write_table(table, tmp_path / "bare.parquet")
    with pytest.raises(DataError, match=r"bare\.parquet: has no column 'prompt'"):
        gather_images([tmp_path / "bare.parquet"])
    assert [row.prompt for row in rows_of([tmp_path / "bare.parquet"], prompt="x")] == ["x"]
    assert [row.prompt for row in rows_of([tmp_path / "bare.parquet"], need_prompts=False)] == [""]


def test_a_tar_cut_anywhere_is_told(tmp_path, pictures):
    whole = write_tar(tmp_path / "a.tar", members(pictures)).read_bytes()
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    for stop in (100, 512, 700, 5_000, end // 2, end - 512, end):
        (tmp_path / "a.tar").write_bytes(whole[:stop])
        with pytest.raises(DataError, match=r"a\.tar: is (damaged|no whole tar)"):
            rows_of([tmp_path / "a.tar"])


BROKEN = {
    "there twice": [("a.png", b"1"), ("a.txt", b"x"), ("b.png", b"2"), ("b.txt", b"x"), ("a.png", b"3")],
    "has several images": [("a.png", b"1"), ("a.jpg", b"2"), ("a.txt", b"x")],
    "has the prompt 3": [("a.png", b"1"), ("a.json", b'{"prompt": 3}')],
    "has a broken text": [("a.png", b"1"), ("a.json", b"{")],
    "has no prompt": [("a.png", b"1"), ("a.json", b'{"width": 3}')],
    "holds no image": [],
}  # fmt: skip


@pytest.mark.parametrize("told", BROKEN)
def test_a_broken_tar_is_told_in_one_sentence(tmp_path, told):
    path = write_tar(tmp_path / "a.tar", BROKEN[told])
    with pytest.raises(DataError, match=rf"a\.tar: .*{told}") as fault:
        rows_of([path])
    assert "\n" not in str(fault.value)


def test_a_tar_of_texts_alone_holds_no_image(tmp_path, pictures):
    path = write_tar(tmp_path / "a.tar", [("a.txt", b"a fox"), ("b.txt", b"a cat")])
    other = write_tar(tmp_path / "b.tar", members(pictures))
    for paths in ([path], [other, path]):
        with pytest.raises(DataError, match=r"a\.tar: holds no image"):
            gather_images(paths)


@pytest.mark.parametrize("ending", ["tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_a_compressed_tar_is_refused_before_anything_is_scored(tmp_path, pictures, ending):
    plain = write_tar(tmp_path / "plain.tar", members(pictures))
    path = tmp_path / f"a.{ending}"
    kind = {"tgz": "gz"}.get(ending, ending.rpartition(".")[2])
    with tarfile.open(path, f"w:{kind}") as tar:
        tar.add(plain, "x")
    with pytest.raises(DataError, match="compressed"):
        gather_images([path], prompt="a fox")
    with pytest.raises(DataError, match="compressed"):
        gather_images([tmp_path], prompt="a fox")
    plain.unlink()
    path.rename(tmp_path / "named.tar")
    with pytest.raises(DataError, match=r"named\.tar: is no whole tar"):
        gather_images([tmp_path / "named.tar"], prompt="a fox")


def test_a_compressed_tar_beside_images_is_left_alone(tmp_path, pictures):
    folder = write_folder(tmp_path / "folder", pictures)
    (folder / "backup.tar.gz").write_bytes(b"")
    assert len(rows_of([folder])) == len(pictures)


def test_two_images_of_a_key_are_found_before_the_run(tmp_path):
    path = write_tar(tmp_path / "a.tar", BROKEN["has several images"])
    with pytest.raises(DataError, match=r"a\.tar: 'a' has several images: png, jpg"):
        gather_images([path])


def test_tars_and_other_images_are_not_mixed(tmp_path, pictures):
    folder = write_folder(tmp_path / "folder", pictures)
    tar = write_tar(folder / "a.tar", members(pictures))
    with pytest.raises(DataError, match="folder: holds tars and images"):
        gather_images([folder])
    with pytest.raises(DataError, match="several kinds"):
        gather_images([tar, folder / "0000.png"])
    with pytest.raises(DataError, match="given twice"):
        gather_images([tar, tar])


def test_rows_of_parquet_are_named_by_file_and_row(tmp_path, pictures):
    path = write_parquet(tmp_path / "a.parquet", pictures, row_group_size=2)
    assert keys([path]) == [f"a/{row}" for row in range(len(pictures))]


def test_a_row_without_bytes_is_a_row_with_a_fault(tmp_path, pictures):
    column = [{"bytes": None, "path": "x.png"}, {"bytes": pictures[0][2], "path": None}]
    pq.write_table(pa.table({"image": column, "prompt": ["a", "b"]}), tmp_path / "a.parquet")
    first, second = rows_of([tmp_path / "a.parquet"])
    assert first.data is None
    assert first.fault == "a.parquet has no image in row 0"
    assert second.data == pictures[0][2]


def test_a_broken_parquet_is_told(tmp_path, pictures):
    path = write_parquet(tmp_path / "a.parquet", pictures)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet: is no Parquet file, or a damaged one"):
        gather_images([path])


def test_a_parquet_manifest_of_names_stays_a_manifest(tmp_path, pictures):
    write_folder(tmp_path / "folder", pictures)
    path = tmp_path / "folder" / "m.parquet"
    pq.write_table(pa.table({"image": ["0000.png"], "prompt": ["a fox"]}), path)
    (row,) = rows_of([path])
    assert (row.image, row.prompt, row.data) == ("0000.png", "a fox", None)
    assert row.file.endswith("0000.png")

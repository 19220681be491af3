"""Inputs: a prompts file serves each image by its own line, and a manifest streams and names its faults."""

from __future__ import annotations

import csv
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from palate.errors import DataError
from palate.scoring.inputs import gather_images
from palate.scoring.pieces import HeldPiece, Row


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two pictures of one name in two folders."""
    for place in ("a", "b"):
        (tmp_path / "dup" / place).mkdir(parents=True)
        Picture.new("RGB", (8, 8), "red").save(tmp_path / "dup" / place / "1.png")
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "dup").relative_to(tmp_path)


def test_a_bare_name_never_serves_two_images(folder, tmp_path):
    lines = tmp_path / "p.csv"
    lines.write_text("image,prompt\n1.png,a fox\n")
    told = (
        r"p\.csv: '1\.png' may be 'dup/a/1\.png' or 'dup/b/1\.png'; expected each with its folder"
    )
    for paths in ([folder], [folder / "a", folder / "b"], [folder / "a" / "1.png", folder / "b"]):
        with pytest.raises(DataError, match=told):
            gather_images(paths, prompts=lines)
    (folder / "prompts.csv").write_text(lines.read_text())
    with pytest.raises(DataError, match=r"prompts\.csv: '1\.png' may be"):
        gather_images([folder])
    manifest = tmp_path / "pairs.csv"
    manifest.write_text("image\ndup/a/1.png\ndup/b/1.png\n")
    with pytest.raises(DataError, match=told):
        gather_images([manifest], prompts=lines)


def test_a_name_with_its_folder_serves_its_image(folder, tmp_path):
    lines = tmp_path / "p.csv"
    lines.write_text("image,prompt\na/1.png,a fox\nb/1.png,a cat\n")
    found = gather_images([folder], prompts=lines).images
    assert found["prompt"].to_pylist() == ["a fox", "a cat"]
    lines.write_text("image,prompt\na/1.png,a fox\n1.png,a cat\n")
    found = gather_images([folder], prompts=lines).images
    assert found["prompt"].to_pylist() == ["a fox", "a cat"]


def test_a_prompt_that_is_lacking_is_the_prompts_files_fault(folder, tmp_path):
    (tmp_path / "manx.csv").write_text("image\ndup/a/1.png\n")
    (tmp_path / "pp.csv").write_text("image,prompt\n2.png,a fox\n")
    with pytest.raises(DataError, match=r"pp\.csv: has no prompt for image 'dup/a/1\.png'"):
        gather_images([tmp_path / "manx.csv"], prompts=tmp_path / "pp.csv")


def write(path, pairs):
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image", "prompt"), *pairs])
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"image": image, "prompt": prompt}) for image, prompt in pairs]
        path.write_text("\n".join(lines) + "\n")
    else:
        columns = {"image": [a for a, _ in pairs], "prompt": [b for _, b in pairs]}
        pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)
pairs = st.lists(
    st.tuples(st.sampled_from(["a.png", "b.png", "c/a.png", "ü.png"]), texts),
    min_size=1,
    max_size=9,
)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@given(found=pairs)
def test_the_slow_twin_gives_the_same_keys_and_faults(tmp_path_factory, ending, found):
    path = write(tmp_path_factory.mktemp("m") / f"list.{ending}", found)
    seen, keys, counts = set(), [], {}
    for image, prompt in found:
        if (image, prompt) in seen:
            with pytest.raises(DataError, match=f"image '{image}' stands there twice"):
                gather_images([path])
            return
        seen.add((image, prompt))
        counts[image] = counts.get(image, 0) + 1
        keys.append(image if counts[image] == 1 else f"{image}#{counts[image]}")
    gathered = gather_images([path])
    rows = [row for piece in gathered.source.pieces(2) for row in piece.rows()]
    assert [row.image for row in rows] == keys
    assert [row.prompt for row in rows] == [prompt for _, prompt in found]
    assert (gathered.survey.rows, gathered.survey.images) == (len(found), len(counts))
    assert gathered.images["image"].to_pylist() == keys


def test_a_line_that_comes_again_is_named(tmp_path):
    lines = [("a.png", f"prompt {n}") for n in range(50)]
    path = write(tmp_path / "list.csv", [*lines, ("a.png", "prompt 7"), ("a.png", "prompt 8")])
    with pytest.raises(DataError, match=r"line 52: image 'a\.png' stands there twice"):
        gather_images([path])


def test_faults_of_a_line_are_told(tmp_path):
    path = tmp_path / "list.jsonl"
    for line, told in (
        ('{"image": "", "prompt": "x"}', "line 1: the image has no name"),
        ('{"image": "a", "prompt": "\\ud800"}', "line 1: holds half a character"),
        ('{"image": "a", "prompt": 3}', "line 1: prompt is 3, expected a text"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(DataError, match=told):
            gather_images([path])


def test_the_digest_follows_rows_and_the_state_follows_files(tmp_path):
    Picture.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = write(tmp_path / "list.csv", [("a.png", "x"), ("b.png", "x")])
    first = gather_images([path]).survey
    Picture.new("RGB", (9, 9)).save(tmp_path / "b.png")
    second = gather_images([path]).survey
    assert second.digest == first.digest
    assert second.state != first.state
    write(path, [("a.png", "x"), ("b.png", "y")])
    third = gather_images([path]).survey
    assert third.digest != first.digest
    assert third.state == second.state


def test_a_piece_has_another_mark_for_another_row_or_file(tmp_path):
    file = tmp_path / "a.png"
    rows = (Row("a", "x", str(file)), Row("b", "y"))
    none = HeldPiece("p", rows).mark()
    Picture.new("RGB", (8, 8)).save(file)
    assert len({none, HeldPiece("p", rows).mark(), HeldPiece("p", rows[::-1]).mark()}) == 3


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_long_manifest_is_never_in_memory_whole(tmp_path, ending):
    count = 2_000
    path = write(
        tmp_path / f"list.{ending}", [("a.png", f"{n} {'x' * 5_000}") for n in range(count)]
    )
    tracemalloc.start()
    gathered = gather_images([path])
    rows = sum(len(list(piece.rows())) for piece in gathered.source.pieces(64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == count
    assert peak < 4_000_000  # of 10 MB of text

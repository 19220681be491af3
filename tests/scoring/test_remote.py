"""Inputs, images, tables and runs behind URLs: a real S3 server, and fsspec's memory."""

from __future__ import annotations

import io
import json
import logging
import sys

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.cli.main import main
from palate.data.records import Image
from palate.data.tables import to_table, write_table
from palate.data.urls import as_place, stream_url, url_below
from palate.errors import DataError, MissingExtraError, RunError
from palate.models.tiny import tiny_clip
from palate.scoring.inputs import gather_images
from palate.scoring.networks import ClipScorer
from palate.scoring.score import ScoreSettings, score_gathered, score_images

HOW = ScoreSettings(shard=4)


@pytest.fixture(scope="module")
def scorer():
    return ClipScorer(tiny_clip(0), "tiny")


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket on a server of its own."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
        fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@pytest.fixture
def memory():
    """The URL of a folder in memory, which is empty."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield "memory://place"
    store.store.clear()


@pytest.fixture
def local(pictures, packing, tmp_path):
    """The same things as files: pictures with prompts, a manifest, tars and Parquet with the images inside."""
    (tmp_path / "files").mkdir()
    for name, data in packing.members(pictures, range(11)):
        (tmp_path / "files" / name).write_bytes(data)
    lines = [
        json.dumps({"image": f"files/{n:02d}.png", "prompt": f"prompt {n}"}) for n in range(11)
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "tars").mkdir()
    packing.tar(tmp_path / "tars" / "t-0.tar", packing.members(pictures, range(6)))
    packing.tar(tmp_path / "tars" / "t-1.tar", packing.members(pictures, range(6, 11)))
    (tmp_path / "rows").mkdir()
    packing.rows(tmp_path / "rows" / "0.parquet", pictures, range(11), group=4)
    return tmp_path


def put(local, url):
    fsspec.core.url_to_fs(url)[0].put(f"{local}/", url, recursive=True)
    return url


def scored(place, scorer):
    return score_gathered(gather_images([place]), scorer, HOW)[0]


@pytest.mark.slow
def test_everything_behind_s3_is_scored_as_files_are(bucket, local, scorer, tmp_path):
    there = put(local, f"{bucket}/in")
    for name in ("files", "list.jsonl", "rows", "rows/0.parquet"):
        assert scored(f"{there}/{name}", scorer).equals(scored(local / name, scorer))
    # a tar behind a URL is one piece, so other images share its batches
    for name in ("tars", "tars/t-{0..1}.tar"):
        found, wanted = scored(f"{there}/{name}", scorer), scored(local / name, scorer)
        assert found.drop(["value"]).equals(wanted.drop(["value"]))
        assert np.allclose(found["value"], wanted["value"], atol=1e-4)
    out = f"{bucket}/out/scores.parquet"
    score_images(gather_images([f"{there}/list.jsonl"]), scorer, out, HOW)
    score_images(gather_images([local / "list.jsonl"]), scorer, tmp_path / "s.parquet", HOW)
    store = fsspec.filesystem("s3")
    assert store.cat(out) == (tmp_path / "s.parquet").read_bytes()
    assert json.loads(store.cat(f"{bucket}/out/scores.run/run.json"))["status"] == "finished"
    assert store.find(f"{bucket}/out/scores.run/shards") == []
    with pytest.raises(DataError, match=r"s3://nobody/list\.csv: "):
        gather_images(["s3://nobody/list.csv"])


def test_a_run_behind_a_url_goes_on_and_is_found_again(memory, local, scorer, monkeypatch):
    out, whole = f"{memory}/scores.csv", local / "whole.csv"
    gathered = gather_images([local / "list.jsonl"])
    score_images(gathered, scorer, whole, HOW)
    calls, real = [], scorer.eye.see_ready

    def see(pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(pixels)

    monkeypatch.setattr(scorer.eye, "see_ready", see)
    with pytest.raises(KeyboardInterrupt):
        score_images(gathered, scorer, out, HOW)
    store = fsspec.filesystem("memory")
    record = json.loads(store.cat(f"{memory}/scores.csv.run/run.json"))
    assert record["status"] == "interrupted"
    assert len(store.find(f"{memory}/scores.csv.run/shards")) == 2
    result = score_images(gathered, scorer, out, HOW)
    assert calls == [4, 4, 3, 3]
    assert (result["scores"], store.cat(out)) == (out, whole.read_bytes())
    assert json.loads(store.cat(f"{memory}/scores.csv.run/run.json"))["attempts"] == 2
    score_images(gathered, scorer, out, HOW)
    assert len(calls) == 4
    store.rm(out)  # a table that is gone is made again
    score_images(gathered, scorer, out, HOW)
    assert store.cat(out) == whole.read_bytes()


def test_another_run_behind_a_url_is_refused_by_its_name(memory, local, scorer):
    out = f"{memory}/run"
    score_images(gather_images([local / "list.jsonl"]), scorer, out, HOW)
    other = gather_images([local / "files"])
    with pytest.raises(
        RunError, match=r"^memory://place/run: holds a run of 'score' on other inputs"
    ):
        score_images(other, scorer, out, HOW)
    score_images(other, scorer, out, HOW, overwrite=True)
    fsspec.filesystem("memory").pipe_file(f"{memory}/there.csv", b"x")
    with pytest.raises(RunError, match=r"there\.csv: exists already"):
        score_images(other, scorer, f"{memory}/there.csv", HOW)


def test_a_table_of_images_behind_a_url_and_images_elsewhere(memory, local, pictures, scorer):
    store = fsspec.filesystem("memory")
    store.pipe_file(f"{memory}/pictures/0.png", pictures[0])
    store.pipe_file("memory://other/1.png", pictures[1])
    names = ["pictures/0.png", "memory://other/1.png", "../other/1.png", None]
    rows = [Image(image=str(n), prompt="x", path=name) for n, name in enumerate(names)]
    write_table(to_table(rows, "images"), local / "images.parquet")
    store.put_file(str(local / "images.parquet"), f"{memory}/images.parquet")
    for place in (memory, f"{memory}/images.parquet"):
        found = scored(place, scorer)
        assert found["error"].null_count == 3
        assert found["value"][1] == found["value"][2]
    (local / "list.csv").write_text("image,prompt\nmemory://other/1.png,x\nfiles/00.png,x\n")
    assert scored(local / "list.csv", scorer)["error"].null_count == 2
    store.rm("memory://other/1.png")
    (error,) = scored(local / "list.csv", scorer)["error"].drop_null().to_pylist()
    assert error == "memory://other/1.png: does not exist"


def test_faults_behind_urls_are_told(memory, local, scorer):
    store = fsspec.filesystem("memory")
    store.pipe_file(f"{memory}/list.csv", b"image,prompt\n0.png,x\n0.png,x\n")
    store.pipe_file(f"{memory}/broken.tar", (local / "tars/t-0.tar").read_bytes()[:3000])
    store.pipe_file(f"{memory}/broken.parquet", b"PAR1")
    store.pipe_file(f"{memory}/text/a.md", b"x")
    for name, told in (
        ("list.csv", r"memory://place/list\.csv, line 3: image '0\.png' stands there twice"),
        ("gone.csv", r"memory://place/gone\.csv: does not exist"),
        ("gone.tar", r"gone\.tar: does not exist"),
        ("gone.png", r"gone\.png: does not exist"),
        ("gone", "gone: does not exist, or holds no image"),
        ("broken.tar", r"memory://place/broken\.tar: (is no whole tar|is damaged)"),
        ("broken.parquet", r"broken\.parquet"),
        ("text", "holds no image"),
    ):
        with pytest.raises(DataError, match=told):
            scored(f"{memory}/{name}", scorer)
    with pytest.raises(DataError, match="no kind of place is called 'nowhere'"):
        gather_images(["nowhere://x/a.png"], prompt="x")


def test_a_store_whose_package_is_missing_is_told(monkeypatch):
    registry = sys.modules["fsspec.registry"]
    monkeypatch.setattr(registry, "_registry", {})
    monkeypatch.setattr(registry, "registry", {})
    for scheme, told in (("s3", "Install s3fs"), ("gs", "Install gcsfs")):
        missing = {"class": "nothing.There", "err": told}
        monkeypatch.setitem(registry.known_implementations, scheme, missing)
    with pytest.raises(MissingExtraError, match=r"s3://b/a\.tar needs the extra 's3'"):
        gather_images(["s3://b/a.tar"])
    with pytest.raises(DataError, match=r"gs://b/a\.tar: needs a package .*gcsfs"):
        gather_images(["gs://b/a.tar"])


def test_the_command_takes_urls(memory, local, capsys):
    put(local, memory)
    out = f"{memory}/s.csv"
    assert main(["score", f"{memory}/tars", "--scorer", "miniature", "--out", out]) == 0
    assert "11 scores: memory://place/s.csv" in capsys.readouterr().out
    assert fsspec.filesystem("memory").cat(out).count(b"\n") == 12
    files = f"file://{local}/files"
    assert main(["score", files, "--scorer", "miniature", "--out", f"file://{local}/s.csv"]) == 0
    assert (local / "s.csv").is_file()
    page = ["--gallery", str(local / "g.html")]
    assert main(["score", f"{memory}/files", "--scorer", "miniature", *page]) == 2
    assert "a gallery is made of image files on this machine" in capsys.readouterr().err


@given(st.data())
@settings(max_examples=25)
def test_a_stream_reads_what_a_file_reads(data):
    content = np.random.default_rng(0).bytes(1000)
    fsspec.filesystem("memory").pipe_file("memory://s/content", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palate.data.urls._BLOCK", data.draw(st.integers(1, 1200)))
        with stream_url("memory://s/content") as found, io.BytesIO(content) as wanted:
            for _ in range(data.draw(st.integers(1, 6))):
                place = data.draw(st.integers(0, 1100))
                count = data.draw(st.integers(0, 1100))
                assert found.seek(place) == wanted.seek(place)
                assert found.read(count) == wanted.read(count)
                assert found.tell() == wanted.tell()


def test_names_below_urls():
    assert url_below("s3://b/a", "c/1.png") == "s3://b/a/c/1.png"
    assert url_below("s3://b/a", "s3://c/1.png") == "s3://c/1.png"
    assert as_place("a/b.png").name == "b.png"

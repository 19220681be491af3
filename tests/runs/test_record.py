from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import palate
from palate.errors import DataError, RunError
from palate.runs import record as record_module
from palate.runs import start_run, write_atomic


@dataclass(frozen=True)
class Optimizer:
    rate: float = 0.1


@dataclass(frozen=True)
class Settings:
    steps: int = 5
    optimizer: Optimizer = field(default_factory=Optimizer)
    path: Path = Path("a/b")
    betas: tuple[float, ...] = (0.9, 0.99)


@pytest.fixture
def table(tmp_path):
    (tmp_path / "choices.parquet").write_bytes(b"choices")
    return {"choices": tmp_path / "choices.parquet", "scorer": "miniature"}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "one"


def read(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


def test_a_run_writes_down_what_it_was(out, table):
    with start_run("train", out, Settings(), table) as run:
        assert (run.out, run.finished, run.resuming, run.result) == (out, False, False, {})
        assert read(out)["status"] == "running"
        run.note(left_out=3)
        assert read(out)["notes"] == {"left_out": 3}
        run.finish({"accuracy": np.float64(0.5), "curve": np.arange(2), "file": Path("a")})
        assert run.finished
    record = read(out)
    assert record["status"] == "finished"
    assert record["verb"] == "train"
    assert record["palate"] == palate.__version__
    assert record["settings"]["optimizer"] == {"rate": 0.1}
    assert record["inputs"]["choices"]["path"] == str(table["choices"])
    assert len(record["inputs"]["choices"]["sha256"]) == 64
    assert record["inputs"]["scorer"]["text"] == "miniature"
    assert record["versions"]["numpy"] == np.__version__
    assert record["seconds"] >= 0
    assert record["result"] == {"accuracy": 0.5, "curve": [0, 1], "file": "a"}


def test_the_same_command_again_finds_its_result(out, table):
    with start_run("train", out, Settings(), table) as run:
        run.finish({"accuracy": 0.5})
    before = (out / "run.json").read_bytes()
    with start_run("train", out, Settings(), table) as run:
        assert run.finished
        assert not run.resuming
        assert run.result == {"accuracy": 0.5}
    assert (out / "run.json").read_bytes() == before


def test_an_input_that_moved_is_the_same_input(out, table, tmp_path):
    with start_run("train", out, Settings(), table) as run:
        run.finish({})
    moved = table["choices"].rename(tmp_path / "moved.parquet")
    with start_run("train", out, Settings(), {**table, "choices": moved}) as run:
        assert run.finished


def test_a_finished_run_whose_file_is_gone_is_done_again(out, table):
    with start_run("score", out, {}, table) as run:
        write_atomic(out / "scores.parquet", b"1")
        run.finish({}, files=["scores.parquet"])
    with start_run("score", out, {}, table) as run:
        assert run.finished
    (out / "scores.parquet").unlink()
    with start_run("score", out, {}, table) as run:
        assert not run.finished
        assert run.resuming
        write_atomic(out / "scores.parquet", b"1")
        run.finish({}, files=[out / "scores.parquet"])
    assert read(out)["files"] == ["scores.parquet"]
    assert read(out)["attempts"] == 2


@pytest.mark.parametrize("written", ["one/a", "a", "b", "absolute"])
def test_files_are_named_from_the_folder_which_can_move(tmp_path, monkeypatch, written):
    monkeypatch.chdir(tmp_path)
    with start_run("score", Path("one"), {}, {}) as run:
        for name in ("one/a", "one/b", "c"):
            write_atomic(Path(name), b"1")
        run.finish({}, files=[tmp_path / "c" if written == "absolute" else Path(written)])
    names = {"one/a": "a", "a": "a", "b": "b", "absolute": "../c"}
    assert read(Path("one"))["files"] == [names[written]]
    Path("one").rename("two")
    with start_run("score", Path("two"), {}, {}) as run:
        assert run.finished


def test_a_file_that_was_not_written_cannot_be_claimed(out):
    with pytest.raises(AssertionError, match="which is not there"):  # noqa: SIM117
        with start_run("score", out, {}, {}) as run:
            run.finish({}, files=["none"])
    assert read(out)["status"] == "failed"


@pytest.mark.parametrize(
    ("fault", "status"),
    [(ValueError("no"), "failed"), (KeyboardInterrupt(), "interrupted"), (None, "interrupted")],
)
def test_what_was_not_finished_is_resumed(out, table, fault, status):
    def begin() -> None:
        with start_run("train", out, Settings(), table) as run:
            run.note(step=3)
            if fault is not None:
                raise fault

    if fault is None:
        begin()
    else:
        with pytest.raises(type(fault)):
            begin()
    assert read(out)["status"] == status
    started = read(out)["started"]
    with start_run("train", out, Settings(), table) as run:
        assert run.resuming
        assert not run.finished
        assert run.record["notes"] == {"step": 3}
        run.finish({})
    assert read(out)["status"] == "finished"
    assert (read(out)["attempts"], read(out)["started"]) == (2, started)


def test_an_error_after_the_end_leaves_the_run_finished(out, table):
    with pytest.raises(ValueError, match="late"), start_run("train", out, {}, table) as run:
        run.finish({"accuracy": 1})
        raise ValueError("late")
    assert read(out)["status"] == "finished"


def refused(verb, out, settings, inputs, **options) -> str:
    with pytest.raises(RunError) as error, start_run(verb, out, settings, inputs, **options):
        pytest.fail("the run was opened")
    return str(error.value)


def test_another_run_is_refused(out, table, tmp_path):
    with start_run("train", out, Settings(), table) as run:
        run.finish({})
    before = (out / "run.json").read_bytes()
    choose = "; choose another --out, or --overwrite"
    assert refused("score", out, Settings(), table) == (
        f"{out}: holds a run of 'train', not 'score'{choose}"
    )
    assert refused("train", out, Settings(6, Optimizer(0.2)), table) == (
        f"{out}: holds a run of 'train' with other settings "
        f"(steps: 5 there, 6 now; optimizer.rate: 0.1 there, 0.2 now){choose}"
    )
    table["choices"].write_bytes(b"others")
    assert refused("train", out, Settings(), table) == (
        f"{out}: holds a run of 'train' on other inputs (changed: 'choices'){choose}"
    )
    assert "changed: 'choices', 'scorer'" in refused("train", out, Settings(), {})
    assert (out / "run.json").read_bytes() == before


def test_not_a_number_is_the_same_setting(out):
    for finished in (False, True):
        with start_run("train", out, {"floor": float("nan")}, {}) as run:
            assert run.finished is finished
            run.finish({})


def test_overwrite_empties_the_folder_first(out, table):
    with start_run("train", out, Settings(), table) as run:
        (out / "checkpoints").mkdir()
        (out / "checkpoints" / "1").write_text("1")
        run.finish({})
    with start_run("train", out, Settings(), table, overwrite=True) as run:
        assert (run.finished, run.resuming) == (False, False)
        assert [entry.name for entry in out.iterdir()] == ["run.json"]
        run.finish({})
    assert read(out)["attempts"] == 1


def test_overwrite_never_removes_what_is_no_run(out, table):
    out.mkdir(parents=True)
    (out / "photo.png").write_bytes(b"mine")
    sentence = f"{out}: is not empty and holds no run of Palate; choose another --out"
    assert refused("train", out, {}, table) == sentence
    assert refused("train", out, {}, table, overwrite=True) == sentence
    assert (out / "photo.png").read_bytes() == b"mine"


def test_overwrite_never_removes_an_input(out):
    with start_run("generate", out, {}, {}) as run:
        (out / "images.parquet").write_bytes(b"images")
        run.finish({})
    inputs = {"images": out / "images.parquet"}
    assert "holds the input 'images'" in refused("score", out, {}, inputs, overwrite=True)
    assert (out / "images.parquet").read_bytes() == b"images"


def test_overwrite_follows_no_link(out, table, tmp_path):
    with start_run("train", out, {}, {}) as run:
        (out / "link").symlink_to(tmp_path)
        run.finish({})
    with start_run("train", out, {}, {}, overwrite=True) as run:
        run.finish({})
    assert table["choices"].exists()
    assert not (out / "link").exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"verb": "train"}', b'{"status": 3}']
)
def test_a_broken_record_is_refused_and_can_be_overwritten(out, table, content):
    out.mkdir(parents=True)
    (out / "run.json").write_bytes(content)
    sentence = refused("train", out, {}, table)
    assert sentence.startswith(f"{out / 'run.json'}: ")
    assert sentence.endswith("; choose another --out, or --overwrite")
    assert "\n" not in sentence
    assert (out / "run.json").read_bytes() == content
    with start_run("train", out, {}, table, overwrite=True) as run:
        run.finish({})
    assert read(out)["status"] == "finished"


def test_places_that_are_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    assert refused("train", tmp_path / "file", {}, {}) == (
        f"{tmp_path / 'file'}: is a file; expected a folder for the run"
    )
    sentence = refused("train", tmp_path / "file" / "out", {}, {})
    assert sentence == f"{tmp_path / 'file' / 'out'}: could not be made: Not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    assert "could not be made: Permission denied" in refused("train", tmp_path / "a", {}, {})
    assert "could not be written: Permission denied" in refused("train", tmp_path, {}, {})


def test_a_missing_input_makes_no_folder(out, tmp_path):
    with pytest.raises(DataError, match=r"none.parquet: could not be read: No such file"):
        start_run("train", out, {}, {"choices": tmp_path / "none.parquet"}).__enter__()
    assert not out.exists()


def test_a_full_disk_does_not_hide_the_first_fault(out, monkeypatch):
    def full(path, content):
        raise RunError(f"{path}: could not be written: No space left on device")

    with pytest.raises(ValueError, match="first"), start_run("train", out, {}, {}):
        monkeypatch.setattr(record_module, "write_atomic", full)
        raise ValueError("first")
    monkeypatch.undo()
    assert read(out)["status"] == "running"
    with start_run("train", out, {}, {}) as run:
        assert run.resuming
        run.finish({})


def test_a_disk_that_is_full_from_the_start(tmp_path):
    """On a file system of 64 KiB, where the machine lets us make one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a small disk")
    try:
        with pytest.raises(RunError, match=r"big: could not be written: No space left on device"):  # noqa: SIM117
            with start_run("train", place / "run", {}, {}):
                write_atomic(place / "run" / "big", b"x" * 200_000)
        assert [entry.name for entry in (place / "run").iterdir()] == ["run.json"]
        assert read(place / "run")["status"] == "failed"
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        (place / "filler").write_bytes(b"x" * free)
        assert "run.json: could not be written: No space left" in refused(
            "train", place / "other", {}, {}
        )
        assert [entry.name for entry in (place / "other").iterdir()] == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


WORKER = """
import os, sys, time
from pathlib import Path
from palate.runs import start_run, write_atomic
out = Path(sys.argv[1])
with start_run("train", out, {"steps": 6}, {}) as run:
    done = len(list(out.glob("step-*")))
    assert run.resuming == (done > 0), (run.resuming, done)
    for step in range(done, 6):
        if step == int(sys.argv[2]):
            print("ready", flush=True)
            time.sleep(60)
        write_atomic(out / f"step-{step}", str(step))
    run.finish({"steps": 6})
"""


def start_worker(out: Path, stop_at: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(out), str(stop_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_in_the_middle_and_resumed(out):
    with start_worker(out, stop_at=3) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        worker.send_signal(signal.SIGKILL)
    assert read(out)["status"] == "running"
    with start_worker(out, stop_at=-1) as worker:
        assert worker.wait(timeout=60) == 0
    assert read(out)["status"] == "finished"
    assert read(out)["result"] == {"steps": 6}
    assert [(out / f"step-{step}").read_text() for step in range(6)] == list("012345")


def test_two_processes_never_share_a_folder(out):
    with start_worker(out, stop_at=0) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        assert refused("train", out, {"steps": 6}, {}) == (
            f"{out}: another process is at work in this folder; wait for it"
        )
        worker.kill()


KILLED_AT_RANDOM = """
import sys
from pathlib import Path
from palate.runs import start_run
with start_run("train", Path(sys.argv[1]), {}, {}) as run:
    print("ready", flush=True)
    for step in range(10**9):
        run.note(step=step)
"""


def test_the_record_is_whole_whenever_the_process_dies(out):
    for attempt in range(4):
        command = [sys.executable, "-c", KILLED_AT_RANDOM, str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            time.sleep(0.02 + 0.013 * attempt)
            worker.kill()
        assert read(out)["status"] == "running"
        assert read(out)["attempts"] == attempt + 1

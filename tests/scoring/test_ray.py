"""A real Ray cluster gives the table of the local engine, whatever happens to its workers or its driver."""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from palate.errors import (
    CheckpointError,
    DataError,
    MissingExtraError,
    RunError,
    SettingsError,
)
from palate.scoring.engine import Engine
from palate.scoring.pieces import HeldPiece, Piece, Row
from palate.scoring.ray_engine import Cluster, _shares, _Work, _Worker
from palate.scoring.recipe import Recipe
from palate.scoring.score import ScoreSettings, Task

pytest.importorskip("ray")
PALATE = [sys.executable, "-m", "palate"]
# in the environment of every process that these tests start, so that nobody else's is touched
MARK = f"PALATE_RAY_TEST={os.getpid()}".encode()
ON_RAY = ["--engine", "ray", "--ray-workers", "2", "--no-cache"]


@pytest.fixture(scope="module", autouse=True)
def mark():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*MARK.decode().split("="))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A manifest of 6,000 rows, in 12 pieces, and the local engine's table of it."""
    found = tmp_path_factory.mktemp("ray")
    rng = np.random.default_rng(0)
    for place in range(20):
        picture = Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8))
        picture.save(found / f"{place}.png")
    with (found / "list.csv").open("w", newline="") as file:
        rows = [(f"{place}.png", f"{k} red balls") for k in range(300) for place in range(20)]
        csv.writer(file).writerows([("image", "prompt"), *rows])
    score(found, "local.parquet", "--no-cache")
    return found


def command(folder, out, *options):
    listed, table = str(folder / "list.csv"), str(folder / out)
    return [*PALATE, "score", listed, "--scorer", "miniature", "--out", table, *options]


def score(folder, out, *options):
    done = subprocess.run(
        command(folder, out, *options), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def same(folder, out):
    return (folder / out).read_bytes() == (folder / "local.parquet").read_bytes()


def processes(title):
    """Our processes whose title starts so; Ray names its workers ``ray::`` and what they do."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            ours = MARK in path.with_name("environ").read_bytes()
            if ours and path.read_bytes().decode(errors="replace").startswith(title):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def begun(folder, out, process, least=2):
    """Wait until some pieces are there."""
    shards = (folder / out).with_suffix(".run") / "shards"
    until = time.monotonic() + 60
    while len(list(shards.glob("[0-9]*.parquet"))) < least:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_worker_loses_and_doubles_nothing(folder):
    process = subprocess.Popen(
        command(folder, "killed.parquet", *ON_RAY), stderr=subprocess.PIPE, text=True
    )
    begun(folder, "killed.parquet", process)
    workers = processes("ray::MapWorker") or processes("ray::")
    assert len(workers) >= 2
    os.kill(workers[0], signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert told == ""
    assert same(folder, "killed.parquet")
    record = json.loads((folder / "killed.run" / "run.json").read_text())
    assert (record["notes"]["engine"], record["notes"]["workers"]) == ("ray", 2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a cluster that is there already."""
    script = (
        "import ray, sys, tempfile\n"
        "with tempfile.TemporaryDirectory(prefix='ray-', ignore_cleanup_errors=True) as logs:\n"
        "    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=logs, object_store_memory=2**27)\n"
        "    print('at', ray.get_runtime_context().gcs_address, flush=True)\n"
        "    sys.stdin.read()\n"
        "    ray.shutdown()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
    )
    yield next(line.split()[1] for line in process.stdout if line.startswith("at "))
    process.communicate("", timeout=60)
    until = time.monotonic() + 20
    while processes("ray::") and time.monotonic() < until:
        time.sleep(0.2)
    assert processes("ray::") == []


@pytest.mark.slow
def test_a_stopped_driver_is_resumed_by_the_other_engine(folder, cluster):
    for attempt in range(5):  # a driver may be done before the signal reaches it
        name = f"driver-{attempt}.parquet"
        process = subprocess.Popen(
            command(folder, name, *ON_RAY, "--address", cluster), stderr=subprocess.PIPE, text=True
        )
        begun(folder, name, process)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
        assert "Traceback" not in told
        if process.returncode != 0:
            break
    assert process.returncode == 130
    score(folder, name, "--no-cache")
    assert same(folder, name)


DEADLY = """
import os, signal, sys
from pathlib import Path
from palate.errors import RunError
from palate.scoring.engine import Engine
from palate.scoring.pieces import HeldPiece, Piece, Row, Survey
from palate.scoring.ray_engine import Cluster, RayEngine
from palate.scoring.recipe import Recipe
from palate.scoring.score import Job, ScoreSettings
from palate.scoring.shards import Shards

class Deadly(Piece):
    name = "rows 2 to 3"

    def rows(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def mark(self):
        return "deadly"

if __name__ == "__main__":
    from deadly import Deadly
    recipe = Recipe(scorers=("miniature",))
    on_ray = RayEngine(recipe, Engine(), Cluster(address=sys.argv[1], workers=1))
    pieces = [HeldPiece("row 1", (Row("0", "x", "0.png"),)), Deadly()]
    shards, survey = Shards(Path("shards")), Survey(2, 2, 2, 0, "", "")
    try:
        on_ray(Job(pieces, recipe.load(), ScoreSettings(), survey, shards, None))
    except RunError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_piece_that_kills_every_worker_ends_the_run_in_a_sentence(folder, cluster):
    (folder / "deadly.py").write_text(DEADLY)
    done = subprocess.run(
        [sys.executable, "deadly.py", cluster],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout.startswith("rows 2 to 3: 3 workers died while they scored it"), done.stderr
    assert [path.name for path in (folder / "shards").iterdir()] == ["000000-0.parquet"]


class Broken(Piece):
    name = "rows 1 to 2"

    def __init__(self, error):
        self.error = error

    def rows(self):
        raise self.error

    def mark(self):
        return "broken"


def worked(piece, monkeypatch, tmp_path, **how):
    """What a worker says of a piece."""
    recipe = Recipe(scorers=("miniature",))
    known = tuple(f"{judge.dimension} {judge.fingerprint}" for judge in recipe.load())
    work = _Work(recipe, Engine(), known, ScoreSettings(), tmp_path, None, 1, 1, gpu=False)
    monkeypatch.setattr(_Worker, "_begin", lambda *_: None)
    worker = _Worker(pickle.dumps(replace(work, **how)), None)
    found = worker({"number": [3], "task": [pickle.dumps(Task(piece, ["mark"], None))]})
    assert found["number"] == [3]
    return pickle.loads(found["found"][0])


def test_a_worker_gives_back_counts_or_an_error_as_it_is(monkeypatch, tmp_path):
    told = worked(HeldPiece("row 1", (Row("0", "x"),)), monkeypatch, tmp_path)
    assert (told.counts[0].rows, told.counts[0].errors) == (1, 1)
    assert (tmp_path / "000003-0.parquet").is_file()
    for raised, wanted in (
        (DataError("a.tar: is damaged"), DataError("a.tar: is damaged")),
        (MissingExtraError("s3://x", "s3"), MissingExtraError("s3://x", "s3")),
        (RuntimeError("out of memory"), RunError("rows 1 to 2: RuntimeError: out of memory")),
    ):
        found = worked(Broken(raised), monkeypatch, tmp_path)
        assert (type(found), str(found)) == (type(wanted), str(wanted))
    found = worked(Broken(None), monkeypatch, tmp_path, recipe=Recipe(scorers=("nowhere",)))
    assert isinstance(found, CheckpointError)
    found = worked(Broken(None), monkeypatch, tmp_path, scorers=("overall 0123",))
    assert "has other weights than the machine of this command" in str(found)


@pytest.mark.parametrize(
    ("nodes", "wanted", "gpu", "shares"),
    [
        ([{"CPU": 2}], None, False, (1, 2)),
        ([{"CPU": 2}], 2, False, (2, 1)),
        ([{"CPU": 16}, {"CPU": 8}, {}], None, False, (2, 8)),
        ([{"CPU": 16}, {"CPU": 8}], 5, False, (5, 2)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 64}, {"CPU": 30, "GPU": 2}], None, True, (6, 4)),
        ([{"CPU": 16, "GPU": 4}], 2, True, (2, 4)),
    ],
)
def test_cores_are_divided_among_workers(nodes, wanted, gpu, shares):
    assert _shares(nodes, wanted, gpu=gpu) == shares


def test_a_cluster_without_room_is_told():
    with pytest.raises(
        RunError, match="the cluster has 0 GPUs, expected one for each of 1 workers"
    ):
        _shares([{"CPU": 2}], None, gpu=True)
    with pytest.raises(RunError, match="has 2 cores, expected one for each of 3"):
        _shares([{"CPU": 2}], 3, gpu=False)


def test_options_that_do_not_fit_are_refused(folder, capsys):
    from palate.cli.main import main

    listed = [str(folder / "list.csv"), "--scorer", "miniature"]
    for words, sentence in (
        (["--engine", "ray"], "--engine ray writes its scores, expected --out as well"),
        (["--engine", "spark"], "--engine is 'spark', expected local or ray"),
        (["--ray-workers", "2"], "--address and --ray-workers go with --engine ray"),
    ):
        assert main(["score", *listed, *words]) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(SettingsError, match="ray workers is 0"):
        Cluster(workers=0)


def test_a_recipe_holds_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "hpc.pt").touch()
    recipe = Recipe(
        scorers=("train", "hps-v1=hpc.pt", "mps@forward", "pickscore=org/name@main", "train@x"),
        clip="train",
        tokenizer=Path("vocab.txt"),
        device="cuda:1",
    )
    found = recipe.from_anywhere()
    here = str(tmp_path)
    assert found.scorers == (
        f"{here}/train",
        f"hps-v1={here}/hpc.pt",
        "mps@forward",
        "pickscore=org/name@main",
        f"{here}/train@x",
    )
    assert (found.clip, found.tokenizer, found.device) == (
        f"{here}/train",
        tmp_path / "vocab.txt",
        "cuda",
    )

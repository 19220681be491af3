"""Images opened ahead: in order, a bounded number at a time, and a process that dies loses and doubles nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from palate.errors import RunError
from palate.models.pixels import Preparation
from palate.models.tiny import tiny_clip
from palate.scoring import score as module
from palate.scoring.cache import FeatureCache
from palate.scoring.inputs import gather_images
from palate.scoring.networks import ClipScorer
from palate.scoring.pieces import Row
from palate.scoring.score import ScoreSettings, score_table
from palate.scoring.workers import Opener, Plan, open_rows

HOW = Preparation(size=16, resize="exact")


class Deadly(FeatureCache):
    """Kills the process that asks for one of some contents, each as often as told."""

    def __init__(self, contents: dict[str, int], folder: Path) -> None:
        super().__init__(folder, 10**6)
        self.contents = contents

    def __reduce__(self):
        return Deadly, (self.contents, self.folder)

    def get(self, space, keys):
        for key in keys:
            deaths = self.folder / key
            count = len(deaths.read_text()) if deaths.exists() else 0
            if count < self.contents.get(key, 0):
                deaths.write_text("x" * (count + 1))
                os.kill(os.getpid(), signal.SIGKILL)
        return [None] * len(keys)


@pytest.fixture
def rows(tmp_path):
    random = np.random.default_rng(0)
    made = []
    for number in range(60):
        file = tmp_path / f"{number}.png"
        Picture.fromarray(random.integers(0, 256, (12, 10 + number, 3), dtype=np.uint8)).save(file)
        made.append(Row(f"{number}.png", "x", str(file)))
    return made


def sha(row: Row) -> str:
    return hashlib.sha256(Path(row.file).read_bytes()).hexdigest()


def opened(rows, plan, **how):
    with Opener(plan, **({"workers": 2, "ahead": 16, "processes": True} | how)) as opener:
        return list(opener.stream(rows))


def test_threads_and_processes_open_the_same_in_order(rows):
    plan = Plan((HOW,))
    alone = open_rows(rows, plan)
    for processes in (False, True):
        found = opened(rows, plan, processes=processes)
        assert [one.sha256 for one in found] == [sha(row) for row in rows]
        assert [one.size for one in found] == [(10 + number, 12) for number in range(60)]
        assert all((a.ready[0] == b.ready[0]).all() for a, b in zip(alone, found, strict=True))


def test_no_more_is_opened_ahead_than_is_said(rows):
    asked = []
    with Opener(Plan((HOW,)), workers=1, ahead=8, processes=False) as opener:
        stream = opener.stream(asked.append(row.image) or row for row in rows)
        for taken in range(60):
            next(stream)
            assert len(asked) <= taken + 1 + 8 + 2 * 8 + 8  # and the chunk that is being taken


@pytest.mark.slow
def test_a_process_that_was_killed_once_costs_nothing(rows, tmp_path):
    (tmp_path / "deaths").mkdir()
    cache = Deadly({sha(rows[20]): 1, sha(rows[41]): 1}, tmp_path / "deaths")
    found = opened(rows, Plan((HOW,), ("space",), cache))
    assert [one.sha256 for one in found] == [sha(row) for row in rows]
    assert all(one.error is None for one in found)


@pytest.mark.slow
def test_an_image_that_kills_its_process_is_an_error_and_its_neighbours_are_not(rows, tmp_path):
    (tmp_path / "deaths").mkdir()
    cache = Deadly({sha(rows[20]): 9, sha(rows[21]): 9}, tmp_path / "deaths")
    found = opened(rows, Plan((HOW,), ("space",), cache))
    assert [n for n, one in enumerate(found) if one.error] == [20, 21]
    assert found[20].error == "the process that opened it died"
    assert [one.sha256 for one in found[22:]] == [sha(row) for row in rows[22:]]


@pytest.mark.slow
def test_processes_that_always_die_are_told(rows, tmp_path):
    (tmp_path / "deaths").mkdir()
    cache = Deadly({sha(row): 99 for row in rows}, tmp_path / "deaths")
    with pytest.raises(RunError, match=r"died 24 times in a row, last at 23\.png"):
        opened(rows, Plan((HOW,), ("space",), cache))


def test_rows_may_hold_their_bytes_or_have_no_image(rows):
    held = Row("held", "x", data=Path(rows[3].file).read_bytes())
    first, second, third = open_rows(
        [held, Row("none", "x"), Row("bad", "x", data=b"hi")], Plan((HOW,))
    )
    assert first.sha256 == sha(rows[3])
    assert second.error == "image 'none' has no file in the table of images"
    assert third.error.startswith("bad: is no image of a known format")


def test_a_run_with_processes_gives_the_same_table(rows, tmp_path, monkeypatch):
    scorer = ClipScorer(tiny_clip(0), "tiny")
    (tmp_path / "3.png").write_text("no image")
    gathered = gather_images([tmp_path], prompt="x")
    how = ScoreSettings(batch=8, shard=20)
    whole = score_table(gathered.images, gathered.folder, scorer, how)
    monkeypatch.setattr(module, "_MANY_IMAGES", 1)
    monkeypatch.setattr(module, "_MANY_BYTES", 0)
    assert score_table(gathered.images, gathered.folder, scorer, how).equals(whole)
    assert whole["error"].null_count == 59


def script(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "script.py").write_text(text)
    source = str(Path(__file__).parents[2] / "src")
    return subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


UNGUARDED = """
from pathlib import Path
from palate.models.tiny import tiny_clip
from palate.scoring import score
from palate.scoring.inputs import gather_images
from palate.scoring.networks import ClipScorer
print("begun")
score._MANY_IMAGES, score._MANY_BYTES = 1, 0
gathered = gather_images([Path(FOLDER)], prompt="x")
print(len(score.score_table(gathered.images, gathered.folder, ClipScorer(tiny_clip(0), "tiny"))))
"""


@pytest.mark.slow
def test_a_script_without_a_guard_runs_once(rows, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    found = script(tmp_path / "elsewhere", f"FOLDER = {str(tmp_path)!r}" + UNGUARDED)
    assert (found.returncode, found.stdout) == (0, "begun\n60\n"), found.stderr


ORPHANS = """
import os, signal
from palate.models.pixels import Preparation
from palate.scoring.pieces import Row
from palate.scoring.workers import Opener, Plan
opener = Opener(Plan((Preparation(size=16, resize="exact"),)), workers=2, ahead=16, processes=True)
stream = opener.stream(Row(str(n), "x") for n in range(1000))
next(stream)
print(*opener._pool._processes, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_process_outlives_a_run_that_is_killed(tmp_path):
    found = script(tmp_path, ORPHANS)
    assert found.returncode == -signal.SIGKILL, found.stderr
    workers = [Path("/proc", pid) for pid in found.stdout.split()]
    assert len(workers) == 2
    for _ in range(100):
        if not any(worker.exists() for worker in workers):
            return
        time.sleep(0.1)
    pytest.fail("a worker is still there")

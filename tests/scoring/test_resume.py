"""A run that is killed at any moment goes on, looks at nothing twice, and ends byte for byte the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from palate.data.tables import SCORES
from palate.errors import DataError, RunError
from palate.models.tiny import tiny_clip
from palate.scoring.cache import FeatureCache
from palate.scoring.inputs import gather_images
from palate.scoring.networks import ClipScorer
from palate.scoring.pieces import HeldPiece
from palate.scoring.score import ScoreSettings, score_images, score_piece, score_table

ROWS = 40
# Writes down what the network looks at; kills itself where it is told to.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from palate.models.tiny import tiny_clip
from palate.scoring import score
from palate.scoring.cache import FeatureCache
from palate.scoring.inputs import gather_images
from palate.scoring.networks import ClipScorer
from palate.scoring.scorer import Eye

score._MANY_IMAGES, score._MANY_BYTES = {many}, 0
folder, out, seen, cache, moment, after = sys.argv[1:]
real_see, real_judge = Eye.see_ready, ClipScorer.compare
calls = {{"see": 0, "judge": 0}}

def count(what):
    if what == moment and calls[what] == int(after):
        os.kill(os.getpid(), signal.SIGKILL)
    calls[what] += 1

def see(self, pixels):
    count("see")
    with open(seen, "a") as file:
        file.write(f"{{len(pixels)}}\\n")
    return real_see(self, pixels)

def compare(self, *args):
    count("judge")
    return real_judge(self, *args)

Eye.see_ready, ClipScorer.compare = see, compare
kept = None if cache == "none" else FeatureCache(Path(cache), 10**8)
how = score.ScoreSettings(batch=3, shard=10, workers=2)
score.score_images(
    gather_images([Path(folder) / "list.csv"]), ClipScorer(tiny_clip(0), "tiny"), Path(out), how, cache=kept
)
print("scored")
"""


@pytest.fixture
def folder(tmp_path):
    """Forty rows of thirty pictures, of which two have the same content, and three prompts."""
    random = np.random.default_rng(0)
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(30):
        pixels = random.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Picture.fromarray(pixels, "RGB").save(place / f"{number}.png")
    (place / "29.png").write_bytes((place / "3.png").read_bytes())
    lines = [f"{n % 30}.png,{('a fox', 'two cats', 'x')[(n + n // 30) % 3]}" for n in range(ROWS)]
    (place / "list.csv").write_text("image,prompt\n" + "\n".join(lines) + "\n")
    return place


def run(folder: Path, out: Path, seen: Path, cache: str, moment="never", after=0, many=10**9):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT.format(many=many),
            str(folder),
            str(out),
            str(seen),
            cache,
            moment,
            str(after),
        ],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert moment != "never" or found.returncode == 0, found.stderr
    return found.returncode


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_killed_and_resumed_is_the_same_and_looks_at_nothing_twice(folder, tmp_path, ending):
    whole = tmp_path / f"whole.{ending}"
    run(folder, whole, tmp_path / "whole.txt", str(tmp_path / "c0"))
    batches = (tmp_path / "whole.txt").read_text()
    assert sum(map(int, batches.split())) == 29  # two files have one content
    for moment, after in (("see", 2), ("judge", 5), ("see", 7)):
        part = tmp_path / f"part-{moment}-{after}.{ending}"
        seen, cache = part.with_suffix(".txt"), str(part.with_suffix(".cache"))
        assert run(folder, part, seen, cache, moment, after) == -signal.SIGKILL
        assert not part.exists()
        run(folder, part, seen, cache)
        assert part.read_bytes() == whole.read_bytes()
        assert seen.read_text() == batches


@pytest.mark.slow
def test_without_a_cache_the_output_is_the_same_too_and_processes_change_nothing(folder, tmp_path):
    whole, part = tmp_path / "whole.parquet", tmp_path / "part.parquet"
    run(folder, whole, tmp_path / "a.txt", "none")
    assert run(folder, part, tmp_path / "b.txt", "none", "see", 7) == -signal.SIGKILL
    run(folder, part, tmp_path / "b.txt", "none", many=1)
    assert part.read_bytes() == whole.read_bytes()


def test_a_warm_cache_changes_nothing_and_is_told(folder, tmp_path, monkeypatch):
    scorer = ClipScorer(tiny_clip(0), "tiny")
    gathered = gather_images([folder / "list.csv"])
    how = ScoreSettings(batch=3, shard=10)
    with FeatureCache(tmp_path / "cache", 10**8) as cache:
        cold = score_images(gathered, scorer, tmp_path / "cold.csv", how, cache=cache)
        looked = []
        monkeypatch.setattr(scorer.eye, "see_ready", looked.append)
        warm = score_images(gathered, scorer, tmp_path / "warm.csv", how, cache=cache)
    assert looked == []
    assert (tmp_path / "cold.csv").read_bytes() == (tmp_path / "warm.csv").read_bytes()
    # contents are counted once per piece: some of the last piece's came before
    assert cold["cache"] == {
        "hits": 11,
        "misses": 29,
        "hit_rate": 0.275,
        "too_large_to_keep": [],
    }
    assert (warm["cache"]["misses"], warm["cache"]["hit_rate"]) == (0, 1.0)


def test_what_would_not_fit_is_not_written(folder, tmp_path):
    gathered = gather_images([folder / "list.csv"])
    scorer = ClipScorer(tiny_clip(0), "tiny")
    with FeatureCache(tmp_path / "cache", 4000) as cache:
        result = score_images(gathered, scorer, tmp_path / "s.csv", cache=cache)
        assert result["cache"]["too_large_to_keep"] == ["images"]
        assert scorer.eye.key not in cache.describe()["spaces"]


def test_a_piece_alone_gives_what_the_run_gives(folder):
    gathered = gather_images([folder / "list.csv"])
    scorer = ClipScorer(tiny_clip(0), "tiny")
    how = ScoreSettings(batch=3, shard=10)
    whole = score_table(gathered.images, gathered.folder, scorer, how)
    other = ClipScorer(tiny_clip(0), "tiny")
    for number, piece in reversed(list(enumerate(gathered.source.pieces(10)))):
        (table,) = score_piece(piece, other, how)
        assert table.equals(whole.slice(10 * number, 10))


def test_a_piece_may_be_empty():
    (table,) = score_piece(HeldPiece("nothing", ()), ClipScorer(tiny_clip(0), "tiny"))
    assert table.equals(SCORES.empty_table())


def test_an_image_that_appears_is_scored_by_the_same_command(folder, tmp_path):
    scorer, out = ClipScorer(tiny_clip(0), "tiny"), tmp_path / "s.parquet"
    how = ScoreSettings(shard=10)
    whole = score_images(gather_images([folder / "list.csv"]), scorer, tmp_path / "w.parquet", how)
    (folder / "13.png").rename(tmp_path / "13.png")
    with pytest.raises(DataError, match=r"1 of 40.*13\.png: does not exist"):
        score_images(gather_images([folder / "list.csv"]), scorer, out, how)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "s.run/shards").iterdir()}
    (tmp_path / "13.png").rename(folder / "13.png")
    result = score_images(gather_images([folder / "list.csv"]), scorer, out, how)
    assert len(before) == 4
    assert result["errors"] == 0 == whole["errors"]
    assert out.read_bytes() == (tmp_path / "w.parquet").read_bytes()


def test_a_finished_run_stands_only_for_the_images_as_they_were(folder, tmp_path):
    scorer, out = ClipScorer(tiny_clip(0), "tiny"), tmp_path / "s.parquet"
    score_images(gather_images([folder / "list.csv"]), scorer, out)
    Picture.new("RGB", (9, 9)).save(folder / "0.png")
    with pytest.raises(RunError, match="on other inputs"):
        score_images(gather_images([folder / "list.csv"]), scorer, out)


def test_a_changed_image_is_scored_anew_when_a_run_goes_on(folder, tmp_path):
    scorer = ClipScorer(tiny_clip(0), "tiny")
    gathered = gather_images([folder / "list.csv"])
    before = score_table(gathered.images, gathered.folder, scorer, shards=tmp_path / "shards")
    Picture.new("RGB", (9, 9)).save(folder / "5.png")
    after = score_table(gathered.images, gathered.folder, scorer, shards=tmp_path / "shards")
    changed = np.flatnonzero(before["value"].to_numpy() != after["value"].to_numpy())
    assert {5, 35} <= set(changed.tolist())


def test_an_input_that_changes_meanwhile_is_told(folder, tmp_path):
    gathered = gather_images([folder / "list.csv"])
    with (folder / "list.csv").open("a") as file:
        file.write("1.png,another\n")
    with pytest.raises(DataError, match="41 scores, expected 40"):
        score_images(gathered, ClipScorer(tiny_clip(0), "tiny"), tmp_path / "s.csv")

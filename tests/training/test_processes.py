"""Several processes, and parts of a batch, train what one process trains at once."""

from __future__ import annotations

import json

import pytest
from tests.together import run_together

from palate.errors import SettingsError
from palate.models.clip_files import load_clip, save_clip
from palate.models.tiny import tiny_clip
from palate.training.settings import TrainSettings
from palate.training.train import train

# Runs in each process; `part` is what is taken away from accelerate.
SCRIPT = """
import sys
from pathlib import Path
from palate.data.tables import load_dataset
from palate.models.clip_files import load_clip
from palate.training.settings import TrainSettings
from palate.training.train import train
import palate.training.processes as processes
data, held, base, out, bypass, how = sys.argv[1:]
if bypass == "yes":
    processes.Processes.wrap = lambda self, module: module
train(load_dataset(Path(data)), load_clip(Path(base)), Path(out), TrainSettings(**eval(how)),
      load_dataset(Path(held)))
"""


def settings(**changes):
    # Adam divides by the size of a gradient: where it is 0, as for a key's bias, a small epsilon would make
    # steps of its rounding
    values = {"steps": 4, "batch": 6, "image_layers": 1, "text_layers": 1, "learning_rate": 1e-3}
    values |= {
        "warmup_steps": 1,
        "save_every": 2,
        "evaluate_every": 2,
        "log_every": 1,
        "epsilon": 1e-4,
    }
    return values | changes


def weights_of(folder):
    return load_clip(folder).model.state_dict()


def distance(first, second):
    a, b = weights_of(first), weights_of(second)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def launch(dataset, held_out, base, out, how, *, bypass="no"):
    words = [dataset.folder, held_out.folder, base, out, bypass, repr(how)]
    run_together(SCRIPT, words, out.parent)


@pytest.mark.parametrize("change", [{}, {"shift": 2, "flip": True}, {"weights": "prompts"}])
def test_a_batch_in_parts_is_the_batch(dataset, held_out, tmp_path, change):
    for name, parts in (("whole", 1), ("parts", 3)):
        how = TrainSettings(**settings(accumulate=parts, **change))
        train(dataset, tiny_clip(0), tmp_path / name, how, held_out)
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-6
    curves = [
        json.loads((tmp_path / name / "curves.json").read_text()) for name in ("whole", "parts")
    ]
    for one, other in zip(curves[0]["train"], curves[1]["train"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)


def test_a_batch_too_small_for_its_parts_is_refused(dataset, tmp_path):
    with pytest.raises(SettingsError, match="batch is 2, expected at least accumulate, 3"):
        TrainSettings(**settings(batch=2, accumulate=3))


def test_blocks_that_are_run_twice_train_the_same(dataset, tmp_path):
    for name, twice in (("once", False), ("twice", True)):
        how = TrainSettings(**settings(checkpointing=twice, image_layers=2, text_layers=2))
        train(dataset, tiny_clip(0), tmp_path / name, how)
    assert distance(tmp_path / "once", tmp_path / "twice") < 1e-6


@pytest.mark.slow
def test_two_processes_are_one_and_need_their_wrapper(dataset, held_out, tmp_path):
    """Without accelerate's wrapper each process would follow its own half of the batch."""
    save_clip(tiny_clip(0), tmp_path / "base")
    how = settings(shift=1)
    train(dataset, load_clip(tmp_path / "base"), tmp_path / "one", TrainSettings(**how), held_out)
    launch(dataset, held_out, tmp_path / "base", tmp_path / "two", how)
    assert distance(tmp_path / "one", tmp_path / "two") < 1e-6
    results = [
        json.loads((tmp_path / name / "run.json").read_text())["result"] for name in ("one", "two")
    ]
    assert results[0]["validation"] == pytest.approx(results[1]["validation"], abs=1e-6)
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], abs=1e-6)
    assert not (tmp_path / "two" / "material").exists()
    launch(dataset, held_out, tmp_path / "base", tmp_path / "bypassed", how, bypass="yes")
    assert distance(tmp_path / "one", tmp_path / "bypassed") > 1e-5

"""Several processes adapt as one does: each takes its share of the batch, and gradients are exchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import PIL.Image
import pytest
from safetensors.torch import load_file
from tests.together import run_together

from palate.adaptation.adapt import _plan, adapt
from palate.adaptation.examples import image_files
from palate.adaptation.settings import AdaptSettings, RoleWeights
from palate.data.records import Image
from palate.data.tables import read_table, to_table, write_table
from palate.errors import SettingsError
from palate.generation.adapters import FILE_NAME
from palate.generation.generator import load_generator
from palate.generation.tiny import write_tiny_pipeline
from palate.training.processes import Processes

# Runs in each process; `bypass` takes accelerate's wrapper away.
SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from palate.adaptation.adapt import adapt
from palate.adaptation.examples import image_files
from palate.adaptation.settings import AdaptSettings, RoleWeights
from palate.data.tables import read_table
import palate.training.processes as processes
labels, images, base, out, bypass, how = sys.argv[1:]
loop = AdaptSettings.loop
AdaptSettings.loop = lambda self: replace(loop(self), epsilon=1e-3)
if bypass == "yes":
    processes.Processes.wrap = lambda self, module: module
adapt(read_table(Path(labels), "labels"), image_files(Path(images)), Path(base), Path(out),
      AdaptSettings(**eval(how)))
"""


def settings(**changes):
    values = {"steps": 3, "batch": 4, "rank": 2, "alpha": 6.0, "learning_rate": 1e-3}
    values |= {"identifier": "Bad. ", "save_every": 2, "log_every": 1, "seed": 7, "trackers": ()}
    values |= {"role_weights": RoleWeights(preferred=1.0, rejected=1.0, regularisation=1.0)}
    return values | changes


def launch(labels, images, base, out, how, *, bypass="no"):
    run_together(SCRIPT, [labels, images, base, out, bypass, repr(how)], out.parent)


def distance(first, second):
    a, b = load_file(first / FILE_NAME), load_file(second / FILE_NAME)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(autouse=True)
def steady(monkeypatch):
    """As in the other processes, Adam does not make steps of the rounding of a gradient of 0."""
    loop = AdaptSettings.loop
    monkeypatch.setattr(AdaptSettings, "loop", lambda self: replace(loop(self), epsilon=1e-3))


@pytest.fixture
def alone(base, labels, files, tmp_path):
    """Adapt in this process."""

    def run(how):
        adapt(labels, files, base, tmp_path / "alone", AdaptSettings(**how))
        return tmp_path / "alone"

    return run


@pytest.mark.slow
@pytest.mark.parametrize("method", ["identifier", "dpo", "kto"])
def test_two_processes_are_one_with_the_whole_batch(alone, base, dataset, labels, tmp_path, method):
    write_table(labels, tmp_path / "labels.parquet")
    # a beta of 2000 would be that many times the rounding of an error
    how = settings(method=method, hold_out=2, beta=50.0)
    one = alone(how)
    launch(tmp_path / "labels.parquet", dataset, base, tmp_path / "two", how)
    assert distance(one, tmp_path / "two") < 1e-6
    curves = [json.loads((run / "curves.json").read_text()) for run in (one, tmp_path / "two")]
    for first, second in zip(curves[0]["train"], curves[1]["train"], strict=True):
        assert set(first) == set(second)
        for name, value in first.items():
            assert second[name] == (value and pytest.approx(value, rel=1e-4, abs=1e-5))


@pytest.mark.slow
def test_without_the_wrapper_each_process_trains_an_adapter_of_its_own(
    alone, base, dataset, labels, tmp_path
):
    """The fault of HPS's released code: the test above would not pass."""
    write_table(labels, tmp_path / "labels.parquet")
    one = alone(settings())
    two = tmp_path / "two"
    launch(tmp_path / "labels.parquet", dataset, base, two, settings(), bypass="yes")
    assert distance(one, two) > 1e-4


@pytest.mark.slow
def test_pictures_of_two_shapes_are_shared_though_the_processes_ask_the_denoiser_unequally_often(
    dataset, labels, tmp_path
):
    """An SD3 also has buffers, which would be sent around in every forward."""
    base = write_tiny_pipeline(tmp_path / "sd3", kind="sd3")
    table = read_table(dataset / "images.parquet", "images")
    rows = []
    for number, row in enumerate(table.to_pylist()):
        with PIL.Image.open(dataset / row["path"]) as picture:
            # every fourth is wide, so that the second of two processes seldom sees one
            size = (32, 16) if number % 4 == 0 else (16, 16)
            picture.resize(size).save(tmp_path / f"{row['image']}.png")
        rows.append(Image(row["image"], row["prompt"], f"{row['image']}.png"))
    write_table(to_table(rows, "images"), tmp_path / "images.parquet")
    write_table(labels, tmp_path / "labels.parquet")
    how = settings(method="sft", buckets=True)
    adapt(labels, image_files(tmp_path), base, tmp_path / "alone", AdaptSettings(**how))
    launch(tmp_path / "labels.parquet", tmp_path, base, tmp_path / "two", how)
    result = json.loads((tmp_path / "two" / "run.json").read_text())["result"]
    assert sum(count > 0 for count in result["shapes"].values()) == 2
    curves = [
        json.loads((tmp_path / name / "curves.json").read_text())["train"]
        for name in ("alone", "two")
    ]
    for first, second in zip(*curves, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)


def test_a_batch_that_cannot_be_shared_out_is_refused(base, labels, files):
    with pytest.raises(SettingsError, match="batch is 5, expected a multiple of accumulate, 2"):
        AdaptSettings(**settings(batch=5, accumulate=2))
    two = SimpleNamespace(num_processes=2, process_index=0, is_local_main_process=True)
    how = AdaptSettings(**settings(batch=6, accumulate=2))
    with pytest.raises(SettingsError, match="batch is 6, expected a multiple of 4: 2 processes"):
        _plan(load_generator(base), labels, files, how, Processes(two))

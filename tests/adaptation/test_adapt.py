from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file
from tests.adaptation.conftest import QUICK

from palate.adaptation.adapt import adapt
from palate.adaptation.examples import image_files, labels_hash, make_examples
from palate.adaptation.methods import METHODS
from palate.adaptation.settings import AdaptSettings, RoleWeights
from palate.data.tables import read_table, write_table
from palate.errors import DataError, RunError, SettingsError
from palate.generation.adapters import FILE_NAME, read_adapter
from palate.generation.generator import load_generator
from palate.generation.sampling import Sampling, sample, to_bytes
from palate.generation.tiny import write_tiny_pipeline


@pytest.fixture(scope="module")
def adapted(base, labels, files, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapted") / "run"
    result = adapt(labels, files, base, out, QUICK)
    return out, result


def weights(out):
    return load_file(out / FILE_NAME)


def test_it_writes_an_adapter_that_says_what_it_is(adapted, base, labels):
    out, result = adapted
    found = read_adapter(out)
    assert found.identifier == "Bad. "
    assert found.details["method"] == "identifier"
    assert found.details["base"] == load_generator(base).base
    assert (found.details["rank"], found.details["alpha"]) == (2, 6.0)
    assert found.details["labels"] == labels_hash(labels)
    assert found.details["guidance"] == 7.5
    assert result["rows"] == {"preferred": 8, "rejected": 8, "regularisation": 8}
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


def test_the_loss_of_each_role_is_logged(adapted):
    out, result = adapted
    curve = json.loads((out / "curves.json").read_text())["train"]
    assert [point["step"] for point in curve] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert all(set(point) == set(curve[0]) for point in curve)
    assert set(curve[0]) == {"step", "loss", "preferred", "rejected", "regularisation"}
    assert result["loss_last"] == curve[-1]


def test_the_base_is_not_changed(adapted, base, files, labels):
    assert read_adapter(adapted[0]).details["base"] == load_generator(base).base


def test_saved_and_loaded_it_gives_the_pixels_of_the_trained_model(work, tmp_path, base):
    """With alpha three times the rank: an adapter that forgets its alpha fails here."""
    from palate.adaptation.lora_files import save_adapter
    from palate.training.loop import fit

    made = work()
    network = made.denoiser.network
    trained = {name: part for name, part in network.named_parameters() if part.requires_grad}
    fit(trained, made.losses_at, made.settings.loop(), tmp_path)
    generator = load_generator(base)
    generator.pipeline.unet = network.eval()
    path = save_adapter(network, "unet", tmp_path, {"method": "identifier", "identifier": "Bad. "})

    def picture(model):
        text = model.encode(["a red ball", "a tree"])
        how = Sampling(steps=3, guidance=3.0, height=16, width=16)
        return to_bytes(sample(model.pipeline, text, model.encode(["Bad. "]), [1, 2], how)[0])

    expected, bare = picture(generator), picture(load_generator(base))
    assert torch.equal(picture(load_generator(base, path, merge=False)), expected)
    merged = picture(load_generator(base, path))
    assert (merged.int() - expected.int()).abs().max() <= 1
    assert (expected.int() - bare.int()).abs().max() > 2


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(
    adapted, base, labels, files, tmp_path
):
    shuffled = labels.take(pa.array(range(len(labels) - 1, -1, -1)))
    adapt(shuffled, files, base, tmp_path / "same", QUICK)
    assert (tmp_path / "same" / FILE_NAME).read_bytes() == (adapted[0] / FILE_NAME).read_bytes()
    adapt(labels, files, base, tmp_path / "other", replace(QUICK, seed=8))
    first, second = weights(adapted[0]), weights(tmp_path / "other")
    assert all(not torch.equal(first[name], second[name]) for name in first)


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from palate.adaptation.adapt import adapt
from palate.adaptation.examples import image_files
from palate.adaptation.settings import AdaptSettings
from palate.adaptation.work import Work
from palate.data.tables import read_table
from palate.settings import read_settings
base, dataset, labels, out, recipe = map(Path, sys.argv[1:])
settings = read_settings(AdaptSettings, recipe, section="adapt")
losses_at = Work.losses_at
def slow(self, step):
    if step == 4:
        (out.parent / "reached").touch()
        time.sleep(60)
    return losses_at(self, step)
Work.losses_at = slow
adapt(read_table(labels, "labels"), image_files(dataset), base, out, settings)
"""

RECIPE = """
[adapt]
steps = 6
batch = 4
rank = 2
alpha = 6.0
learning_rate = 1e-2
identifier = "Bad. "
save_every = 3
log_every = 1
seed = 7
trackers = []
[adapt.role_weights]
preferred = 1.0
rejected = 1.0
regularisation = 1.0
"""


@pytest.mark.slow
def test_killed_and_resumed_it_ends_bit_for_bit_the_same(
    adapted, base, dataset, labels, files, tmp_path
):
    """Six steps in one go are three, a kill in the fifth, and the rest."""
    out = tmp_path / "killed"
    write_table(labels, tmp_path / "labels.parquet")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    places = [base, dataset, tmp_path / "labels.parquet", out, tmp_path / "recipe.toml"]
    child = subprocess.Popen([sys.executable, "-c", KILLED, *map(str, places)])
    for _ in range(1200):
        if (tmp_path / "reached").exists() or child.poll() is not None:
            break
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert (tmp_path / "reached").exists()
    assert not (out / FILE_NAME).exists()
    torch.manual_seed(12345)  # chance outside the addresses must not matter
    result = adapt(read_table(tmp_path / "labels.parquet", "labels"), files, base, out, QUICK)
    record = json.loads((out / "run.json").read_text())
    assert record["attempts"] == 2
    assert (out / FILE_NAME).read_bytes() == (adapted[0] / FILE_NAME).read_bytes()
    assert (out / "curves.json").read_text() == (adapted[0] / "curves.json").read_text()
    assert result == adapted[1]


def test_rows_held_out_are_not_trained_on_and_measure_the_gap(base, labels, files, tmp_path):
    settings = replace(QUICK, hold_out=3)
    examples = make_examples(labels, files, METHODS["identifier"], "Bad. ", 3, settings.seed)
    for role in ("preferred", "rejected"):
        assert len(examples.held_out[role]) == 3
        assert not set(examples.held_out[role]) & set(examples.training[role])
    assert examples.held_out["regularisation"] == []
    result = adapt(labels, files, base, tmp_path / "out", settings)
    for when in ("before", "after"):
        assert set(result["identifier_gap"][when]) == {"preferred", "rejected"}
        assert result["identifier_gap"][when]["rejected"]["images"] == 3
    assert result["identifier_gap"]["before"] != result["identifier_gap"]["after"]


def test_bfloat16_keeps_the_adapter_in_float32(base, labels, files, adapted, tmp_path):
    adapt(labels, files, base, tmp_path / "out", replace(QUICK, precision="bfloat16"))
    half, whole = weights(tmp_path / "out"), weights(adapted[0])
    assert {value.dtype for value in half.values()} == {torch.float32}
    assert any(not torch.equal(half[name], whole[name]) for name in whole)


@pytest.mark.parametrize("prediction", ["v_prediction"])
def test_a_model_that_predicts_v_is_adapted_too(labels, files, tmp_path, prediction):
    other = write_tiny_pipeline(tmp_path / "base", prediction=prediction)
    adapt(labels, files, other, tmp_path / "out", QUICK)
    load_generator(other, tmp_path / "out")


def test_another_run_in_the_folder_is_refused(adapted, base, labels, files):
    out, result = adapted
    assert adapt(labels, files, base, out, QUICK) == result
    with pytest.raises(RunError, match="rank: 2 there, 3 now"):
        adapt(labels, files, base, out, replace(QUICK, rank=3))


def test_what_cannot_be_adapted_to_is_refused_in_a_sentence(base, labels, files, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="24 of 24 images are in none of the images tables"):
        adapt(labels, {}, base, out, QUICK)
    preferred = labels.filter(pc.not_equal(labels["role"], "rejected"))
    with pytest.raises(DataError, match="no rejected rows, which the method 'identifier'"):
        adapt(preferred, files, base, out, QUICK)
    two = labels.filter(pc.not_equal(labels["role"], "regularisation"))
    with pytest.raises(DataError, match="no regularisation rows, but the role's weight is 1"):
        adapt(two, files, base, out, QUICK)
    with pytest.raises(DataError, match="8 preferred rows, expected more than the 8 to hold out"):
        adapt(labels, files, base, out, replace(QUICK, hold_out=8))
    with pytest.raises(SettingsError, match="size is 18, expected a multiple of 4"):
        adapt(labels, files, base, out, replace(QUICK, size=18))
    assert not out.exists()
    for wrong in (
        {"rank": 0},
        {"batch": 0},
        {"caption_dropout": 2.0},
        {"steps": 0},
        {"alpha": 0.0},
    ):
        with pytest.raises(SettingsError, match=f"{next(iter(wrong))} is"):
            replace(QUICK, **wrong)
    with pytest.raises(SettingsError, match="role_weights"):
        RoleWeights(preferred=-1.0)


def test_a_loss_that_is_no_number_stops_the_run(base, labels, files, tmp_path):
    with pytest.raises(RunError, match="the loss is nan"):
        adapt(labels, files, base, tmp_path / "out", replace(QUICK, learning_rate=1e30, clip=0.0))


def test_a_key_must_be_the_same_picture_in_every_table(dataset, images, tmp_path):
    assert image_files(dataset, dataset) == image_files(dataset)
    place = images.schema.get_field_index("sha256")
    other = images.set_column(place, images.schema.field(place), pa.array(["0" * 64] * len(images)))
    write_table(other, tmp_path / "images.parquet")
    with pytest.raises(DataError, match="is another picture in another table"):
        image_files(dataset, tmp_path / "images.parquet")


def test_the_preset_is_the_papers(root):
    from palate.adaptation.labelling.label import LabelSettings
    from palate.generation.generate import GenerateSettings
    from palate.settings import read_settings

    recipe = root / "recipes" / "hps2023.toml"
    assert read_settings(AdaptSettings, recipe, section="adapt") == AdaptSettings()
    expected = LabelSettings(blur="published", rejected_share=0.5)
    assert read_settings(LabelSettings, recipe, section="label") == expected
    assert read_settings(GenerateSettings, recipe, section="generate") == GenerateSettings()

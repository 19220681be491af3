"""Every family learns by every method: trained, saved, loaded and asked for images, here and by diffusers itself."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.adaptation.conftest import QUICK, ROLES

from palate.adaptation.adapt import adapt
from palate.adaptation.examples import image_files
from palate.data.records import Label
from palate.data.tables import read_table, to_table
from palate.errors import CheckpointError, SettingsError
from palate.generation.adapters import FILE_NAME
from palate.generation.generate import GenerateSettings, generate
from palate.generation.generator import load_generator
from palate.generation.tiny import write_tiny_pipeline

FAMILIES = ("sd", "sdxl", "sd3")
METHODS = ("identifier", "sft", "dpo", "kto")


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, tmp_path_factory):
    """A tiny base of a family, and labels on its own images."""
    room = tmp_path_factory.mktemp(request.param)
    base = write_tiny_pipeline(room / "base", kind=request.param)
    how = GenerateSettings(images_per_prompt=3, steps=2, batch=6)
    generate([f"ball {number}" for number in range(4)], load_generator(base), room / "images", how)
    rows = read_table(room / "images" / "images.parquet", "images").to_pylist()
    labels = [
        Label(row["image"], ROLES[number % 3], row["prompt"], row["prompt"])
        for number, row in enumerate(rows)
    ]
    return request.param, base, to_table(labels, "labels"), image_files(room / "images")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_train_save_load_generate(made, method, tmp_path):
    kind, base, labels, files = made
    settings = replace(QUICK, method=method, steps=4, grid_prompts=("a tree",), grid_steps=2)
    result = adapt(labels, files, base, tmp_path / "adapted", settings)
    assert result["method"] == method
    assert (tmp_path / "adapted" / "grids" / "step-000004.png").exists()
    how = GenerateSettings(images_per_prompt=1, steps=2, batch=2)
    tables = [
        generate(["a tree"], load_generator(base, adapter), tmp_path / name, how)
        for name, adapter in (("bare", None), ("with", tmp_path / "adapted"))
    ]
    assert tables[0]["sha256"][0] != tables[1]["sha256"][0]
    prefix = "transformer." if kind == "sd3" else "unet."
    assert all(name.startswith(prefix) for name in load_file(tmp_path / "adapted" / FILE_NAME))


@pytest.mark.slow
def test_diffusers_itself_loads_what_was_saved(made, tmp_path):
    """With alpha three times the rank; the answers of the denoiser are those of the training."""
    kind, base, labels, files = made
    adapt(labels, files, base, tmp_path / "adapted", replace(QUICK, method="dpo", steps=4))
    without = {"text_encoder_3": None, "tokenizer_3": None} if kind == "sd3" else {}
    theirs = diffusers.DiffusionPipeline.from_pretrained(base, **without)
    theirs.set_progress_bar_config(disable=True)
    theirs.load_lora_weights(tmp_path / "adapted")
    ours = load_generator(base, tmp_path / "adapted", merge=False).pipeline
    ours.set_progress_bar_config(disable=True)
    pictures = [
        pipeline(
            "a tree",
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(3),
            output_type="np",
        ).images
        for pipeline in (theirs, ours)
    ]
    # ours has the channels last, which rounds otherwise
    assert np.abs(pictures[0] - pictures[1]).max() < 1e-4
    assert pictures[0].std() > 0.01


@pytest.mark.slow
def test_killed_between_two_saves_it_ends_the_same(made, tmp_path):
    from palate.adaptation.work import Work

    _, base, labels, files = made
    settings = replace(QUICK, method="dpo", steps=4, save_every=2)
    adapt(labels, files, base, tmp_path / "whole", settings)
    with pytest.MonkeyPatch.context() as patch:
        losses_at = Work.losses_at

        def broken(self, step):
            if step == 3:
                raise KeyboardInterrupt
            return losses_at(self, step)

        patch.setattr(Work, "losses_at", broken)
        with pytest.raises(KeyboardInterrupt):
            adapt(labels, files, base, tmp_path / "cut", settings)
    adapt(labels, files, base, tmp_path / "cut", settings)
    files_made = [(tmp_path / name / FILE_NAME).read_bytes() for name in ("whole", "cut")]
    assert files_made[0] == files_made[1]


def test_a_base_of_no_family_is_refused(labels, files, base, tmp_path, monkeypatch):
    from palate.adaptation import adapt as verb

    monkeypatch.setattr(verb, "family_of", lambda _: None)
    with pytest.raises(CheckpointError, match="cannot be adapted, expected one of"):
        adapt(labels, files, base, tmp_path / "out", QUICK)
    assert not (tmp_path / "out" / FILE_NAME).exists()


def test_a_base_that_reads_no_negative_prompt_is_refused_for_the_identifier_alone(
    labels, files, base, tmp_path, monkeypatch
):
    from palate.adaptation import adapt as verb

    monkeypatch.setattr(verb, "reads_negative", lambda _: "its UNet was distilled")
    with pytest.raises(CheckpointError, match=r"needs: its UNet was distilled; the methods 'dpo'"):
        adapt(labels, files, base, tmp_path / "out", QUICK)
    adapt(labels, files, base, tmp_path / "dpo", replace(QUICK, method="dpo", steps=1))


def test_weights_by_noise_ratio_are_refused_for_a_flow(labels, files, tmp_path):
    flow = write_tiny_pipeline(tmp_path / "sd3", kind="sd3")
    with pytest.raises(SettingsError, match=r"min_snr is 5\.0, but a flow has no such weights"):
        adapt(labels, files, flow, tmp_path / "out", replace(QUICK, min_snr=5.0))

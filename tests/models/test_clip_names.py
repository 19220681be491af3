"""What does not fit a CLIP is told under the names that its file uses, all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from palate.errors import CheckpointError
from palate.models.checkpoint import read_weights
from palate.models.clip_files import load_clip, save_clip
from palate.models.clip_names import from_openai
from palate.models.tiny import tiny_clip

OFFICIAL = Path(__file__).parents[1] / "parity" / "fixtures" / "hps_v1" / "hpc_tiny.pt"


@pytest.fixture
def weights():
    return read_weights(OFFICIAL)


def refused(weights):
    with pytest.raises(CheckpointError) as caught:
        from_openai(weights, Path("hpc.pt"))
    return str(caught.value)


def test_missing_extra_and_misshapen_are_told_together_in_openais_names(weights):
    del weights["ln_final.bias"], weights["visual.transformer.resblocks.0.attn.in_proj_weight"]
    weights["head.weight"] = torch.zeros(2)
    weights["visual.transformer.resblocks.x.ln_1.bias"] = torch.zeros(2)
    weights["transformer.resblocks.0.attn.in_proj_bias"] = torch.zeros(2)
    weights["visual.proj"] = weights["visual.proj"][1:]
    told = refused(weights)
    assert told.startswith("hpc.pt: the tensors do not fit the model: 2 missing: ")
    for part in (
        "2 missing: ln_final.bias, visual.transformer.resblocks.0.attn.in_proj_weight; ",
        "2 extra: head.weight, visual.transformer.resblocks.x.ln_1.bias; ",
        "2 misshapen: visual.proj is (127, 64), expected (128, 64), ",
        "transformer.resblocks.0.attn.in_proj_bias is (2,), expected (192,)",
    ):
        assert part in told
    assert "_model" not in told


def test_so_is_all_that_is_wrong_where_the_sizes_cannot_be_read(weights):
    del weights["visual.proj"], weights["ln_final.bias"]
    weights["head.weight"] = torch.zeros(2)
    weights["positional_embedding"] = torch.zeros(77)
    told = refused(weights)
    assert told.startswith("hpc.pt: not a CLIP in OpenAI's format: 2 missing: ")
    for part in (
        *("visual.proj", "ln_final.bias", "1 extra: head.weight"),
        "1 misshapen: positional_embedding is (77,), expected 2 axes",
    ):
        assert part in told


def test_a_position_too_few_is_misshapen(weights):
    weights["visual.positional_embedding"] = weights["visual.positional_embedding"][:0]
    assert "visual.positional_embedding is (0, 128), expected (1, 128)" in refused(weights)


def test_what_is_not_finite_is_told_in_openais_names(weights):
    weights["visual.proj"][0, 0] = torch.inf
    weights["transformer.resblocks.0.attn.in_proj_bias"][0] = torch.nan
    told = refused(weights)
    assert "2 tensors hold values that are not finite: " in told
    assert "visual.proj" in told
    assert "transformer.resblocks.0.attn.in_proj_bias" in told


def test_a_file_of_transformers_says_to_name_its_folder(tmp_path):
    save_clip(tiny_clip(0), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "clip"
    with pytest.raises(CheckpointError) as caught:
        load_clip(tmp_path / "model.safetensors")
    assert str(caught.value) == (
        f"{tmp_path / 'model.safetensors'}: its tensors have transformers' names, and such a CLIP is a "
        "folder; expected the folder that holds this file, config.json and the tokenizer"
    )

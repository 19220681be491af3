"""Adapter files are written in whole or not at all, and say what they are in every form."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from palate.adaptation import lora_files
from palate.adaptation.lora_files import add_lora, convert_adapter, save_adapter
from palate.errors import CheckpointError, RunError
from palate.generation.adapters import FILE_NAME, read_adapter
from palate.generation.generator import load_generator

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
DETAILS = {
    "method": "identifier",
    "identifier": "Weird image. ",
    "base": "0" * 64,
    "base_name": "tiny",
    "rank": 2,
    "alpha": 6.0,
    "guidance": 5.0,
    "labels": "1" * 64,
}


@pytest.fixture(scope="module")
def unet(base):
    model = load_generator(base).pipeline.unet
    draw = torch.Generator().manual_seed(1)
    for name, part in add_lora(model, TARGETS, rank=2, alpha=6.0, seed=0).items():
        if "lora_B" in name:
            part.data = torch.randn(part.shape, generator=draw)
    return model


@pytest.fixture
def adapter(unet, tmp_path):
    (tmp_path / "adapted").mkdir()
    return save_adapter(unet, "unet", tmp_path / "adapted", DETAILS)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_it_says_of_itself_survives_every_form(adapter, tmp_path):
    assert dict(read_adapter(adapter).details) == DETAILS
    convert_adapter(adapter, tmp_path / "kohya.safetensors", "kohya")
    convert_adapter(tmp_path / "kohya.safetensors", tmp_path / "back")
    for path in (tmp_path / "kohya.safetensors", tmp_path / "back"):
        found = read_adapter(path)
        assert dict(found.details) == DETAILS
        assert (found.method, found.identifier) == ("identifier", "Weird image. ")


def test_the_tensors_keep_their_bits_and_the_result_says_what_was_written(adapter, tmp_path):
    path = tmp_path / "new" / "kohya.safetensors"
    result = convert_adapter(adapter.parent, path, "kohya")
    assert result == {
        "adapter": str(path),
        "source": str(adapter),
        "read_as": "diffusers",
        "written_as": "kohya",
        "layers": 56,
        "ranks": [2],
        "alphas": [6.0],
        "identifier": "Weird image. ",
    }
    old, new = load_file(adapter), load_file(path)
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    for side in ("down", "up"):
        kept = new[f"lora_unet_{layer.replace('.', '_')}.lora_{side}.weight"]
        assert torch.equal(kept, old[f"unet.{layer}.lora.{side}.weight"])


def test_an_identifier_is_put_into_a_file_from_elsewhere(adapter, tmp_path):
    foreign = tmp_path / "adapted_model.bin"
    torch.save({"a.processor.to_q_lora.down.weight": torch.ones(1, 4)}, foreign)
    with pytest.raises(CheckpointError, match=r"'unet\.a\.to_q' has no tensor for 'up'"):
        convert_adapter(foreign, tmp_path / "out")
    tensors = {
        f"a.processor.to_out_lora.{side}.weight": torch.ones(1, 1) for side in ("down", "up")
    }
    torch.save(tensors, foreign)
    result = convert_adapter(foreign, tmp_path / "out", identifier="Weird image. ")
    assert (result["read_as"], result["identifier"]) == ("processors", "Weird image. ")
    found = read_adapter(tmp_path / "out")
    assert (found.method, found.identifier) == ("identifier", "Weird image. ")
    assert found.details["source"] == "adapted_model.bin"
    assert load_file(tmp_path / "out" / FILE_NAME).keys() == {
        "unet.a.to_out.0.lora.down.weight",
        "unet.a.to_out.0.lora.up.weight",
    }


def test_another_file_is_replaced_only_when_told_and_the_same_one_is_left(adapter, tmp_path):
    out = tmp_path / "out"
    convert_adapter(adapter, out)
    convert_adapter(adapter, out)
    with pytest.raises(RunError, match=r"is there already; use --overwrite"):
        convert_adapter(adapter, out, "kohya")
    assert read_adapter(out).form == "diffusers"
    convert_adapter(adapter, out, "kohya", overwrite=True)
    assert read_adapter(out).form == "kohya"
    convert_adapter(out, out, "diffusers", overwrite=True)
    assert (out / FILE_NAME).read_bytes() == adapter.read_bytes()


def test_a_file_that_does_not_read_back_the_same_is_not_left_there(adapter, tmp_path, monkeypatch):
    out = tmp_path / "out"
    convert_adapter(adapter, out)
    monkeypatch.setattr(lora_files, "same_lora", lambda one, other: False)
    for place in (out, tmp_path / "fresh"):
        with pytest.raises(RunError, match="does not read back as the same adapter"):
            convert_adapter(adapter, place, "kohya", overwrite=True)
    assert names(out) == [FILE_NAME]
    assert names(tmp_path / "fresh") == []
    assert (out / FILE_NAME).read_bytes() == adapter.read_bytes()


def test_half_a_file_never_stays(unet, adapter, tmp_path, monkeypatch):
    before = adapter.read_bytes()
    write = Path.write_bytes

    def full(path, content):
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match="could not be written: No space left"):
        save_adapter(unet, "unet", adapter.parent, {**DETAILS, "rank": 3})
    with pytest.raises(RunError, match="could not be written: No space left"):
        convert_adapter(adapter, tmp_path / "out.safetensors", "kohya")
    assert adapter.read_bytes() == before
    assert names(adapter.parent) == [FILE_NAME]
    assert names(tmp_path) == ["adapted"]


def test_no_file_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.bin: no such adapter file"):
        convert_adapter(tmp_path / "none.bin", tmp_path / "out")
    with pytest.raises(
        CheckpointError, match=r"pytorch_lora_weights\.safetensors: no such adapter"
    ):
        convert_adapter(tmp_path, tmp_path / "out")

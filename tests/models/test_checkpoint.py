"""Checkpoints are data: strict names, and nothing from a file is ever run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from palate.errors import CheckpointError
from palate.models.checkpoint import read_weights
from palate.models.clip import load_clip
from palate.models.clip_names import from_openai, read_architecture

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
OFFICIAL = FIXTURES / "hps_v1" / "hpc_tiny.pt"
WORDS = FIXTURES / "tokenizer" / "bpe_small.txt.gz"
SHAPES = FIXTURES / "hps_v1" / "architecture.json"


@pytest.fixture
def weights():
    return read_weights(OFFICIAL)


def saved(weights, folder, **extra):
    """Write weights as an official file, with the architecture beside."""
    path = folder / "hpc.pt"
    torch.save({"state_dict": weights} | extra, path)
    (folder / "architecture.json").write_text(SHAPES.read_text("utf-8"), "utf-8")
    return path


class Trap:
    """A pickle that leaves a trace when it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "evil.pt"
    torch.save({"state_dict": {"a": torch.zeros(1), "b": Trap(trace)}}, path)
    with pytest.raises(CheckpointError, match="would run code"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        read_weights(path)
    assert not trace.exists()


def test_a_pickled_module_is_refused_by_its_class(tmp_path):
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(
        CheckpointError, match=r"would run code \(torch\.nn\.modules\.linear\.Linear\)"
    ):
        read_weights(path)


def test_the_official_mps_file_is_refused(shared):
    with pytest.raises(CheckpointError, match="would run code"):
        read_weights(shared / "parity" / "mps" / "MPS_tiny_checkpoint.pth")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"PK\x03\x04 half a zip"])
def test_files_that_are_no_checkpoint_are_refused_in_a_sentence(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as fault:
        read_weights(path)
    assert str(path) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "half.pt"
    path.write_bytes(OFFICIAL.read_bytes()[: OFFICIAL.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="not a readable PyTorch checkpoint"):
        read_weights(path)


def test_things_that_are_no_state_dict_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_weights(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(CheckpointError, match="found a list"):
        read_weights(path)
    torch.save({"a": 1}, path)
    with pytest.raises(CheckpointError, match="entry 'a' is no tensor"):
        read_weights(path)


def test_a_wrapped_state_dict_is_unwrapped(weights, tmp_path):
    path = tmp_path / "w.pt"
    torch.save({f"module.{name}": value for name, value in weights.items()}, path)
    assert set(read_weights(path)) == set(weights)
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, tmp_path / "w.safetensors"
    )
    assert set(read_weights(tmp_path / "w.safetensors")) == set(weights)


def test_missing_extra_and_misshapen_tensors_are_all_listed(weights, tmp_path):
    del weights["ln_final.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: text_model\.final_layer_norm\.bias"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)
    weights["ln_final.bias"] = torch.zeros(63)
    with pytest.raises(CheckpointError, match=r"misshapen: .*is \(63,\), expected \(64,\)"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)
    weights["ln_final.bias"] = torch.zeros(64)
    weights["head.weight"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"1 tensors that a CLIP does not have: head\.weight"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)


def test_weights_that_are_not_finite_are_refused(weights, tmp_path):
    weights["ln_final.bias"][3] = torch.nan
    with pytest.raises(CheckpointError, match=r"not finite: text_model\.final_layer_norm\.bias"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)


def test_a_hole_in_the_blocks_is_a_missing_tensor(weights, tmp_path):
    gone = [name for name in weights if name.startswith("transformer.resblocks.0.")]
    for name in gone:
        del weights[name]
    with pytest.raises(CheckpointError, match=r"resblocks\.0"):
        load_clip(saved(weights, tmp_path), tokenizer=WORDS)


def test_heads_are_never_guessed_for_unknown_sizes(weights, tmp_path):
    path = saved(weights, tmp_path)
    (tmp_path / "architecture.json").unlink()
    with pytest.raises(CheckpointError, match="do not say how many attention heads"):
        load_clip(path, tokenizer=WORDS)


def test_an_architecture_must_agree_with_the_weights(weights, tmp_path):
    shapes = tmp_path / "shapes.json"
    shapes.write_text(json.dumps(json.loads(SHAPES.read_text()) | {"vision_width": 256}))
    with pytest.raises(CheckpointError, match=r"vision_width is 256, but .* has 128"):
        read_architecture(weights, OFFICIAL, shapes)
    shapes.write_text(json.dumps({"heads": 2}))
    with pytest.raises(CheckpointError, match="unknown entry 'heads'"):
        read_architecture(weights, OFFICIAL, shapes)
    shapes.write_text(json.dumps(json.loads(SHAPES.read_text()) | {"vision_heads": 3}))
    with pytest.raises(CheckpointError, match="vision_heads is 3"):
        read_architecture(weights, OFFICIAL, shapes)
    shapes.write_text("[]")
    with pytest.raises(CheckpointError, match="found a list"):
        read_architecture(weights, OFFICIAL, shapes)


def test_openais_own_sizes_have_known_heads():
    sizes = {
        "visual.conv1.weight": (1024, 3, 14, 14),
        "visual.positional_embedding": (257, 1024),
        "visual.proj": (1024, 768),
        "token_embedding.weight": (49408, 768),
        "positional_embedding": (77, 768),
    }
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in sizes.items()}
        for tower, width, blocks in (("visual.", 1024, 24), ("", 768, 12)):
            for block in range(blocks):
                name = f"{tower}transformer.resblocks.{block}.mlp.c_fc.weight"
                weights[name] = torch.empty(4 * width, width)
    found = read_architecture(weights, Path("hpc.pt"))
    assert (found.vision_heads, found.transformer_heads, found.activation) == (16, 12, "quick_gelu")
    assert (found.image_resolution, found.vision_layers, found.vocab_size) == (224, 24, 49408)


def test_every_official_tensor_is_used_once(weights):
    renamed = from_openai(weights, OFFICIAL)
    joint = sum("in_proj" in name for name in weights)
    assert len(renamed) == len(weights) + 2 * joint
    assert sum(value.numel() for value in renamed.values()) == sum(
        value.numel() for value in weights.values()
    )

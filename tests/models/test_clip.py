"""A CLIP reads, writes, and is the same function as transformers' own forward pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from palate.errors import CheckpointError
from palate.models.clip import encode_prompts
from palate.models.clip_files import load_clip, save_clip
from palate.models.pixels import Preparation, prepare
from palate.models.tiny import tiny_clip

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
OFFICIAL = FIXTURES / "hps_v1" / "hpc_tiny.pt"
WORDS = FIXTURES / "tokenizer" / "bpe_small.txt.gz"
PROMPTS = ["a red fox", "", "two cats & a dog, watercolor"]


@pytest.fixture(scope="module")
def official():
    return load_clip(OFFICIAL, tokenizer=WORDS)


def features(clip):
    generator = torch.Generator().manual_seed(0)
    size = clip.preparation.size
    pixels = torch.randn(3, 3, size, size, generator=generator)
    ids = encode_prompts(clip, PROMPTS)
    with torch.inference_mode():
        return clip.image_features(pixels), clip.text_features(ids), pixels, ids


def transformers_twin(clip, *, legacy=False):
    """The same weights in the classes of transformers, which Palate does not need for scoring."""
    from transformers import CLIPConfig, CLIPModel

    said = clip.model.config.to_dict()
    if legacy:
        said["text_config"]["eos_token_id"] = 2
    theirs = CLIPModel(CLIPConfig.from_dict(said)).eval()
    theirs.load_state_dict(clip.model.state_dict(), strict=True)
    return theirs


@pytest.mark.parametrize("legacy", [False, True])
def test_the_parts_are_transformers_own_forward(official, legacy):
    for clip in (official, tiny_clip(3)):
        theirs = transformers_twin(clip, legacy=legacy)
        if legacy:
            text = replace(clip.model.config.text_config, eos_token_id=2)
            clip.model.config = replace(clip.model.config, text_config=text)
        images, texts, pixels, ids = features(clip)
        with torch.inference_mode():
            expected = theirs(input_ids=ids, pixel_values=pixels)
        assert torch.allclose(images, expected.image_embeds, atol=2e-6)
        assert torch.allclose(texts, expected.text_embeds, atol=2e-6)


def test_the_last_block_for_the_class_token_alone_is_the_whole_block():
    clip = tiny_clip(4)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = clip.image_head(clip.image_blocks(clip.image_stem(pixels)))
        assert torch.allclose(clip.image_features(pixels), whole, atol=1e-6)


def test_half_precision_weights_are_computed_with_in_float32(official):
    assert {value.dtype for value in official.model.parameters()} == {torch.float32}
    assert not official.model.training
    assert not any(value.requires_grad for value in official.model.parameters())


def test_a_saved_folder_is_the_same_function(official, tmp_path):
    save_clip(official, tmp_path / "a", name="fox", unit="hps")
    again = load_clip(tmp_path / "a")
    assert again.about["name"] == "fox"
    assert again.preparation == official.preparation
    assert again.fingerprint() == official.fingerprint()
    for ours, theirs in zip(features(again)[:2], features(official)[:2], strict=True):
        assert torch.equal(ours, theirs)


def test_a_saved_folder_loads_in_transformers(official, tmp_path):
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    save_clip(official, tmp_path)
    model, found = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    images, texts, pixels, _ = features(official)
    words = CLIPTokenizer.from_pretrained(tmp_path)(PROMPTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model.eval()(pixel_values=pixels, **words)
    assert torch.allclose(theirs.image_embeds, images, atol=2e-6)
    assert torch.allclose(theirs.text_embeds, texts, atol=2e-6)
    picture = Image.effect_noise((300, 260), 80).convert("RGB")
    prepared = CLIPImageProcessorPil.from_pretrained(tmp_path)(
        picture, return_tensors="pt"
    ).pixel_values
    assert torch.allclose(prepared, prepare([picture], official.preparation), atol=1e-5)


def test_half_precision_halves_the_file(tmp_path):
    clip = tiny_clip(0)
    save_clip(clip, tmp_path / "whole")
    save_clip(clip, tmp_path / "half", half=True)
    whole, half = (tmp_path / name / "model.safetensors" for name in ("whole", "half"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert {value.dtype for value in load_clip(half.parent).model.parameters()} == {torch.float32}


def test_a_plain_folder_brings_its_own_preparation(tmp_path):
    clip = tiny_clip(0)
    save_clip(clip, tmp_path)
    (tmp_path / "palate.json").unlink()
    assert load_clip(tmp_path).preparation == clip.preparation
    (tmp_path / "preprocessor_config.json").unlink()
    assert load_clip(tmp_path).preparation == Preparation(size=32)


def test_a_plain_pytorch_file_in_a_folder_is_read(tmp_path):
    clip = tiny_clip(0)
    save_clip(clip, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(clip.model.state_dict(), tmp_path / "pytorch_model.bin")
    assert load_clip(tmp_path).fingerprint() == clip.fingerprint()


def test_the_fingerprint_sees_every_part():
    clip = tiny_clip(0)
    first = clip.fingerprint()
    assert tiny_clip(0).fingerprint() == first
    assert tiny_clip(1).fingerprint() != first
    with torch.no_grad():
        clip.model.logit_scale += 1e-3
    assert clip.fingerprint() != first
    other = tiny_clip(0)
    other.tokenizer.clean = "transformers"
    assert other.fingerprint() != first


def test_building_leaves_the_callers_random_numbers_alone(tmp_path):
    save_clip(tiny_clip(0), tmp_path)
    before = torch.random.get_rng_state()
    load_clip(tmp_path)
    tiny_clip(5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_wrong_places_and_folders_are_told_in_a_sentence(tmp_path, official):
    with pytest.raises(CheckpointError, match="no such weights file or folder"):
        load_clip(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_clip(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="model_type is 'bert', expected 'clip'"):
        load_clip(tmp_path)
    lonely = tmp_path / "lonely" / "hpc.pt"
    lonely.parent.mkdir()
    lonely.write_bytes(OFFICIAL.read_bytes())
    with pytest.raises(CheckpointError, match="heads"):
        load_clip(lonely)
    with pytest.raises(CheckpointError, match="no vocabulary beside the weights"):
        load_clip(lonely, architecture=OFFICIAL.parent / "architecture.json")
    save_clip(official, tmp_path / "saved")
    (tmp_path / "saved" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such weights file"):
        load_clip(tmp_path / "saved")


def test_a_card_with_another_size_is_refused(tmp_path):
    save_clip(tiny_clip(0), tmp_path)
    card = json.loads((tmp_path / "palate.json").read_text())
    card["preparation"]["size"] = 64
    (tmp_path / "palate.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="32 pixels, but the preparation makes 64"):
        load_clip(tmp_path)


def test_a_full_disk_leaves_no_card(tmp_path, monkeypatch):
    """The card is written last: a folder with it is complete."""
    import palate.models.clip_files as module
    from palate.errors import RunError

    real = module.write_atomic

    def full(path, text):
        if path.name == "merges.txt":
            raise RunError(f"{path}: could not be written: No space left on device")
        real(path, text)

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(RunError, match="No space left"):
        save_clip(tiny_clip(0), tmp_path)
    assert not (tmp_path / "palate.json").exists()

"""The papers' recipes train of a network of the published size what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from palate.models.clip_network import ClipConfig, ClipNetwork, TextConfig, VisionConfig
from palate.models.tiny import tiny_clip
from palate.settings import read_settings
from palate.training.learners.towers import unfreeze
from palate.training.settings import TrainSettings


@pytest.fixture(scope="module")
def vit_h():
    """A ViT-H/14 without memory."""
    sizes = {"num_attention_heads": 16, "projection_dim": 1024}
    text = TextConfig(
        vocab_size=49408,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        max_position_embeddings=77,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
        **sizes,
    )
    vision = VisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        image_size=224,
        patch_size=14,
        **sizes,
    )
    with torch.device("meta"):
        model = ClipNetwork(ClipConfig(text_config=text, vision_config=vision, projection_dim=1024))
    return replace(tiny_clip(0), model=model)


def trained_by(recipe, clip):
    frozen = unfreeze(clip, recipe.trained())
    return frozen, {name for name, value in clip.model.named_parameters() if value.requires_grad}


def test_pickscore_trains_everything(root, vit_h):
    recipe = read_settings(TrainSettings, root / "recipes" / "pickscore.toml", section="train")
    frozen, trained = trained_by(recipe, vit_h)
    assert (frozen.image, frozen.text) == (0, 0)
    whole = {name for name, _ in vit_h.model.named_parameters()}
    assert trained == whole - {"logit_scale"}  # the learner adds it
    assert recipe.train_logit_scale


def test_hps_v2_trains_19_blocks_with_the_projection_and_11(root, vit_h):
    """20 groups of open_clip: the projection, the last block with its norm, and 18 more blocks."""
    recipe = read_settings(TrainSettings, root / "recipes" / "hps-v2.toml", section="train")
    frozen, trained = trained_by(recipe, vit_h)
    assert (frozen.image, frozen.text) == (1 + 32 - 19, 1 + 24 - 11)
    blocks = {
        tower: {int(name.split(".")[3]) for name in trained if f"{tower}_model.encoder" in name}
        for tower in ("vision", "text")
    }
    assert blocks == {"vision": set(range(13, 32)), "text": set(range(13, 24))}
    others = {name for name in trained if ".encoder." not in name}
    assert {"visual_projection.weight", "text_projection.weight"} <= others
    assert not any("embedding" in name for name in others)

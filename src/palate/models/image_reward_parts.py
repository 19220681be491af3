"""The three parts of an ImageReward: their sizes, their modules, and their official names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, read_json

Sizes = dict[str, Any]

# (width, layers) to heads: the ViT-L of BLIP's `create_vit`, and BERT base.
_HEADS = {(1024, 24): 16, (768, 12): 12}
_TOWER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
VISION_SIZES = (*_TOWER, "image_size", "patch_size")
TEXT_SIZES = (*_TOWER, "vocab_size", "encoder_hidden_size", "max_position_embeddings")
# What is the same in every ImageReward: timm's epsilon in the image tower, BERT's in the encoder.
_VISION = {"hidden_act": "gelu", "layer_norm_eps": 1e-6}
_TEXT = {"hidden_act": "gelu", "layer_norm_eps": 1e-12}
# From our names to the official ones, one replacement after the other.
_NAMES = (
    ("vision.embeddings.class_embedding", "blip.visual_encoder.cls_token"),
    ("vision.embeddings.position_embedding", "blip.visual_encoder.pos_embed"),
    ("vision.embeddings.patch_embedding", "blip.visual_encoder.patch_embed.proj"),
    ("vision.encoder.layers.", "blip.visual_encoder.blocks."),
    ("vision.post_layernorm", "blip.visual_encoder.norm"),
    (".layer_norm", ".norm"),
    (".self_attn.qkv", ".attn.qkv"),
    (".self_attn.projection", ".attn.proj"),
    ("text.", "blip.text_encoder."),
    ("head.", "mlp.layers."),
)


def measure(weights: Weights, where: Path) -> tuple[Sizes, Sizes]:
    """Read what the shapes of officially named weights tell of the image tower and the text encoder."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim != axes:
            raise CheckpointError(
                f"{where}: not an ImageReward in the official format, '{name}' is missing or misshapen"
            )
        return tuple(weights[name].shape)

    def count(prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in weights if prefix in name})

    blocks, layers = "blip.visual_encoder.blocks.", "blip.text_encoder.encoder.layer."
    embeddings = "blip.text_encoder.embeddings."
    width, _, patch, _ = shape("blip.visual_encoder.patch_embed.proj.weight", 4)
    grid = math.isqrt(max(shape("blip.visual_encoder.pos_embed", 3)[1] - 1, 0))
    vocabulary, text_width = shape(f"{embeddings}word_embeddings.weight", 2)
    depth, text_depth = count(blocks), count(layers)
    vision = {
        "hidden_size": width,
        "intermediate_size": shape(f"{blocks}0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": depth,
        "num_attention_heads": _HEADS.get((width, depth)),
        "image_size": grid * patch,
        "patch_size": patch,
    }
    text = {
        "hidden_size": text_width,
        "intermediate_size": shape(f"{layers}0.intermediate.dense.weight", 2)[0],
        "num_hidden_layers": text_depth,
        "num_attention_heads": _HEADS.get((text_width, text_depth)),
        "vocab_size": vocabulary,
        "encoder_hidden_size": width,
        "max_position_embeddings": shape(f"{embeddings}position_embeddings.weight", 2)[0],
    }
    return vision, text


def add_architecture(vision: Sizes, text: Sizes, said: Mapping[str, Any], where: Path) -> Sizes:
    """Take the image tower's heads from an architecture file; all its sizes must agree with the weights."""
    tower = said.get("vit", {})
    if not isinstance(tower, dict):
        raise CheckpointError(f"{where}: vit is {tower!r}, expected an object")
    flat = {f"vit.{name}": value for name, value in tower.items()}
    flat |= {name: value for name, value in said.items() if name != "vit"}
    sizes = {
        "vit.embed_dim": vision["hidden_size"],
        "vit.depth": vision["num_hidden_layers"],
        "vit.patch_size": vision["patch_size"],
        "vit.img_size": vision["image_size"],
        "mlp_input": text["hidden_size"],
    }
    known = {*sizes, "vit.num_heads", "mean", "std"}
    if unknown := sorted(set(flat) - known):
        raise CheckpointError(f"{where}: unknown entry '{unknown[0]}', expected {sorted(known)}")
    _agree(flat, sizes, where)
    heads = flat.get("vit.num_heads", vision["num_attention_heads"])
    return checked({**vision, "num_attention_heads": heads}, VISION_SIZES, where)


def add_med_config(text: Sizes, where: Path) -> Sizes:
    """Take the text encoder's heads from ``med_config.json`` beside the weights.

    The official code replaces the file's ``encoder_width`` by the width of the image tower, and so
    it is not looked at; the other sizes must agree with the weights.
    """
    path = where.parent / "med_config.json"
    said = read_json(path) if path.is_file() else {}
    own = {"encoder_hidden_size", "num_attention_heads"}
    sizes = {name: size for name, size in text.items() if name not in own}
    _agree(said, sizes | _TEXT, path)
    heads = said.get("num_attention_heads", text["num_attention_heads"])
    return checked({**text, "num_attention_heads": heads}, TEXT_SIZES, path if said else where)


def _agree(said: Mapping[str, Any], sizes: Sizes, where: Path) -> None:
    """Refuse a file that says something else than the weights."""
    for name, size in sizes.items():
        if said.get(name, size) != size:
            raise CheckpointError(f"{where}: {name} is {said[name]}, but the weights have {size}")


def checked(said: Any, names: tuple[str, ...], where: Path) -> Sizes:
    """Refuse sizes of which one is missing, unknown or impossible."""
    if not isinstance(said, Mapping) or set(said) != set(names):
        found = sorted(said) if isinstance(said, Mapping) else said
        raise CheckpointError(f"{where}: found the sizes {found}, expected {sorted(names)}")
    if said["num_attention_heads"] is None:
        raise CheckpointError(
            f"{where}: the weights do not say how many attention heads they have; expected "
            "vit.num_heads in an architecture file, num_attention_heads in med_config.json beside them"
        )
    for name in names:
        if type(said[name]) is not int or said[name] < 1:
            raise CheckpointError(f"{where}: {name} is {said[name]!r}, expected a positive integer")
    width, heads = said["hidden_size"], said["num_attention_heads"]
    if width % heads:
        raise CheckpointError(f"{where}: {heads} attention heads do not divide the width {width}")
    return dict(said)


def lay_out(vision: Sizes, text: Sizes) -> nn.ModuleDict:
    """Build the three parts without memory, so that no random numbers are drawn."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    nothing = {"bos_token_id": None, "eos_token_id": None}  # no text is generated
    with torch.device("meta"):
        vision_model = BlipVisionModel(BlipVisionConfig(**vision, **_VISION))
        text_config = BlipTextConfig(**text, **_TEXT, **nothing)
        text_model = BlipTextModel(text_config, add_pooling_layer=False)
    head = lay_out_head(text["hidden_size"])
    return nn.ModuleDict({"vision": vision_model, "text": text_model, "head": head})


def lay_out_head(width: int) -> nn.Sequential:
    """Build the head without memory: five affine maps with nothing between them but dropout."""
    with torch.device("meta"):
        return nn.Sequential(
            *(nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)),
            *(nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
        )


def fill(parts: nn.ModuleDict, weights: Weights) -> tuple[Any, Any, Any]:
    """Give laid-out parts their weights, in float32 and evaluation mode, and give them one by one."""
    parts.to_empty(device="cpu")
    # `to_empty` leaves a buffer that is not saved undefined; there is this one.
    embeddings: Any = parts["text"].embeddings
    positions = embeddings.position_ids.shape[-1]
    embeddings.position_ids = torch.arange(positions).expand(1, -1).clone()
    parts.load_state_dict({name: value.to(torch.float32) for name, value in weights.items()})
    parts.requires_grad_(requires_grad=False).eval()
    return parts["vision"], parts["text"], parts["head"]


def official_name(name: str) -> str:
    """Give the official name of a tensor of ours."""
    for ours, theirs in _NAMES:
        name = name.replace(ours, theirs)
    return name

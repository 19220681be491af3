"""BLIP, the network that an ImageReward is made of: what a training of one starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, check_names, read_json, read_weights
from palate.models.image_reward import ImageReward, from_official, load_image_reward
from palate.models.image_reward_parts import (
    TEXT_SIZES,
    VISION_SIZES,
    checked,
    fill,
    lay_out,
    lay_out_head,
    measure,
    official_name,
)
from palate.models.once import reading_once
from palate.models.pixels import Preparation
from palate.models.word_pieces import read_word_pieces
from palate.runs import seed_for

# What salesforce/BLIP stores beside the image tower and the image-grounded text encoder: the matching head,
# the decoder, the momentum copies, and the queues of its contrastive loss.
_HEADS = ("itm_head.", "text_decoder.")
_COPIES = ("visual_encoder_m.", "text_encoder_m.", "vision_proj_m.", "text_proj_m.")
_QUEUES = ("image_queue", "text_queue", "idx_queue", "queue_ptr", "ptr_queue", "temp")
# What transformers' BlipForImageTextRetrieval stores beside them; the numbers of positions in old files.
_HEADS_THERE = ("itm_head.", "vision_proj.", "text_proj.")
_POSITIONS_THERE = "text_encoder.embeddings.position_ids"


def load_reward_base(
    path: Path,
    seed: int = 0,
    *,
    tokenizer: Path | None = None,
    architecture: Path | None = None,
    device: str = "cpu",
) -> ImageReward:
    """Load an ImageReward to go on with, or a BLIP that gets a new head with random weights.

    A BLIP is a checkpoint of salesforce/BLIP for images and texts (pretrained, retrieval or matching;
    ``med_config.json`` and ``vocab.txt`` beside it, as :func:`load_image_reward` wants them), or a folder of
    transformers' ``BlipForImageTextRetrieval`` with a ``vocab.txt``. It is taken at the size of its own
    positions, which are not interpolated: 224 pixels for `model_large.pth`, of which ImageReward was made, 384
    for those tuned to retrieval. The epsilon of the image tower is BLIP's 1e-6, whatever the folder says:
    transformers' default of 1e-5 is not what the weights were trained with.

    The new head is drawn as THUDM/ImageReward `MLP` does: normal weights of deviation 1 / (width + 1) in all five
    layers, biases 0. On 768 numbers its rewards differ by 1e-9 and its gradients begin around 1e-8 and below, so
    that it learns with Adam's own epsilon of 1e-8 and hardly with a larger one. The same
    ``seed`` gives the same head, and the caller's random numbers are left alone. Raises CheckpointError.
    """
    if path.is_dir() and architecture is not None:
        raise CheckpointError(
            f"{path}: a folder says its own architecture, but {architecture} was given too"
        )
    with reading_once():
        kind = _kind(path)
        if kind == "image-reward":
            return load_image_reward(
                path, tokenizer=tokenizer, architecture=architecture, device=device
            )
        if kind == "blip":
            model = _from_transformers(path, seed, tokenizer)
        else:
            model = _from_salesforce(path, seed, tokenizer, architecture)
    for part in (model.vision, model.text, model.head):
        part.to(device)
    return model


def _kind(path: Path) -> str:
    """Say what a folder calls itself, or what a file's tensors are called after."""
    told = "expected an ImageReward, or a BLIP with an image-grounded text encoder"
    if path.is_dir():
        config = path / "config.json"
        if not config.is_file():
            raise CheckpointError(f"{path}: no config.json, {told}")
        kind = read_json(config).get("model_type")
        if kind not in {"image-reward", "blip"}:
            raise CheckpointError(f"{config}: model_type is {kind!r}, {told}")
        return str(kind)
    names = read_weights(path)
    for kind, start in (("image-reward", "blip."), ("salesforce", "visual_encoder.")):
        if any(name.startswith(start) for name in names):
            return kind
    raise CheckpointError(f"{path}: no tensor begins with 'blip.' or 'visual_encoder.', {told}")


def _from_salesforce(
    path: Path, seed: int, tokenizer: Path | None, architecture: Path | None
) -> ImageReward:
    """Put a new head on a BLIP with its official names."""
    weights = {
        f"blip.{name}": value
        for name, value in read_weights(path).items()
        if not name.startswith((*_HEADS, *_COPIES)) and name not in _QUEUES
    }
    _, text = measure(weights, path)
    head = {official_name(name): value for name, value in _new_head(text["hidden_size"], seed)}
    return from_official(weights | head, path, tokenizer, architecture)


def _from_transformers(folder: Path, seed: int, tokenizer: Path | None) -> ImageReward:
    """Put a new head on a folder of transformers."""
    vision, text = _sizes(folder)
    words = read_word_pieces(tokenizer or folder, vocabulary_size=text["vocab_size"])
    names = ("model.safetensors", "pytorch_model.bin")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    weights: Weights = {}
    for name, value in read_weights(path).items():
        if name.startswith("vision_model."):
            weights[f"vision.{name.removeprefix('vision_model.')}"] = value
        elif name.startswith("text_encoder.") and name != _POSITIONS_THERE:
            weights[f"text.{name.removeprefix('text_encoder.')}"] = value
        elif not name.startswith(_HEADS_THERE) and name != _POSITIONS_THERE:
            weights[name] = value
    parts = lay_out(vision, text)
    weights |= dict(_new_head(text["hidden_size"], seed))
    check_names(weights, {name: value.shape for name, value in parts.state_dict().items()}, path)
    preparation = Preparation(size=vision["image_size"], convert="after")
    return ImageReward(*fill(parts, weights), words, preparation)


def _sizes(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the sizes of both towers; what ``config.json`` does not say is transformers' default."""
    from transformers import BlipTextConfig, BlipVisionConfig

    where = folder / "config.json"
    raw, found = read_json(where), []
    for name, kind, sizes in (
        ("vision_config", BlipVisionConfig, VISION_SIZES),
        ("text_config", BlipTextConfig, TEXT_SIZES),
    ):
        said = {**kind().to_dict(), **(raw.get(name) or {})}
        if said["hidden_act"] != "gelu":
            raise CheckpointError(
                f"{where}: hidden_act is {said['hidden_act']!r}, expected BLIP's 'gelu'"
            )
        found.append(checked({size: said[size] for size in sizes}, sizes, where))
    vision, text = found
    return vision, text | {"encoder_hidden_size": vision["hidden_size"]}


def _new_head(width: int, seed: int) -> list[tuple[str, torch.Tensor]]:
    """Draw the weights of a head, by name."""
    generator = torch.Generator().manual_seed(seed_for("image-reward", "head", seed))
    found = []
    for name, value in lay_out_head(width).state_dict().items():
        if name.endswith("weight"):
            drawn = torch.empty(value.shape).normal_(std=1 / (width + 1), generator=generator)
        else:
            drawn = torch.zeros(value.shape)
        found.append((f"head.{name}", drawn))
    return found

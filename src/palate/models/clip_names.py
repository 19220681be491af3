"""The names and sizes of CLIPs in official files, and transformers' names for the same tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, read_json, some

Activation = Literal["quick_gelu", "gelu"]

_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_PLAIN = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_TRANSPOSED = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of a CLIP, in the spelling of openai/CLIP.

    All but the heads and the activation can be read from the weights.
    """

    embed_dim: int
    image_resolution: int
    vision_layers: int
    vision_width: int
    vision_patch_size: int
    vision_mlp: int
    context_length: int
    vocab_size: int
    transformer_width: int
    transformer_layers: int
    transformer_mlp: int
    vision_heads: int = 0
    transformer_heads: int = 0
    activation: Activation = "quick_gelu"


# (vision width, vision layers, patch, text width, text layers, embedding) of published CLIPs: their name, and how many
# heads their towers have. Other sizes must say their heads.
_PUBLISHED = {
    (768, 12, 32, 512, 12, 512): ("ViT-B/32", 12, 8),
    (768, 12, 16, 512, 12, 512): ("ViT-B/16", 12, 8),
    (1024, 24, 14, 768, 12, 768): ("ViT-L/14", 16, 12),
    (1280, 32, 14, 1024, 24, 1024): ("ViT-H/14", 16, 16),
}
# open_clip's entries that the weights or the spelling of openai/CLIP tell as well
_VISION = {
    "image_size": "image_resolution",
    "layers": "vision_layers",
    "width": "vision_width",
    "patch_size": "vision_patch_size",
}
_TEXT = {
    "context_length": "context_length",
    "vocab_size": "vocab_size",
    "width": "transformer_width",
    "heads": "transformer_heads",
    "layers": "transformer_layers",
}


def read_architecture(weights: Weights, where: Path, given: Path | None = None) -> Architecture:
    """Read a CLIP's sizes from OpenAI-named weights, and its heads from a file or a known size.

    ``given`` is a JSON file in OpenAI's spelling (``vision_heads``, ``transformer_heads``,
    ``activation``) or in open_clip's (``vision_cfg``, ``text_cfg``, ``quick_gelu``); whatever else it
    says must agree with the weights.
    """
    sizes = _measure(weights, where)
    said = read_json(given) if given is not None else {}
    if "vision_cfg" in said or "text_cfg" in said:
        said = _from_open_clip(said, given)
    names = {field.name for field in fields(Architecture)}
    if unknown := sorted(set(said) - names):
        raise CheckpointError(f"{given}: unknown entry '{unknown[0]}', expected {sorted(names)}")
    for name, size in sizes.items():
        if said.get(name, size) != size:
            raise CheckpointError(f"{given}: {name} is {said[name]}, but {where} has {size}")
    if "vision_heads" not in said or "transformer_heads" not in said:
        said = _published_heads(sizes, where) | said
    if said.get("activation", "quick_gelu") not in {"quick_gelu", "gelu"}:
        raise CheckpointError(
            f"{given}: activation is {said['activation']!r}, expected 'quick_gelu' or 'gelu'"
        )
    for width, heads in (
        ("vision_width", "vision_heads"),
        ("transformer_width", "transformer_heads"),
    ):
        if not isinstance(said[heads], int) or said[heads] < 1 or sizes[width] % said[heads]:
            raise CheckpointError(
                f"{given}: {heads} is {said[heads]}, which does not divide {sizes[width]}"
            )
    return Architecture(**(said | sizes))


def published_name(config: Any) -> str | None:
    """Name the published CLIP that has the sizes of a transformers configuration, such as ViT-L/14."""
    vision, text = config.vision_config, config.text_config
    key = (
        *(vision.hidden_size, vision.num_hidden_layers, vision.patch_size),
        *(text.hidden_size, text.num_hidden_layers, config.projection_dim),
    )
    return _PUBLISHED[key][0] if key in _PUBLISHED else None


def _published_heads(sizes: Mapping[str, int], where: Path) -> dict[str, Any]:
    """Give the heads of a published size."""
    key = tuple(
        sizes[name]
        for name in (
            *("vision_width", "vision_layers", "vision_patch_size"),
            *("transformer_width", "transformer_layers", "embed_dim"),
        )
    )
    if key not in _PUBLISHED:
        raise CheckpointError(
            f"{where}: the weights do not say how many attention heads they have; expected "
            "vision_heads and transformer_heads in an architecture file"
        )
    _, vision, text = _PUBLISHED[key]
    return {"vision_heads": vision, "transformer_heads": text}


def _from_open_clip(said: Mapping[str, Any], given: Path | None) -> dict[str, Any]:
    """Write open_clip's model configuration in OpenAI's spelling; without quick_gelu it means GELU."""
    found: dict[str, Any] = {"activation": "quick_gelu" if said.get("quick_gelu") else "gelu"}
    if "embed_dim" in said:
        found["embed_dim"] = said["embed_dim"]
    parts = {"vision_cfg": {**_VISION, "head_width": ""}, "text_cfg": _TEXT}
    if unknown := sorted(set(said) - {"embed_dim", "quick_gelu", *parts}):
        raise CheckpointError(f"{given}: unknown entry '{unknown[0]}' in open_clip's spelling")
    for part, names in parts.items():
        inner = said.get(part, {})
        if not isinstance(inner, dict):
            raise CheckpointError(f"{given}: {part} is {inner!r}, expected an object")
        if unknown := sorted(set(inner) - set(names)):
            raise CheckpointError(f"{given}: unknown entry '{unknown[0]}' in {part}")
        found |= {names[name]: value for name, value in inner.items() if names[name]}
    vision = said.get("vision_cfg", {})
    if "width" in vision:
        found["vision_heads"] = vision["width"] // vision.get("head_width", 64)
    return found


def _measure(weights: Weights, where: Path) -> dict[str, int]:
    """Read every size that the shapes of OpenAI-named weights tell."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim != axes:
            raise CheckpointError(
                f"{where}: not a CLIP in OpenAI's format, '{name}' is missing or misshapen"
            )
        return tuple(weights[name].shape)

    width, _, patch, _ = shape("visual.conv1.weight", 4)
    grid = round((shape("visual.positional_embedding", 2)[0] - 1) ** 0.5)
    vocabulary, text_width = shape("token_embedding.weight", 2)
    return {
        "embed_dim": shape("visual.proj", 2)[1],
        "image_resolution": grid * patch,
        "vision_layers": _count(weights, "visual.transformer.resblocks."),
        "vision_width": width,
        "vision_patch_size": patch,
        "vision_mlp": shape("visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "context_length": shape("positional_embedding", 2)[0],
        "vocab_size": vocabulary,
        "transformer_width": text_width,
        "transformer_layers": _count(weights, "transformer.resblocks."),
        "transformer_mlp": shape("transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
    }


def _count(weights: Weights, prefix: str) -> int:
    """Count the blocks of a tower."""
    numbers = {name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)}
    return len(numbers)


def from_openai(weights: Weights, where: Path) -> Weights:
    """Rename OpenAI's tensors to those of transformers' CLIPModel; an unknown name is refused."""
    renamed: Weights = {}
    unknown = []
    for name, value in weights.items():
        found = dict(_rename(name, value))
        if not found:
            unknown.append(name)
        renamed.update(found)
    if unknown:
        raise CheckpointError(
            f"{where}: {len(unknown)} tensors that a CLIP does not have: {some(unknown)}"
        )
    return renamed


def _rename(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Give transformers' names for one tensor: none if unknown, three for a joint projection."""
    if name in _PLAIN:
        yield _PLAIN[name], value
    elif name in _TRANSPOSED:
        yield _TRANSPOSED[name], value.T.contiguous()
    else:
        tower, mark, rest = name.partition("transformer.resblocks.")
        number, _, part = rest.partition(".")
        if not mark or tower not in {"", "visual."} or not number.isdigit():
            return
        prefix = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}."
        if part in {"attn.in_proj_weight", "attn.in_proj_bias"}:
            kind = part.removeprefix("attn.in_proj_")
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                yield f"{prefix}self_attn.{letter}_proj.{kind}", third.contiguous()
            return
        layer, _, kind = part.rpartition(".")
        if layer in _BLOCK:
            yield f"{prefix}{_BLOCK[layer]}.{kind}", value

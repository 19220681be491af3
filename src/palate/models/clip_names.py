"""The names and sizes of CLIPs in official files, and transformers' names for the same tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, check_names, list_faults, read_json

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
# The tensors whose shapes tell the sizes, and how many axes each has.
_MEASURED = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "visual.proj": 2,
    "visual.transformer.resblocks.0.mlp.c_fc.weight": 2,
    "positional_embedding": 2,
    "token_embedding.weight": 2,
    "transformer.resblocks.0.mlp.c_fc.weight": 2,
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
PUBLISHED = {
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
    return PUBLISHED[key][0] if key in PUBLISHED else None


def _published_heads(sizes: Mapping[str, int], where: Path) -> dict[str, Any]:
    """Give the heads of a published size."""
    key = tuple(
        sizes[name]
        for name in (
            *("vision_width", "vision_layers", "vision_patch_size"),
            *("transformer_width", "transformer_layers", "embed_dim"),
        )
    )
    if key not in PUBLISHED:
        raise CheckpointError(
            f"{where}: the weights do not say how many attention heads they have; expected "
            "vision_heads and transformer_heads in an architecture file"
        )
    _, vision, text = PUBLISHED[key]
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
    layers = {
        "vision_layers": _count(weights, "visual.transformer.resblocks."),
        "transformer_layers": _count(weights, "transformer.resblocks."),
    }
    _check_measured(weights, layers, where)
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    grid = round(max(weights["visual.positional_embedding"].shape[0] - 1, 0) ** 0.5)
    vocabulary, text_width = weights["token_embedding.weight"].shape
    return layers | {
        "embed_dim": weights["visual.proj"].shape[1],
        "image_resolution": grid * patch,
        "vision_width": width,
        "vision_patch_size": patch,
        "vision_mlp": weights["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "context_length": weights["positional_embedding"].shape[0],
        "vocab_size": vocabulary,
        "transformer_width": text_width,
        "transformer_mlp": weights["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
    }


def _check_measured(weights: Weights, layers: Mapping[str, int], where: Path) -> None:
    """Refuse weights whose sizes cannot be read, and list all that is wrong with their names."""
    absent = [name for name in _MEASURED if name not in weights]
    misshapen = [
        f"{name} is {tuple(weights[name].shape)}, expected {axes} axes"
        for name, axes in _MEASURED.items()
        if name in weights and weights[name].ndim != axes
    ]
    if not absent and not misshapen:
        return
    if any(name.startswith(("vision_model.", "text_model.")) for name in weights):
        raise CheckpointError(
            f"{where}: its tensors have transformers' names, and such a CLIP is a folder; "
            "expected the folder that holds this file, config.json and the tokenizer"
        )
    # The names do not depend on the sizes that are not known.
    unknown = {field.name: 1 for field in fields(Architecture)}
    names = _official_shapes({**unknown, **layers})
    missing = [name for name in names if name not in weights]
    extra = [name for name in weights if name not in names]
    faults = list_faults(missing, extra, misshapen)
    raise CheckpointError(f"{where}: not a CLIP in OpenAI's format: {faults}")


def _count(weights: Weights, prefix: str) -> int:
    """Count the blocks of a tower; it has at least one."""
    numbers = {name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)}
    return max(1, sum(number.isdigit() for number in numbers))


def _official_shapes(sizes: Mapping[str, int]) -> dict[str, torch.Size]:
    """Give every tensor that a CLIP of some sizes has in OpenAI's files, and its shape."""
    width, text_width = sizes["vision_width"], sizes["transformer_width"]
    patch, out = sizes["vision_patch_size"], sizes["embed_dim"]
    grid = sizes["image_resolution"] // patch if patch else 0
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (grid**2 + 1, width),
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.proj": (width, out),
        "positional_embedding": (sizes["context_length"], text_width),
        "token_embedding.weight": (sizes["vocab_size"], text_width),
        "text_projection": (text_width, out),
    }
    norms = {"visual.ln_pre": width, "visual.ln_post": width, "ln_final": text_width}
    shapes |= {
        f"{norm}.{kind}": (size,) for norm, size in norms.items() for kind in ("weight", "bias")
    }
    for tower, side in (("visual.", "vision"), ("", "transformer")):
        block = _block_shapes(sizes[f"{side}_width"], sizes[f"{side}_mlp"])
        for number in range(sizes[f"{side}_layers"]):
            prefix = f"{tower}transformer.resblocks.{number}."
            shapes |= {prefix + name: shape for name, shape in block.items()}
    return {name: torch.Size(shape) for name, shape in shapes.items()}


def _block_shapes(width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Give the tensors of one block, and their shapes."""
    layers = {
        "attn.in_proj_": (3 * width, width),
        "attn.out_proj.": (width, width),
        "mlp.c_fc.": (inner, width),
        "mlp.c_proj.": (width, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, shape in layers.items():
        shapes |= {f"{layer}weight": shape, f"{layer}bias": shape[:1]}
    for norm in ("ln_1", "ln_2"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return shapes


def from_openai(weights: Weights, where: Path) -> Weights:
    """Rename OpenAI's tensors to those of transformers' CLIPModel.

    Raises CheckpointError for missing, extra, misshapen and non-finite tensors, under the names of the file.
    """
    check_names(weights, _official_shapes(_measure(weights, where)), where)
    renamed: Weights = {}
    for name, value in weights.items():
        renamed.update(_rename(name, value))
    return renamed


def _rename(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Give transformers' names for one of OpenAI's tensors: three for a joint projection."""
    if name in _PLAIN:
        yield _PLAIN[name], value
    elif name in _TRANSPOSED:
        yield _TRANSPOSED[name], value.T.contiguous()
    else:
        tower, _, rest = name.partition("transformer.resblocks.")
        number, _, part = rest.partition(".")
        prefix = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}."
        if part in {"attn.in_proj_weight", "attn.in_proj_bias"}:
            kind = part.removeprefix("attn.in_proj_")
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                yield f"{prefix}self_attn.{letter}_proj.{kind}", third.contiguous()
        else:
            layer, _, kind = part.rpartition(".")
            yield f"{prefix}{_BLOCK[layer]}.{kind}", value

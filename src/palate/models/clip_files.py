"""CLIPs on disk: official checkpoint files and standard folders, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, check_names, read_json, read_weights
from palate.models.clip import Clip
from palate.models.clip_names import Activation, Architecture, from_openai, read_architecture
from palate.models.clip_network import (
    ClipConfig,
    ClipNetwork,
    TextConfig,
    VisionConfig,
    read_config,
)
from palate.models.once import once
from palate.models.pixels import PROFILES, Preparation, preparation_dict, preparation_from
from palate.models.tokens import CleanUp, Tokenizer, find_tokenizer, read_tokenizer
from palate.runs import atomic_path, write_atomic

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
CARD = "palate.json"


@dataclass(frozen=True, slots=True)
class Reading:
    """How an official code path reads a CLIP, where that is not what its files say; None leaves it to them.

    ``preparation`` is taken at the size of the weights' images. ``pad`` is a token number, or ``end`` for the end
    token.
    """

    preparation: Preparation | None = None
    activation: Activation | None = None
    clean: CleanUp | None = None
    pad: int | str | None = None


def load_clip(
    path: Path,
    *,
    tokenizer: Path | None = None,
    architecture: Path | None = None,
    reading: Reading = Reading(),
    device: str = "cpu",
) -> Clip:
    """Load a CLIP from a saved folder or from an official checkpoint file, in float32.

    A folder holds transformers' ``config.json``, ``model.safetensors`` and tokenizer files; one
    that Palate wrote also holds ``palate.json``. A file holds the tensor names of OpenAI and open_clip; its
    vocabulary (``tokenizer``) and what the weights do not tell (``architecture``) are looked for beside it when they
    are not given. ``reading`` overrides what the files say; a file is otherwise read as openai/CLIP does. Nothing is
    fetched and nothing from the file is run. Raises CheckpointError.
    """
    if path.is_dir():
        clip = _load_folder(path, tokenizer, reading)
    elif path.is_file():
        clip = _load_official(path, tokenizer, architecture, reading)
    else:
        raise CheckpointError(f"{path}: no such weights file or folder")
    clip.model.to(device)
    return clip


def save_clip(clip: Clip, folder: Path, *, half: bool = False, **about: object) -> None:
    """Write a CLIP as a standard folder that Palate and transformers load.

    ``half`` stores the weights in 16 bits; they are computed with in 32 bits all the same. ``about``
    is added to what the folder says of itself in ``palate.json``, which is written last: a folder
    with it is complete. Files that are already there are replaced one by one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    precision = torch.float16 if half else torch.float32
    weights = {
        name: value.detach().to("cpu", precision).contiguous()
        for name, value in clip.model.state_dict().items()
    }
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    config = clip.model.config.to_dict() | {
        "architectures": ["CLIPModel"],
        "dtype": str(precision).removeprefix("torch."),
    }
    files = {"config.json": pretty_json(config)} | clip.tokenizer.files()
    if (processor := transformers_processor(clip.preparation)) is not None:
        files["preprocessor_config.json"] = pretty_json(processor)
    for name, text in files.items():
        write_atomic(folder / name, text)
    card = dict(clip.about) | {
        "format": 1,
        "kind": "clip",
        "preparation": preparation_dict(clip.preparation),
        "tokens": {
            "context": clip.tokenizer.context,
            "pad": clip.tokenizer.pad,
            "clean": clip.tokenizer.clean,
        },
    }
    write_atomic(folder / CARD, pretty_json(card | about))


def build_model(
    config: ClipConfig, weights: Weights, where: Path, *, checked: bool = False
) -> ClipNetwork:
    """Build a CLIP around weights, in float32 and evaluation mode.

    The network is laid out without memory, and takes the tensors as they are: weights that are float32 in the
    file are not copied. ``checked`` says that all values were found finite before.
    """
    with torch.device("meta"):
        model = ClipNetwork(config)
    weights = {name: value for name, value in weights.items() if not name.endswith(".position_ids")}
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    check_names(weights, shapes, where, values=not checked)
    floats = once(
        "float32",
        where,
        lambda: {name: value.to(torch.float32) for name, value in weights.items()},
    )
    model.load_state_dict(floats, strict=True, assign=True)
    return model.requires_grad_(requires_grad=False).eval()


def _load_official(
    path: Path, tokenizer: Path | None, architecture: Path | None, reading: Reading
) -> Clip:
    """Load a file with OpenAI's tensor names."""
    beside = path.parent / "architecture.json"
    weights = read_weights(path)
    found = read_architecture(weights, path, architecture or (beside if beside.is_file() else None))
    words = tokenizer or find_tokenizer(path.parent)
    if words is None:
        raise CheckpointError(
            f"{path}: no vocabulary beside the weights; expected bpe_simple_vocab_16e6.txt.gz there "
            "or a tokenizer file or folder given by name"
        )
    reader = read_tokenizer(
        words,
        vocabulary_size=found.vocab_size,
        context=found.context_length,
        pad=0 if reading.pad is None else reading.pad,
        clean=reading.clean or "openai",
    )
    if reading.activation is not None:
        found = replace(found, activation=reading.activation)
    preparation = reading.preparation or PROFILES["openai-clip"]
    renamed = once("renamed", path, lambda: from_openai(weights, path))
    model = build_model(_config(found, reader), renamed, path, checked=True)
    return Clip(model, reader, replace(preparation, size=found.image_resolution))


def _config(found: Architecture, tokenizer: Tokenizer) -> ClipConfig:
    """Write OpenAI's sizes in transformers' spelling."""
    text = TextConfig(
        vocab_size=found.vocab_size,
        hidden_size=found.transformer_width,
        intermediate_size=found.transformer_mlp,
        num_hidden_layers=found.transformer_layers,
        num_attention_heads=found.transformer_heads,
        max_position_embeddings=found.context_length,
        hidden_act=found.activation,
        projection_dim=found.embed_dim,
        bos_token_id=tokenizer.start,
        eos_token_id=tokenizer.end,
        pad_token_id=tokenizer.pad,
    )
    vision = VisionConfig(
        hidden_size=found.vision_width,
        intermediate_size=found.vision_mlp,
        num_hidden_layers=found.vision_layers,
        num_attention_heads=found.vision_heads,
        image_size=found.image_resolution,
        patch_size=found.vision_patch_size,
        hidden_act=found.activation,
        projection_dim=found.embed_dim,
    )
    return ClipConfig(text_config=text, vision_config=vision, projection_dim=found.embed_dim)


def _load_folder(folder: Path, tokenizer: Path | None, reading: Reading) -> Clip:
    """Load a folder in transformers' layout, with Palate's card where there is one."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no config.json, expected a folder with a saved CLIP")
    raw = read_json(folder / "config.json")
    if raw.get("model_type") != "clip":
        raise CheckpointError(
            f"{folder / 'config.json'}: model_type is {raw.get('model_type')!r}, expected 'clip'"
        )
    config = read_config(raw, folder / "config.json")
    if (activation := reading.activation) is not None:
        config = replace(
            config,
            text_config=replace(config.text_config, hidden_act=activation),
            vision_config=replace(config.vision_config, hidden_act=activation),
        )
    card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    tokens = card.get("tokens", {})
    words = read_tokenizer(
        tokenizer or folder,
        vocabulary_size=config.text_config.vocab_size,
        context=tokens.get("context", config.text_config.max_position_embeddings),
        pad=tokens.get("pad") if reading.pad is None else reading.pad,
        clean=reading.clean or tokens.get("clean"),
    )
    size = config.vision_config.image_size
    if reading.preparation is not None:
        preparation = replace(reading.preparation, size=size)
    elif "preparation" in card:
        preparation = preparation_from(card["preparation"], str(folder / CARD))
    else:
        preparation = _folder_preparation(folder, size)
    if preparation.size != size:
        raise CheckpointError(
            f"{folder}: the weights take images of {size} pixels, "
            f"but the preparation makes {preparation.size}"
        )
    names = ("model.safetensors", "pytorch_model.bin")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    return Clip(build_model(config, read_weights(path), path), words, preparation, card)


def _folder_preparation(folder: Path, size: int) -> Preparation:
    """Read what a folder says of its images' preparation, or take CLIP's at this size."""
    found = find_processor(folder)
    return Preparation(size=size) if found is None else read_processor(found[0], size, found[1])


def find_processor(folder: Path) -> tuple[dict[str, Any], Path] | None:
    """Look for transformers' image processor: ``preprocessor_config.json``, or in ``processor_config.json``.

    transformers 5 writes the second if image processor and tokenizer are saved together.
    """
    path, together = folder / "preprocessor_config.json", folder / "processor_config.json"
    if path.is_file():
        return read_json(path), path
    said = read_json(together).get("image_processor") if together.is_file() else None
    return (said, together) if isinstance(said, dict) else None


def read_processor(said: Mapping[str, Any], size: int, where: Path) -> Preparation:
    """Read transformers' image processor as a preparation at the size of the weights' images."""
    edge = said.get("size", size)
    stretched = isinstance(edge, dict) and "shortest_edge" not in edge
    try:
        return Preparation(
            size=size,
            resize="exact" if stretched else "shorter",
            interpolation=_FILTERS[said.get("resample", 3)],  # type: ignore[arg-type]
            mean=_three(said, "image_mean"),
            std=_three(said, "image_std"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: a preparation that is not understood ({error})") from error


def _three(said: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """Read three numbers, one per colour."""
    red, green, blue = said[name]
    return float(red), float(green), float(blue)


def transformers_processor(how: Preparation) -> dict[str, object] | None:
    """Write a preparation as transformers' CLIP image processor, if it can express it."""
    if how.domain != "pil" or how.resize == "longer":
        return None
    square = {"height": how.size, "width": how.size}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": how.size} if how.resize == "shorter" else square,
        "resample": next(number for number, name in _FILTERS.items() if name == how.interpolation),
        "do_center_crop": how.resize == "shorter",
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(how.mean),
        "image_std": list(how.std),
    }


def pretty_json(value: object) -> str:
    """Write a value as JSON for a file that people may read."""
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"

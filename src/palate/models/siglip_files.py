"""SigLIPs on disk: folders as transformers writes them, read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from palate.errors import CheckpointError
from palate.models.checkpoint import check_names, read_json, read_weights
from palate.models.clip_files import (
    CARD,
    find_processor,
    pretty_json,
    read_processor,
    transformers_processor,
)
from palate.models.pixels import Preparation, preparation_dict, preparation_from
from palate.models.siglip import Siglip
from palate.models.siglip_tokens import read_siglip_tokenizer
from palate.runs import atomic_path, write_atomic

ACTIVATIONS = ("gelu_pytorch_tanh", "gelu", "quick_gelu")

# What transformers' SiglipImageProcessor does where its file is silent.
_PROCESSOR: dict[str, Any] = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def load_siglip(folder: Path, *, tokenizer: Path | None = None, device: str = "cpu") -> Siglip:
    """Load a SigLIP, or a SigLIP 2 of a fixed resolution, from a saved folder, in float32.

    The folder holds transformers' ``config.json``, ``model.safetensors``, tokenizer files and
    ``preprocessor_config.json`` (or the ``processor_config.json`` of transformers 5); one that Palate wrote
    also holds ``palate.json``. ``tokenizer`` is a folder with other tokenizer files. Nothing is fetched and
    nothing from a file is run. Raises CheckpointError.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: no config.json, expected a folder with a saved SigLIP")
    config = _read_config(read_json(path), path)
    card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    words = read_siglip_tokenizer(
        tokenizer or folder,
        context=config.text_config.max_position_embeddings,
        vocabulary_size=config.text_config.vocab_size,
        clean=card.get("tokens", {}).get("clean"),
    )
    size = config.vision_config.image_size
    if "preparation" in card:
        preparation = preparation_from(card["preparation"], str(folder / CARD))
    else:
        preparation = _folder_preparation(folder, size)
    if preparation.size != size:
        raise CheckpointError(
            f"{folder}: the weights take images of {size} pixels, "
            f"but the preparation makes {preparation.size}"
        )
    model = _build_model(config, folder).to(device)
    return Siglip(model, words, preparation, card)


def save_siglip(siglip: Siglip, folder: Path, *, half: bool = False, **about: object) -> None:
    """Write a SigLIP as a standard folder that Palate and transformers load.

    ``half`` stores the weights in 16 bits; they are computed with in 32 bits all the same. ``about``
    is added to what the folder says of itself in ``palate.json``, which is written last: a folder
    with it is complete. Files that are already there are replaced one by one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    precision = torch.float16 if half else torch.float32
    weights = {
        name: value.detach().to("cpu", precision).contiguous()
        for name, value in siglip.model.state_dict().items()
    }
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    config = siglip.model.config.to_dict() | {
        "architectures": ["SiglipModel"],
        "dtype": str(precision).removeprefix("torch."),
    }
    write_atomic(folder / "config.json", pretty_json(config))
    for name, content in siglip.tokenizer.files().items():
        write_atomic(folder / name, content)
    if (processor := transformers_processor(siglip.preparation)) is not None:
        processor["image_processor_type"] = "SiglipImageProcessor"
        write_atomic(folder / "preprocessor_config.json", pretty_json(processor))
    card = dict(siglip.about) | {
        "format": 1,
        "kind": "siglip",
        "preparation": preparation_dict(siglip.preparation),
        "tokens": {
            "context": siglip.tokenizer.context,
            "pad": siglip.tokenizer.pad,
            "clean": siglip.tokenizer.clean,
        },
    }
    write_atomic(folder / CARD, pretty_json(card | about))


def _read_config(raw: Mapping[str, Any], where: Path) -> Any:
    """Read transformers' ``config.json``, and refuse what has no two towers that meet."""
    kind = raw.get("model_type")
    if kind == "siglip2":
        raise CheckpointError(
            f"{where}: model_type is 'siglip2', which is NaFlex, a SigLIP 2 for images of any shape; "
            "expected 'siglip', a SigLIP or a SigLIP 2 of a fixed resolution"
        )
    if kind != "siglip":
        raise CheckpointError(f"{where}: model_type is {kind!r}, expected 'siglip'")
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.siglip.configuration_siglip import SiglipConfig

    text, vision = dict(raw.get("text_config") or {}), dict(raw.get("vision_config") or {})
    # No part of the network reads them, and transformers warns of those outside the vocabulary.
    text |= {"bos_token_id": None, "eos_token_id": None}
    for tower in (text, vision):  # how the file was stored, not how it is computed with
        tower.pop("dtype", None)
        tower.pop("torch_dtype", None)
    try:
        config = SiglipConfig(text_config=text, vision_config=vision)
    except (StrictDataclassError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{where}: sizes that are not understood ({reason})") from error
    _check_towers(config.text_config, config.vision_config, where)
    return config


def _check_towers(text: Any, vision: Any, where: Path) -> None:
    """Refuse sizes that transformers takes and that could not be computed or compared."""
    sizes = {"image_size": vision.image_size, "patch_size": vision.patch_size}
    for name, value in sizes.items():
        if not isinstance(value, int):
            raise CheckpointError(f"{where}: {name} is {value}, expected one number")
    if vision.num_channels != 3:
        raise CheckpointError(f"{where}: num_channels is {vision.num_channels}, expected 3")
    if not vision.vision_use_head:
        raise CheckpointError(f"{where}: vision_use_head is false, expected a head on the images")
    if text.projection_size != vision.hidden_size:
        raise CheckpointError(
            f"{where}: prompts have features of {text.projection_size} numbers, "
            f"but images of {vision.hidden_size}"
        )
    for tower in (text, vision):
        heads, width = tower.num_attention_heads, tower.hidden_size
        if heads < 1 or width % heads:
            raise CheckpointError(
                f"{where}: {heads} attention heads do not divide the width {width}"
            )
        if tower.hidden_act not in ACTIVATIONS:
            raise CheckpointError(
                f"{where}: hidden_act is {tower.hidden_act!r}, expected one of {', '.join(ACTIVATIONS)}"
            )


def _build_model(config: Any, folder: Path) -> Any:
    """Build transformers' SiglipModel around the weights of a folder, in float32 and evaluation mode.

    It is laid out without memory, and takes the tensors as they are.
    """
    from transformers.models.siglip.modeling_siglip import SiglipModel

    names = ("model.safetensors", "pytorch_model.bin")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    with torch.device("meta"):
        model = SiglipModel(config)
    weights = {
        name: value.to(torch.float32)
        for name, value in read_weights(path).items()
        if not name.endswith(".position_ids")
    }
    check_names(weights, {name: value.shape for name, value in model.state_dict().items()}, path)
    model.load_state_dict(weights, strict=True, assign=True)
    for tower in (model.text_model, model.vision_model):
        embeddings = tower.embeddings  # what is no weight is still without memory
        count = embeddings.position_embedding.num_embeddings
        embeddings.position_ids = torch.arange(count)[None]
    model.checkpointing = False
    return model.requires_grad_(requires_grad=False).eval()


def _folder_preparation(folder: Path, size: int) -> Preparation:
    """Read the image processor of a folder, which must be there: SigLIP and SigLIP 2 filter differently."""
    found = find_processor(folder)
    if found is None:
        raise CheckpointError(
            f"{folder}: does not say how images are prepared, expected preprocessor_config.json or "
            "processor_config.json"
        )
    said, path = found
    said = {**_PROCESSOR, **said}
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if not said[name]:
            raise CheckpointError(f"{path}: {name} is {said[name]!r}, expected true")
    if not math.isclose(said["rescale_factor"], 1 / 255, rel_tol=1e-6):
        raise CheckpointError(f"{path}: rescale_factor is {said['rescale_factor']}, expected 1/255")
    edges = said.get("size", size)
    sides = set(edges.values()) if isinstance(edges, dict) else {edges}
    if sides != {size}:
        raise CheckpointError(
            f"{path}: size is {edges}, but the weights take images of {size} × {size} pixels"
        )
    return read_processor(said, size, path)

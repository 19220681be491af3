"""LoRA weights: put on a denoiser, written so that other tools read them, and converted from theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from palate.errors import RunError
from palate.generation.adapters import FILE_NAME, adapter_file
from palate.generation.lora_formats import (
    Form,
    Lora,
    layers_of_peft,
    lora_bytes,
    read_lora,
    same_lora,
)
from palate.runs import atomic_path, hash_file, seed_for

NAME = "default"
"""The adapter's name inside peft while it is trained."""


def add_lora(
    network: Any, targets: Sequence[str], rank: int, alpha: float, seed: int
) -> dict[str, torch.nn.Parameter]:
    """Put a fresh LoRA on every layer with one of these names, and give its weights by name.

    A ~ N(0, 1 / rank), B = 0, as HPS has it; the product is scaled by alpha / rank. It starts
    without any effect, and its weights are float32 whatever the network's are.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=list(targets)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("lora", seed))
        network.add_adapter(config, adapter_name=NAME)
    trained = {name: part for name, part in network.named_parameters() if part.requires_grad}
    for part in trained.values():
        part.data = part.data.float()
    return trained


def save_adapter(network: Any, part: str, folder: Path, details: Mapping[str, Any]) -> Path:
    """Write the LoRA as diffusers and peft do, with what Palate says about it in the metadata.

    Any tool that reads diffusers' LoRA files reads it; rank and alpha travel with it. ``part`` is the network's name
    in its pipeline, ``unet`` or ``transformer``.

    Returns:
        The file, ``pytorch_lora_weights.safetensors``.
    """
    from peft import get_peft_model_state_dict

    path = folder / FILE_NAME
    weights = get_peft_model_state_dict(network, adapter_name=NAME)
    alpha = float(network.peft_config[NAME].lora_alpha)
    layers = layers_of_peft(weights, alpha, path, part)
    _write(path, Lora(layers, "diffusers", dict(details)), "diffusers")
    return path


def convert_adapter(
    source: Path,
    out: Path,
    form: Form = "diffusers",
    *,
    identifier: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write an adapter in another form, with the same product in every layer.

    The tensors are those of the source, bit for bit, and so are the alphas; before the file takes its name it was read
    back and found equal. What Palate wrote about an adapter stays with it. A file from elsewhere gets the name and
    the hash of its source, and the identifier if one is given.

    Args:
        source: a LoRA file of any form that ``palate.generation.lora_formats`` reads, or the folder that holds it.
        out: a file, if it ends in ``.safetensors``, else a folder that gets ``pytorch_lora_weights.safetensors``.
        form: ``diffusers`` or ``kohya``.
        identifier: the words that mark rejected images, written into the file; None keeps what the source says.
        overwrite: replace another file there.

    Returns:
        What was written: file, forms, layers, ranks, alphas and the identifier.

    Raises:
        CheckpointError: no such file, or no LoRA.
        RunError: another file is there, or the file cannot be written.
    """
    read = adapter_file(source)
    lora = read_lora(read)
    details = dict(lora.details) or {"source": read.name, "source_sha256": hash_file(read)}
    if identifier is not None:
        details |= {"method": "identifier", "identifier": identifier}
    path = out if out.suffix == ".safetensors" else out / FILE_NAME
    written = Lora(lora.layers, lora.form, details)
    if path.exists() and not overwrite and path.read_bytes() != lora_bytes(written, form):
        raise RunError(f"{path}: is there already; use --overwrite to replace it")
    _write(path, written, form)
    return {
        "adapter": str(path),
        "source": str(read),
        "read_as": lora.form,
        "written_as": form,
        "layers": len(lora.layers),
        "ranks": sorted({layer.rank for layer in lora.layers.values()}),
        "alphas": sorted({layer.alpha for layer in lora.layers.values()}),
        "identifier": details.get("identifier"),
    }


def _write(path: Path, lora: Lora, form: Form) -> None:
    """Write an adapter's file in whole or not at all, and only if it reads back as the same adapter."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(lora_bytes(lora, form))
        if not same_lora(read_lora(temporary), lora):
            raise RunError(f"{path}: what was written does not read back as the same adapter")

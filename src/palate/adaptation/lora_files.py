"""LoRA weights: put on a denoiser, and written so that other tools read them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from palate.adaptation.methods import TARGETS
from palate.generation.adapters import FILE_NAME, METADATA
from palate.runs import seed_for, write_atomic

NAME = "default"
"""The adapter's name inside peft while it is trained."""


def add_lora(unet: Any, rank: int, alpha: float, seed: int) -> dict[str, torch.nn.Parameter]:
    """Put a fresh LoRA on every attention layer, and give its weights by name.

    A ~ N(0, 1 / rank), B = 0, as HPS has it; the product is scaled by alpha / rank. It starts
    without any effect.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=list(TARGETS)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("lora", seed))
        unet.add_adapter(config, adapter_name=NAME)
    return {name: part for name, part in unet.named_parameters() if part.requires_grad}


@contextmanager
def without_lora(unet: Any) -> Iterator[None]:
    """Run the block with the bare denoiser."""
    unet.disable_adapters()
    try:
        yield
    finally:
        unet.enable_adapters()


def save_adapter(unet: Any, folder: Path, details: Mapping[str, Any]) -> Path:
    """Write the LoRA as diffusers and peft do, with what Palate says about it in the metadata.

    Any tool that reads diffusers' LoRA files reads it; rank and alpha travel with it.

    Returns:
        The file, ``pytorch_lora_weights.safetensors``.
    """
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=NAME))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        StableDiffusionPipeline.save_lora_weights(
            name,
            unet_lora_layers={key: value.detach().cpu() for key, value in weights.items()},
            unet_lora_adapter_metadata=unet.peft_config[NAME].to_dict(),
        )
        with safe_open(Path(name) / FILE_NAME, framework="pt") as opened:
            metadata = opened.metadata()
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    metadata[METADATA] = json.dumps(dict(details), ensure_ascii=False, sort_keys=True)
    path = folder / FILE_NAME
    write_atomic(path, _in_order(save(tensors, metadata=metadata)))
    return path


def _in_order(content: bytes) -> bytes:
    """Sort the header of a safetensors file, so that equal adapters are equal files.

    The library writes the metadata in an order of chance. Offsets count from the header's end.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]

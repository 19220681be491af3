"""Adapter files: what they say about themselves, and putting them on a pipeline so that they count.

A LoRA whose names do not fit is, for diffusers, a warning. Here it is an error: every tensor of the file must find its
place, and the adapted denoiser must answer differently from the bare one.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from palate.errors import CheckpointError
from palate.runs import hash_file

FILE_NAME = "pytorch_lora_weights.safetensors"
"""The name under which diffusers looks for an adapter in a folder."""

METADATA = "palate"
"""The entry of the file's metadata that holds what Palate says about the adapter, as JSON."""

_ADAPTER = "palate"


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter file says about itself; a file from elsewhere says only its tensors."""

    path: Path
    fingerprint: str
    """The content hash of the file."""
    method: str | None
    """How it was trained (``identifier``), None for a file from elsewhere."""
    identifier: str | None
    """The words that mark what people reject, to be used as the negative prompt."""
    details: Mapping[str, Any]
    """Everything else: base, rank, alpha, guidance, labels, …"""

    @property
    def name(self) -> str:
        """Give a short name for tables: the folder of a standard file, else the file's own name."""
        return self.path.parent.name if self.path.name == FILE_NAME else self.path.stem


def read_adapter(path: Path) -> Adapter:
    """Read what an adapter file says about itself; a folder means the standard file inside it.

    Raises:
        CheckpointError: no such file, or it is no safetensors file.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file}: no such adapter file")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"{file}: expected a safetensors file with a LoRA adapter: {error}"
        ) from error
    try:
        details = json.loads(metadata.get(METADATA, "{}"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file}: its '{METADATA}' metadata is no JSON: {error}") from error
    return Adapter(
        path=file,
        fingerprint=hash_file(file),
        method=details.get("method"),
        identifier=details.get("identifier"),
        details=details,
    )


def attach_adapter(
    pipeline: Any, adapter: Adapter, strength: float = 1.0, *, merge: bool = True
) -> None:
    """Put an adapter on a pipeline, and make sure that it does something.

    ``strength`` multiplies the adapter's own scale (alpha / rank). With ``merge`` its product is added into the
    weights, which makes every later step as fast as the bare model; the images then agree with the unmerged adapter's
    to rounding. Half-precision pipelines are never merged: the sum would round the adapter away.

    Raises:
        CheckpointError: tensors that fit no layer, or an adapter that changes nothing.
    """
    before = _probe(pipeline)
    try:
        with warnings.catch_warnings():
            # what fits no layer: _check_complete says it better
            warnings.filterwarnings("ignore", "While injecting the PEFT", RuntimeWarning)
            pipeline.load_lora_weights(
                str(adapter.path.parent),
                weight_name=adapter.path.name,
                adapter_name=_ADAPTER,
                local_files_only=True,
            )
    except (ValueError, RuntimeError, KeyError) as error:
        first = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{adapter.path}: does not fit this generator: {first}") from error
    _check_complete(pipeline, adapter)
    pipeline.set_adapters([_ADAPTER], [strength])
    if torch.equal(before, _probe(pipeline)):
        raise CheckpointError(
            f"{adapter.path}: the adapter was loaded at strength {strength} and changes nothing; "
            "its weights are zero or meant for another model"
        )
    if merge and pipeline.unet.dtype == torch.float32:
        pipeline.fuse_lora(components=["unet"], adapter_names=[_ADAPTER])
        pipeline.unload_lora_weights()


def _check_complete(pipeline: Any, adapter: Adapter) -> None:
    """Find every tensor of the file among the loaded weights, by its content.

    By content, because file formats name the same layer differently.
    """
    dtype = pipeline.unet.dtype
    with safe_open(adapter.path, framework="pt") as opened:
        names = [name for name in opened.keys() if not name.endswith("alpha")]  # noqa: SIM118
        given = Counter(_mark(opened.get_tensor(name), dtype) for name in names)
    loaded = Counter(
        _mark(value, dtype)
        for part in (pipeline.unet, pipeline.text_encoder)
        for name, value in part.named_parameters()
        if "lora_" in name and f".{_ADAPTER}." in name
    )
    if lost := (given - loaded).total():
        raise CheckpointError(
            f"{adapter.path}: {lost} of its {given.total()} tensors fit no layer of this generator"
        )


def _mark(value: Tensor, dtype: torch.dtype) -> tuple[int, float]:
    return value.numel(), value.detach().to("cpu", dtype).double().sum().item()


@torch.inference_mode()
def _probe(pipeline: Any) -> Tensor:
    """Give the denoiser's answer to one fixed small input, as a mark of what its weights are."""
    unet = pipeline.unet
    draw = torch.Generator("cpu").manual_seed(0)
    side = 2 ** len(unet.config.block_out_channels)
    latents = torch.randn(1, unet.config.in_channels, side, side, generator=draw)
    width = unet.config.cross_attention_dim
    text = torch.randn(1, 4, width if isinstance(width, int) else width[0], generator=draw)
    condition = None
    if unet.config.time_cond_proj_dim is not None:
        condition = torch.zeros(1, unet.config.time_cond_proj_dim).to(unet.device, unet.dtype)
    answer: Tensor = unet(
        latents.to(unet.device, unet.dtype),
        torch.tensor(500, device=unet.device),
        encoder_hidden_states=text.to(unet.device, unet.dtype),
        timestep_cond=condition,
        return_dict=False,
    )[0]
    return answer

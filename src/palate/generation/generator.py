"""A generator: a Stable Diffusion folder, with an adapter on it if one is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palate.errors import CheckpointError
from palate.generation.adapters import Adapter, attach_adapter, read_adapter
from palate.generation.quiet import quiet_bars
from palate.runs import hash_file, hash_text

_CONTENT = {".json", ".safetensors", ".txt", ".model"}
_CLASS = "StableDiffusionPipeline"
_REMEMBERED = 256


@dataclass(slots=True)
class Generator:
    """A text-to-image model in memory, with the names that its images will carry."""

    pipeline: Any
    name: str
    fingerprint: str
    """Changes with every weight, setting and adapter that changes an image."""
    base: str
    """The fingerprint of the folder alone, without the adapter."""
    adapter: Adapter | None = None
    strength: float = 1.0

    texts: dict[str, Any] = field(default_factory=dict, repr=False)
    """Text embeddings of the latest prompts, so that a prompt's images share one encoding."""

    @property
    def label(self) -> str:
        """Give the name and the start of the fingerprint, as the images table's ``generator`` column has it."""
        return f"{self.name}@{self.fingerprint[:12]}"

    def encode(self, prompts: Sequence[str]) -> Any:
        """Give the text embeddings of prompts, "prompts tokens dim"; recent ones are remembered."""
        import torch

        from palate.generation.text import encode_prompts

        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.texts]
        new = zip(missing, encode_prompts(self.pipeline, missing), strict=True) if missing else ()
        known = self.texts | dict(new)
        found = torch.stack([known[prompt] for prompt in prompts])
        for prompt in prompts:  # the latest come last
            known[prompt] = known.pop(prompt)
        self.texts = dict(list(known.items())[-_REMEMBERED:])
        return found

    def truncated(self, prompts: Sequence[str]) -> list[str]:
        """List the prompts whose end the model cannot read."""
        from palate.generation.text import tokenize

        return [prompts[place] for place in tokenize(self.pipeline, prompts).truncated]


def load_generator(
    folder: Path,
    adapter: Path | None = None,
    *,
    strength: float = 1.0,
    device: str = "cpu",
    precision: str = "float32",
    merge: bool = True,
) -> Generator:
    """Load a Stable Diffusion folder in diffusers format, from the disk only, with an adapter if one is given.

    Args:
        folder: what ``StableDiffusionPipeline.save_pretrained`` writes; weights as safetensors.
        adapter: a LoRA file, or the folder that holds ``pytorch_lora_weights.safetensors``.
        strength: multiplies the adapter; 0 leaves the base as it is.
        device: where it runs (``cpu``, ``cuda``).
        precision: ``float32``, ``bfloat16`` or ``float16``; the weights are converted to it.
        merge: add the adapter into the weights (faster); see ``attach_adapter``.

    Raises:
        CheckpointError: the folder or the adapter is missing, of another kind, or does not fit.
    """
    import torch

    base = folder_fingerprint(folder)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(
        precision
    )
    if dtype is None:
        raise CheckpointError(f"precision '{precision}': expected float32, bfloat16 or float16")
    pipeline = _load_pipeline(folder, dtype).to(device)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        if part.dtype != dtype:
            part.to(dtype)
    if device == "cpu":
        # the convolutions of small latents are about a tenth faster with the channel last
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    known = read_adapter(adapter) if adapter is not None else None
    if known is None or strength == 0:
        return Generator(pipeline, folder.resolve().name, hash_text(base, precision), base)
    attach_adapter(pipeline, known, strength, merge=merge)
    return Generator(
        pipeline,
        name=f"{folder.resolve().name}+{known.name}",
        fingerprint=hash_text(base, precision, known.fingerprint, repr(float(strength))),
        base=base,
        adapter=known,
        strength=strength,
    )


def folder_fingerprint(folder: Path) -> str:
    """Hash everything in a diffusers folder that can change an image: weights, configurations, vocabularies.

    Raises:
        CheckpointError: the folder is missing or no StableDiffusionPipeline.
    """
    index = folder / "model_index.json"
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such generator folder")
    if not index.is_file():
        raise CheckpointError(
            f"{folder}: no model_index.json, expected a {_CLASS} folder in diffusers format"
        )
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise CheckpointError(f"{index}: expected a JSON object: {error}") from error
    if kind != _CLASS:
        raise CheckpointError(f"{index}: a pipeline of class {kind!r}, expected {_CLASS}")
    files = sorted(path for path in folder.glob("*/*") if path.suffix in _CONTENT)
    return hash_text(
        *(f"{path.relative_to(folder).as_posix()} {hash_file(path)}" for path in files)
    )


def _load_pipeline(folder: Path, dtype: Any) -> Any:
    with quiet_bars():
        from diffusers import StableDiffusionPipeline

        try:
            pipeline = StableDiffusionPipeline.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            first = str(error).strip().split("\n")[0]
            raise CheckpointError(f"{folder}: could not be loaded as {_CLASS}: {first}") from error
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.eval().requires_grad_(requires_grad=False)
    return pipeline

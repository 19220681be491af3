"""A generator: a Stable Diffusion folder, with the adapters on it that are named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palate.errors import CheckpointError
from palate.generation.adapters import Adapter, attach_adapters, read_adapter
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
    """The fingerprint of the folder alone, without the adapters."""
    adapters: tuple[tuple[Adapter, float], ...] = ()
    """The adapters on it, each with its strength."""

    texts: dict[str, Any] = field(default_factory=dict, repr=False)
    """Text embeddings of the latest prompts, so that a prompt's images share one encoding."""

    @property
    def label(self) -> str:
        """Give the name and the start of the fingerprint, as the images table's ``generator`` column has it."""
        return f"{self.name}@{self.fingerprint[:12]}"

    @property
    def identifier(self) -> str:
        """Give the words that its adapters mark rejected images with; those of several follow each other."""
        said = dict.fromkeys(one.identifier for one, _ in self.adapters if one.identifier)
        return " ".join(map(str.strip, said)) if len(said) > 1 else "".join(said)

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
    adapter: Path | Mapping[Path, float] | None = None,
    *,
    strength: float = 1.0,
    device: str = "cpu",
    precision: str = "float32",
    merge: bool = True,
) -> Generator:
    """Load a Stable Diffusion folder in diffusers format, from the disk only, with adapters if some are given.

    Args:
        folder: what ``StableDiffusionPipeline.save_pretrained`` writes; weights as safetensors.
        adapter: a LoRA file, or the folder that holds ``pytorch_lora_weights.safetensors``; or several, each with
            its strength. Their order changes nothing.
        strength: multiplies every adapter; at 0 an adapter is left out.
        device: where it runs (``cpu``, ``cuda``).
        precision: ``float32``, ``bfloat16`` or ``float16``; the weights are converted to it.
        merge: add the adapters into the weights (faster); see ``attach_adapters``.

    Raises:
        CheckpointError: the folder or an adapter is missing, of another kind, or does not fit.
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
    used = _chosen(adapter, strength)
    if used:
        attach_adapters(pipeline, used, merge=merge)
    marks = [mark for one, weight in used for mark in (one.fingerprint, repr(weight))]
    return Generator(
        pipeline,
        name="+".join([folder.resolve().name, *(one.name for one, _ in used)]),
        fingerprint=hash_text(base, precision, *marks),
        base=base,
        adapters=tuple(used),
    )


def _chosen(
    adapter: Path | Mapping[Path, float] | None, strength: float
) -> list[tuple[Adapter, float]]:
    """Read the adapters that count, in an order of their own: a sum's last bit depends on the order."""
    given = adapter if isinstance(adapter, Mapping) else {} if adapter is None else {adapter: 1.0}
    known = [(read_adapter(path), float(strength * weight)) for path, weight in given.items()]
    known.sort(key=lambda pair: (pair[0].name, pair[0].fingerprint, pair[1]))
    return [(one, weight) for one, weight in known if weight]


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

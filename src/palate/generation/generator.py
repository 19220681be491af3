"""A generator: the folder of a text-to-image pipeline, with the adapters on it that are named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palate.errors import CheckpointError
from palate.generation.adapters import Adapter, attach_adapters, read_adapter
from palate.runs import hash_file, hash_text

_CONTENT = {".json", ".safetensors", ".txt", ".model"}
_OWN_LOOP = "StableDiffusionPipeline"
_REMEMBERED = 256
# of model_index.json: where and with what it was written, which changes no image
_ABOUT = {"_diffusers_version", "_name_or_path"}


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
        from palate.generation.families import cut_prompts

        return [prompts[place] for place in cut_prompts(self.pipeline, prompts)]

    @property
    def mixes_prompts(self) -> bool:
        """Whether images of several prompts may be made in one batch.

        Only a family fills every prompt up to one length. Elsewhere the longest prompt of a batch may decide the
        length of all, and an image would depend on its company.
        """
        from palate.generation.families import family_of

        return family_of(self.pipeline) is not None

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], plan: Mapping[str, Any]
    ) -> tuple[Any, list[bool]]:
        """Make one image for each prompt and seed, "images 3 height width" in [0, 1], and say which were blackened.

        StableDiffusionPipeline has a loop of our own, other classes their own call; ``plan`` as in
        ``generation.calls.sample_by_call``.
        """
        from palate.generation.calls import sample_by_call
        from palate.generation.sampling import Sampling, sample

        if type(self.pipeline).__name__ != _OWN_LOOP:
            return sample_by_call(self.pipeline, prompts, seeds, plan)
        how = Sampling(**{name: plan[name] for name in Sampling.__slots__})
        negative = self.encode([plan["negative_prompt"]])
        return sample(self.pipeline, self.encode(prompts), negative, seeds, how)


def load_generator(
    folder: Path,
    adapter: Path | Mapping[Path, float] | None = None,
    *,
    strength: float = 1.0,
    device: str = "cpu",
    precision: str = "float32",
    merge: bool = True,
) -> Generator:
    """Load a text-to-image pipeline in diffusers format, from the disk only, with adapters if some are given.

    Args:
        folder: what the ``save_pretrained`` of any text-to-image pipeline of diffusers writes; weights as
            safetensors. Code in the folder is never run.
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

    from palate.generation.calls import load_pipeline
    from palate.generation.families import denoiser_of, family_of

    base = folder_fingerprint(folder)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(
        precision
    )
    if dtype is None:
        raise CheckpointError(f"precision '{precision}': expected float32, bfloat16 or float16")
    pipeline = load_pipeline(folder, dtype).to(device)
    if device == "cpu" and family_of(pipeline) is not None:
        # the convolutions of small latents are about a tenth faster with the channel last
        for part in (denoiser_of(pipeline), pipeline.vae):
            part.to(memory_format=torch.channels_last)
    used = _chosen(adapter, strength)
    if used:
        attach_adapters(pipeline, used, merge=merge)
    marks = [mark for one, weight in used for mark in (one.fingerprint, repr(weight))]
    return Generator(
        pipeline,
        name="+".join([_folder_name(folder), *(one.name for one, _ in used)]),
        fingerprint=hash_text(base, precision, *marks),
        base=base,
        adapters=tuple(used),
    )


def _folder_name(folder: Path) -> str:
    """Give the folder's name, or the repository's where it lies in the Hub's cache under a commit."""
    *_, repository, snapshots, name = ("", "", *folder.resolve().parts)
    if snapshots == "snapshots" and repository.startswith("models--"):
        return repository.rpartition("--")[2]
    return name


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
        CheckpointError: the folder is missing or no pipeline in diffusers format.
    """
    from palate.generation.calls import read_index

    index = read_index(folder)
    files = sorted(path for path in folder.glob("*/*") if path.suffix in _CONTENT)
    marks = [f"{path.relative_to(folder).as_posix()} {hash_file(path)}" for path in files]
    if index.get("_class_name") != _OWN_LOOP:
        # the class and its options decide too; for the oldest class the files were enough
        said = {name: value for name, value in index.items() if name not in _ABOUT}
        marks.append(json.dumps(said, sort_keys=True))
    return hash_text(*marks)

"""Adapter files: what they say about themselves, and putting them on a pipeline so that they count.

A LoRA whose names do not fit is, for diffusers, a warning. Here it is an error: every tensor of the file must find its
place, and the adapted denoiser must answer differently from the bare one.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from palate.errors import CheckpointError
from palate.generation.calls import modules_of
from palate.generation.families import Conditions, Family, denoiser_of, family_of
from palate.generation.lora_formats import PARTS, Lora, looks_like_lora, lora_bytes, read_lora
from palate.models.checkpoint import read_weights
from palate.runs import hash_file

FILE_NAME: Final = "pytorch_lora_weights.safetensors"
"""The name under which diffusers looks for an adapter in a folder."""

_NAMES = (FILE_NAME, "pytorch_lora_weights.bin")
# bytes; far above a LoRA's, so that large weights are not read twice to tell what they are
_LARGEST = 2**30


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter file says about itself; a file from elsewhere says only its tensors."""

    path: Path
    fingerprint: str
    """The content hash of the file."""
    form: str
    """How its tensors are named: ``diffusers``, ``kohya`` or ``processors``."""
    method: str | None
    """How it was trained (``identifier``), None for a file from elsewhere."""
    identifier: str | None
    """The words that mark what people reject, to be used as the negative prompt."""
    details: Mapping[str, Any]
    """Everything else: base, rank, alpha, guidance, labels, …"""

    @property
    def name(self) -> str:
        """Give a short name for tables: the folder of a standard file, else the file's own name."""
        return self.path.parent.name if self.path.name in _NAMES else self.path.stem


def read_adapter(path: Path) -> Adapter:
    """Read what an adapter file says about itself; a folder means the standard file inside it.

    The file may have any of the forms in ``palate.generation.lora_formats``.

    Raises:
        CheckpointError: no such file, or it holds no LoRA.
    """
    file = adapter_file(path)
    lora = read_lora(file)
    for name in ("method", "identifier"):
        if not isinstance(said := lora.details.get(name, ""), str):
            raise CheckpointError(f"{file}: its {name} is {said!r}, expected a text")
    return Adapter(
        path=file,
        fingerprint=hash_file(file),
        form=lora.form,
        method=lora.details.get("method"),
        identifier=lora.details.get("identifier"),
        details=lora.details,
    )


def adapter_file(path: Path) -> Path:
    """Give the file that an adapter's path means: itself, or the standard file of a folder.

    Raises:
        CheckpointError: no such file.
    """
    inside = [path / name for name in _NAMES if (path / name).is_file()]
    file = inside[0] if inside else path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file}: no such adapter file")
    return file


def is_adapter(path: Path) -> bool:
    """Tell whether a path is an adapter's: a folder with the standard file, or a file whose tensors are a LoRA's.

    Raises:
        CheckpointError: a file that is damaged or would run code when read.
    """
    if path.is_dir():
        return any((path / name).is_file() for name in _NAMES)
    return path.stat().st_size < _LARGEST and looks_like_lora(read_weights(path))


def attach_adapters(
    pipeline: Any, adapters: Sequence[tuple[Adapter, float]], *, merge: bool = True
) -> None:
    """Put adapters on a pipeline, each with its strength, and make sure that each does something.

    A strength multiplies the adapter's own scale (alpha / rank); the changes of several adapters add up. With
    ``merge`` they are added into the weights, which makes every later step as fast as the bare model; the images then
    agree with the unmerged adapters' to rounding. Half-precision pipelines are never merged: the sum would round the
    adapters away.

    Raises:
        CheckpointError: layers that are not in this generator or of another shape, or an adapter that changes nothing.
    """
    parts = _adaptable(pipeline, adapters[0][0] if adapters else None)
    before = _probe(pipeline)
    names = [f"palate{number}" for number in range(len(adapters))]
    for name, (adapter, strength) in zip(names, adapters, strict=True):
        lora = read_lora(adapter.path)
        _check_fit(pipeline, parts, adapter, lora)
        _load(pipeline, adapter, lora, name)
        _check_complete(pipeline, parts, adapter, lora, name)
        pipeline.set_adapters([name], [strength])
        if _is_nothing(lora) or (before is not None and _same(before, _probe(pipeline))):
            raise CheckpointError(
                f"{adapter.path}: the adapter was loaded at strength {strength} and changes nothing; "
                "its weights are zero or meant for another model"
            )
    pipeline.set_adapters(names, [strength for _, strength in adapters])
    if merge and denoiser_of(pipeline).dtype == torch.float32:
        pipeline.fuse_lora(components=list(parts), adapter_names=names)
        pipeline.unload_lora_weights()


def _adaptable(pipeline: Any, adapter: Adapter | None) -> tuple[str, ...]:
    """Give the parts of a pipeline that diffusers puts adapters on."""
    takes = getattr(pipeline, "_lora_loadable_modules", ())
    parts = tuple(part for part in PARTS if part in takes and part in modules_of(pipeline))
    if adapter is not None and not parts:
        raise CheckpointError(
            f"{adapter.path}: diffusers puts no adapters on a generator of class {type(pipeline).__name__}"
        )
    return parts


def _is_nothing(lora: Lora) -> bool:
    """Tell whether every product of an adapter is zero because one of its factors is."""
    return not any(layer.down.any() and layer.up.any() for layer in lora.layers.values())


def _check_fit(pipeline: Any, parts: Sequence[str], adapter: Adapter, lora: Lora) -> None:
    """Find the weight that each layer of the adapter changes, and compare their shapes."""
    for name, layer in lora.layers.items():
        part, _, inner = name.partition(".")
        weight = _weight(getattr(pipeline, part), inner) if part in parts else None
        if weight is None:
            raise CheckpointError(
                f"{adapter.path}: does not fit this generator, which has no layer '{name}'"
            )
        if tuple(weight.shape) != layer.shape:
            raise CheckpointError(
                f"{adapter.path}: does not fit this generator: its layer '{name}' is for a weight of "
                f"{_times(layer.shape)}, here it is {_times(weight.shape)}"
            )


def _weight(model: Any, name: str) -> Tensor | None:
    """Give the weight of a module by its name, None if there is no such module or it has none."""
    if not hasattr(model, "text_model"):
        name = name.removeprefix("text_model.")
    try:
        weight = getattr(model.get_submodule(name), "weight", None)
    except AttributeError:
        return None
    return weight if isinstance(weight, Tensor) else None


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _load(pipeline: Any, adapter: Adapter, lora: Lora, name: str) -> None:
    """Load an adapter by diffusers' own call, from the form in which every alpha is said exactly."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        (Path(folder) / FILE_NAME).write_bytes(lora_bytes(lora, "diffusers"))
        # what fits no layer: _check_complete says it better
        warnings.filterwarnings("ignore", "While injecting the PEFT", RuntimeWarning)
        # several adapters are what was asked for
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        try:
            pipeline.load_lora_weights(
                folder, weight_name=FILE_NAME, adapter_name=name, local_files_only=True
            )
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            first = str(error).strip().split("\n")[0]
            raise CheckpointError(
                f"{adapter.path}: does not fit this generator: {first}"
            ) from error


def _check_complete(
    pipeline: Any, parts: Sequence[str], adapter: Adapter, lora: Lora, name: str
) -> None:
    """Find every tensor of the adapter among the loaded weights, by its content."""
    dtype = denoiser_of(pipeline).dtype
    given = Counter(
        _mark(value, dtype) for layer in lora.layers.values() for value in (layer.down, layer.up)
    )
    loaded = Counter(
        _mark(value, dtype)
        for part in parts
        for inner, value in getattr(pipeline, part).named_parameters()
        if "lora_" in inner and f".{name}." in inner
    )
    if lost := (given - loaded).total():
        raise CheckpointError(
            f"{adapter.path}: {lost} of its {given.total()} tensors fit no layer of this generator"
        )


def _mark(value: Tensor, dtype: torch.dtype) -> tuple[int, float]:
    return value.numel(), value.detach().to("cpu", dtype).double().sum().item()


@torch.inference_mode()
def _probe(pipeline: Any) -> list[Tensor] | None:
    """Give the answers of denoiser and text models to one fixed small input, as a mark of what their weights are.

    None for a pipeline of no family, whose denoiser nobody here knows how to ask.
    """
    family = family_of(pipeline)
    if family is None:
        return None
    denoiser = getattr(pipeline, family.denoiser)
    draw = torch.Generator("cpu").manual_seed(0)
    side = 2 ** len(denoiser.config.get("block_out_channels", (1, 1)))
    noisy = torch.randn(1, denoiser.config.in_channels, side, side, generator=draw)
    conditions = _some_conditions(family, denoiser.config, draw)
    conditions = conditions.to(denoiser.device, denoiser.dtype)
    time = torch.tensor([500], device=denoiser.device)
    noisy = noisy.to(denoiser.device, denoiser.dtype)
    answers = [family.predict(denoiser, noisy, time, conditions, (64, 64))]
    for name in family.encoders:
        if name in PARTS and (encoder := getattr(pipeline, name)) is not None:
            read = encoder(torch.arange(4, device=encoder.device)[None], output_hidden_states=True)
            # what is read of a text model: its last states or pooled vector, or the states before
            answers += [read[0], read.hidden_states[-2]]
    return answers


def _some_conditions(family: Family, config: Any, draw: torch.Generator) -> Conditions:
    """Draw four tokens' states, and a pooled vector if the denoiser reads one."""
    if family.denoiser == "transformer":
        states = torch.randn(1, 4, config.joint_attention_dim, generator=draw)
        return Conditions(states, torch.randn(1, config.pooled_projection_dim, generator=draw))
    width = config.cross_attention_dim
    states = torch.randn(1, 4, width if isinstance(width, int) else width[0], generator=draw)
    if config.addition_embed_type != "text_time":
        return Conditions(states)
    told = 6 * config.addition_time_embed_dim  # six numbers about the picture's size
    pooled = config.projection_class_embeddings_input_dim - told
    return Conditions(states, torch.randn(1, pooled, generator=draw))


def _same(before: Sequence[Tensor], after: Sequence[Tensor] | None) -> bool:
    return after is not None and all(map(torch.equal, before, after))

"""LoRA weights in the three forms in which people pass them on, read exactly and written for other tools.

A form is a way to name tensors, and a place for alpha. Whatever the form, a layer is the same here: the
change of its weight is alpha / rank × up @ down (Hu et al., 2022, arXiv 2106.09685, section 4.1).

- ``diffusers``: what diffusers and peft write today; alpha stands in the file's metadata.
- ``kohya``: what sd-scripts writes and most tools for making images read; alpha is a tensor of each layer.
- ``processors``: what diffusers wrote until 2023, when a LoRA was an attention processor, and what the
  code of HPS writes; there is no alpha, and the product counts as it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from palate.errors import CheckpointError
from palate.generation.kohya_names import (
    KOHYA_PARTS,
    TRANSFORMER_BLOCKS,
    dotted_name,
    kohya_names,
)
from palate.models.checkpoint import read_weights
from palate.models.pickles import shown

Form = Literal["diffusers", "kohya"]
"""The forms that are written; ``processors`` is only read."""

METADATA: Final = "palate"
"""The entry of the file's metadata that holds what Palate says about the adapter, as JSON."""

PARTS: Final = ("unet", "transformer", "text_encoder", "text_encoder_2")
"""The parts of a pipeline that an adapter may change."""

_PEFT = "lora_adapter_metadata"  # where diffusers keeps peft's configuration

_KEYS: Final = {
    "processors": re.compile(
        r"(?:(?P<part>unet)\.)?(?P<layer>.+)\.processor\.(?P<last>to_(?:q|k|v|out))_lora"
        r"\.(?P<side>down|up)\.weight"
    ),
    "kohya": re.compile(
        r"lora_(?P<part>unet|te1|te2|te)_(?P<layer>[a-z0-9_]+)"
        r"\.(?P<side>lora_down\.weight|lora_up\.weight|alpha)"
    ),
    "diffusers": re.compile(
        r"(?P<part>unet|transformer|text_encoder|text_encoder_2)\.(?P<layer>.+)"
        r"\.(?P<side>lora_A|lora_B|lora\.down|lora\.up|lora_linear_layer\.down|lora_linear_layer\.up)\.weight"
    ),
}
_DOWN: Final = ("down", "lora_down.weight", "lora_A", "lora.down", "lora_linear_layer.down")
_UP: Final = ("up", "lora_up.weight", "lora_B", "lora.up", "lora_linear_layer.up")
_SIDES: Final = dict.fromkeys(_DOWN, "down") | dict.fromkeys(_UP, "up") | {"alpha": "alpha"}
_TYPES: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class LoraLayer:
    """What a LoRA adds to one weight: alpha / rank × up @ down, with rank rows in ``down``."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """The number of rows of ``down`` and of columns of ``up``."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight that it changes: outputs, inputs, and a convolution's kernel."""
        return (self.up.shape[0], *self.down.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """The layers of a LoRA by part and name: ``unet.mid_block.attentions.0…to_q``."""

    layers: Mapping[str, LoraLayer]
    form: str
    """The form in which the file has them."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What Palate wrote about the adapter; nothing in a file from elsewhere."""


def looks_like_lora(names: Iterable[str]) -> bool:
    """Tell by the names of its tensors whether a file holds a LoRA of any of the forms."""
    return any(pattern.fullmatch(name) for name in names for pattern in _KEYS.values())


def read_lora(path: Path) -> Lora:
    """Read a LoRA of any of the forms, from safetensors or a PyTorch file, without running anything from it.

    Raises:
        CheckpointError: a file that is missing, damaged, or no LoRA; one with a tensor that is no part of its form,
            which is named; layers that are not whole.
    """
    tensors = read_weights(path)
    metadata = _read_metadata(path)
    form = next(
        (form for form, key in _KEYS.items() if any(key.fullmatch(name) for name in tensors)), None
    )
    if form is None:
        raise CheckpointError(
            f"{path}: its first tensor is '{shown(next(iter(tensors)))}', expected the names of a LoRA, "
            "such as 'unet.….to_q.lora.down.weight', 'lora_unet_….lora_down.weight' or "
            "'….processor.to_q_lora.down.weight'"
        )
    details = _json_object(path, metadata, METADATA)
    alphas = _peft_alphas(path, _json_object(path, metadata, _PEFT))
    return Lora(_collect(path, form, tensors, alphas), form, details)


def layers_of_peft(
    weights: Mapping[str, Tensor], alpha: float, where: Path, part: str = "unet"
) -> dict[str, LoraLayer]:
    """Give the layers of a part's weights as ``peft.get_peft_model_state_dict`` names them.

    The part is the denoiser, ``unet`` or ``transformer``, or a text model; see ``PARTS``.
    """
    tensors = {f"{part}.{name}": value.detach().cpu() for name, value in weights.items()}
    return _collect(where, "diffusers", tensors, {part: (alpha, {}, False)})


def lora_bytes(lora: Lora, form: Form) -> bytes:
    """Write a LoRA as a safetensors file of a form; equal adapters are equal bytes.

    Raises:
        CheckpointError: kohya's form for a transformer, of which its readers agree on no names.
    """
    if form == "kohya" and (odd := [n for n in lora.layers if n.startswith("transformer.")]):
        raise CheckpointError(
            f"the layer '{odd[0]}' has no name in the form 'kohya', whose readers do not agree on names "
            "for a transformer (SD3, Flux); write the form 'diffusers', which they read too"
        )
    names = _written_names(lora.layers, form)
    metadata = {"format": "pt"}
    if lora.details:
        metadata[METADATA] = json.dumps(dict(lora.details), ensure_ascii=False, sort_keys=True)
    tensors: dict[str, Tensor] = {}
    for name, layer in lora.layers.items():
        down, up = names[name]
        tensors |= {down: layer.down.contiguous().clone(), up: layer.up.contiguous().clone()}
        if form == "kohya":
            tensors[f"{down.partition('.')[0]}.alpha"] = _alpha_tensor(layer.alpha)
    metadata |= _kohya_metadata(lora) if form == "kohya" else _peft_metadata(lora)
    return _in_order(save(tensors, metadata=metadata))


def same_lora(one: Lora, other: Lora) -> bool:
    """Tell whether two adapters are equal bit for bit, layers, alphas and details."""
    return (
        one.layers.keys() == other.layers.keys()
        and dict(one.details) == dict(other.details)
        and all(_same_layer(layer, other.layers[name]) for name, layer in one.layers.items())
    )


def _same_layer(one: LoraLayer, other: LoraLayer) -> bool:
    return one.alpha == other.alpha and all(
        mine.dtype == theirs.dtype and torch.equal(mine, theirs)
        for mine, theirs in ((one.down, other.down), (one.up, other.up))
    )


# ------------------------------------------------------------------------------------------ reading


def _read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in the head of a safetensors file; other files have none."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def _json_object(path: Path, metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """Read one entry of the metadata, a JSON object; an entry that is not there is an empty one."""
    try:
        content = json.loads(metadata.get(name) or "{}")
    except (json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its '{name}' metadata is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: its '{name}' metadata is a {type(content).__name__}, expected an object"
        )
    return content


_Alphas = dict[str, tuple[float | None, dict[str, float], bool]]


def _peft_alphas(path: Path, config: Mapping[str, Any]) -> _Alphas:
    """Take from peft's configuration each part's alpha, the exceptions, and whether it counts by √rank."""
    alphas: _Alphas = {}
    for part in PARTS:
        pattern = config.get(f"{part}.alpha_pattern") or {}
        common = config.get(f"{part}.lora_alpha")
        given = {**(pattern if isinstance(pattern, dict) else {"alpha_pattern": pattern})}
        given |= {} if common is None else {"": common}
        for name, value in given.items():
            if not isinstance(value, int | float) or not abs(value) < 1e9:
                raise CheckpointError(
                    f"{path}: its '{_PEFT}' metadata has the alpha {value!r}, expected a number"
                )
            if not re.fullmatch(r"\^?[\w.]*", name):
                raise CheckpointError(
                    f"{path}: its '{_PEFT}' metadata has an alpha for {name!r}, expected a layer's name"
                )
        numbers = {name: float(value) for name, value in given.items()}
        alphas[part] = (numbers.pop("", None), numbers, config.get(f"{part}.use_rslora") is True)
    return alphas


def _collect(
    path: Path, form: str, tensors: Mapping[str, Tensor], alphas: _Alphas
) -> dict[str, LoraLayer]:
    """Put the tensors of a form together to layers, and refuse what is left over or missing."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _KEYS[form].fullmatch(name)
        if match is None:
            raise CheckpointError(
                f"{path}: its tensor '{shown(name)}' is no part of a LoRA in the form '{form}', "
                "as its other tensors are; it is not read in part"
            )
        layer, side = _layer_name(path, form, match), _SIDES[match["side"]]
        if side in found.setdefault(layer, {}):
            raise CheckpointError(f"{path}: gives the layer '{layer}' twice, once as '{name}'")
        if side != "alpha" and tensor.dtype not in _TYPES:
            raise CheckpointError(
                f"{path}: its tensor '{name}' is of {tensor.dtype}, not of floats"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: its tensor '{name}' has values that are not finite")
        found[layer][side] = tensor
    return {layer: _whole_layer(path, layer, sides, alphas) for layer, sides in found.items()}


def _layer_name(path: Path, form: str, match: re.Match[str]) -> str:
    """Give the layer that a tensor's name speaks of, as diffusers calls it, with its part in front."""
    layer, part = match["layer"], match["part"] or "unet"
    if form == "processors":
        last = "to_out.0" if match["last"] == "to_out" else match["last"]
        layer = f"{layer}.{last}"
    if form == "kohya":
        part, layer = KOHYA_PARTS[part], dotted_name(layer)
        if TRANSFORMER_BLOCKS.match(layer):
            raise CheckpointError(
                f"{path}: its tensor '{shown(match[0])}' is of a transformer (SD3, Flux) in the form 'kohya', "
                "which is read for UNets only; expected the form 'diffusers'"
            )
    if part.startswith("text_encoder") and not layer.startswith("text_projection"):
        # transformers dropped this level in its version 5, files keep it
        layer = f"text_model.{layer.removeprefix('text_model.')}"
    return f"{part}.{layer}"


def _whole_layer(path: Path, name: str, sides: Mapping[str, Tensor], alphas: _Alphas) -> LoraLayer:
    """Make a layer of its tensors; without an alpha anywhere it is the rank."""
    for side in ("down", "up"):
        if side not in sides:
            raise CheckpointError(f"{path}: its layer '{name}' has no tensor for '{side}'")
    down, up = sides["down"], sides["up"]
    fits = down.ndim == up.ndim >= 2 and down.shape[0] == up.shape[1] and set(up.shape[2:]) <= {1}
    if not fits or 0 in {*down.shape, *up.shape}:
        raise CheckpointError(
            f"{path}: its layer '{name}' has shapes {tuple(down.shape)} and {tuple(up.shape)}, "
            "expected (rank, inputs) and (outputs, rank)"
        )
    rank = down.shape[0]
    if "alpha" in sides:
        if sides["alpha"].numel() != 1:
            raise CheckpointError(f"{path}: the alpha of its layer '{name}' is no single number")
        return LoraLayer(down, up, float(sides["alpha"].item()))
    return LoraLayer(down, up, _peft_alpha(name, rank, alphas))


def _peft_alpha(name: str, rank: int, alphas: _Alphas) -> float:
    """Give a layer's alpha by peft's configuration: the exception that fits, or the common one."""
    part, _, layer = name.partition(".")
    common, pattern, by_root = alphas.get(part, (None, {}, False))
    if common is None:
        return float(rank)
    alpha = next((value for key, value in pattern.items() if _fits(key, layer)), common)
    # rank-stabilised LoRA (Kalajdzievski, 2023) scales by alpha / √rank
    return alpha * math.sqrt(rank) if by_root else alpha


def _fits(key: str, layer: str) -> bool:
    """Tell whether a name in peft's configuration means a layer: the whole name or its last words."""
    if key.startswith("^"):
        return layer == key[1:]
    return layer == key or layer.endswith(f".{key}")


# ------------------------------------------------------------------------------------------ writing


def _written_names(layers: Iterable[str], form: Form) -> dict[str, tuple[str, str]]:
    """Give the names of each layer's ``down`` and ``up`` in a form."""
    listed = list(layers)
    if form == "kohya":
        heads = kohya_names(listed)
        return {n: (f"{heads[n]}.lora_down.weight", f"{heads[n]}.lora_up.weight") for n in listed}
    names = {}
    for name in listed:
        part = name.partition(".")[0]
        if part == "transformer":  # as diffusers' scripts for transformers write them
            names[name] = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        else:
            head = f"{name}.{'lora' if part == 'unet' else 'lora_linear_layer'}"
            names[name] = f"{head}.down.weight", f"{head}.up.weight"
    return names


def _alpha_tensor(alpha: float) -> Tensor:
    """Write alpha in 32 bits, as sd-scripts does, or in 64 where 32 would change it."""
    short = torch.tensor(alpha, dtype=torch.float32)
    return short if short.item() == alpha else torch.tensor(alpha, dtype=torch.float64)


def _kohya_metadata(lora: Lora) -> dict[str, str]:
    """Say rank and alpha as sd-scripts does, where they are those of every layer."""
    said = {"ss_network_module": "networks.lora"}
    ranks = {layer.rank for layer in lora.layers.values()}
    alphas = {layer.alpha for layer in lora.layers.values()}
    if len(ranks) == len(alphas) == 1:
        said |= {"ss_network_dim": str(ranks.pop()), "ss_network_alpha": str(alphas.pop())}
    return said


def _peft_metadata(lora: Lora) -> dict[str, str]:
    """Say rank and alpha as diffusers does: peft's configuration of each part, with the exceptions by layer.

    Only what every version of peft knows, so that older ones read the file too.
    """
    config: dict[str, Any] = {}
    for part in PARTS:
        layers = {
            name.removeprefix(f"{part}.").removeprefix("text_model."): layer
            for name, layer in lora.layers.items()
            if name.startswith(f"{part}.")
        }
        if not layers:
            continue
        rank = _most_common(one.rank for one in layers.values())
        alpha = _most_common(one.alpha for one in layers.values())
        config |= {
            f"{part}.r": rank,
            f"{part}.lora_alpha": alpha,
            f"{part}.rank_pattern": {n: one.rank for n, one in layers.items() if one.rank != rank},
            f"{part}.alpha_pattern": {
                n: one.alpha for n, one in layers.items() if one.alpha != alpha
            },
            f"{part}.target_modules": sorted(layers),
        }
    return {_PEFT: json.dumps(config, sort_keys=True)}


def _most_common(values: Iterable[Any]) -> Any:
    """Give the number that most layers have; the smaller one if two are as common."""
    listed = sorted(values)
    return max(dict.fromkeys(listed), key=listed.count)


def _in_order(content: bytes) -> bytes:
    """Sort the header of a safetensors file, so that equal adapters are equal files.

    The library writes the metadata in an order of chance. Offsets count from the header's end.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]

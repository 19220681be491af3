"""Heads that rate an image from its CLIP feature alone, whatever it was made for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, check_names, read_weights, some
from palate.runs import atomic_path

Kind = Literal["laion-v1", "laion-v2", "laion-v2-relu", "simulacra"]
HEAD = "head.safetensors"
"""The file of a head in a folder, beside the CLIP that it was fitted to."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How a kind of head is written: the names of its layers, and the widths between them."""

    layers: tuple[str, ...]
    hidden: tuple[int, ...] = ()


_FORMS: dict[Kind, _Form] = {
    "laion-v1": _Form(("",)),
    "simulacra": _Form(("linear.",)),
    "laion-v2": _Form(tuple(f"layers.{place}." for place in (0, 2, 4, 6, 7)), (1024, 128, 64, 16)),
    "laion-v2-relu": _Form(
        tuple(f"layers.{place}." for place in (0, 3, 6, 9, 11)), (1024, 128, 64, 16)
    ),
}
# A tensor that only this kind has. Official files are told apart by it, never by their file name.
_MARKS: dict[str, Kind] = {
    "weight": "laion-v1",
    "linear.weight": "simulacra",
    "layers.2.weight": "laion-v2",
    "layers.3.weight": "laion-v2-relu",
}


@dataclass(frozen=True, eq=False)
class AestheticHead:
    """Rates unit-length CLIP image features; higher is better.

    ``kind`` says whose function it is:

    - ``laion-v1``: one linear layer (LAION-AI/aesthetic-predictor).
    - ``laion-v2``: five linear layers with nothing between them but dropout, which rests when
      rating (christophschuhmann/improved-aesthetic-predictor, the ``linearMSE`` files).
    - ``laion-v2-relu``: the same five with a ReLU after each but the last (its ``reluMSE`` file, as
      ``avaclipmlp_inf_wds-relu.py`` there reads it).
    - ``simulacra``: one linear layer on the feature times the root of its width
      (``AestheticMeanPredictionLinearModel`` of crowsonkb/simulacra-aesthetic-models).

    ``width`` is that of the CLIP feature, ``layers`` are weights and biases in float32. All were
    fitted to ratings from about 1 to 10, each to its own people's.
    """

    kind: Kind
    width: int
    layers: tuple[tuple[Tensor, Tensor], ...]

    def rate(self, features: Float[Tensor, "images dim"]) -> Float[Tensor, " images"]:
        """Rate unit-length features, layer by layer in float32 as the official code does."""
        if features.shape[1] != self.width:
            raise CheckpointError(
                f"image features of width {features.shape[1]}, but the aesthetic head expects "
                f"{self.width}: it was fitted to another CLIP"
            )
        hidden = features.float() * self._scale()
        for place, (weight, bias) in enumerate(self.layers):
            if place and self.kind == "laion-v2-relu":
                hidden = functional.relu(hidden)
            hidden = functional.linear(hidden, weight, bias)
        return hidden[:, 0]

    def folded(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, ""]]:
        """Give the one affine map that the head is: a direction and an offset, in float64.

        The rating of a unit-length feature is its dot product with the direction, plus the offset.
        Raises CheckpointError for ``laion-v2-relu``, which is no affine map.
        """
        if self.kind == "laion-v2-relu":
            raise CheckpointError("a laion-v2-relu head is no affine map, so it cannot be folded")
        first, offset = (value.double() for value in self.layers[0])
        direction = first * self._scale()
        for weight, bias in self.layers[1:]:
            direction = weight.double() @ direction
            offset = weight.double() @ offset + bias.double()
        return direction[0], offset[0]

    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change with the kind and with any weight."""
        digest = hashlib.blake2b(self.kind.encode(), digest_size=8)
        for name, value in sorted(self.weights().items()):
            digest.update(name.encode())
            digest.update(value.to("cpu").contiguous().numpy().tobytes())
        return digest.hexdigest()

    def weights(self) -> Weights:
        """Give the tensors under the official names of this kind."""
        named: Weights = {}
        for prefix, (weight, bias) in zip(_FORMS[self.kind].layers, self.layers, strict=True):
            named[f"{prefix}weight"], named[f"{prefix}bias"] = weight, bias
        return named

    def _scale(self) -> float:
        """What a unit-length feature is multiplied by before the first layer."""
        return self.width**0.5 if self.kind == "simulacra" else 1.0


def load_head(path: Path, *, device: str = "cpu") -> AestheticHead:
    """Load a head from an official file or from one that :func:`save_head` wrote.

    The names of the tensors say which kind it is, and each must have its official shape. Nothing
    from the file is run. Raises CheckpointError.
    """
    weights = read_weights(path)
    kinds = [kind for mark, kind in _MARKS.items() if mark in weights]
    if len(kinds) != 1:
        raise CheckpointError(
            f"{path}: not a known aesthetic head: found {some(list(weights))}; expected the tensors "
            "of LAION's linear head or five-layer head, or of Simulacra's"
        )
    form = _FORMS[kinds[0]]
    first = weights.get(f"{form.layers[0]}weight")
    width = 1 if first is None else first.shape[-1:].numel()
    widths = (width, *form.hidden, 1)
    expected: dict[str, torch.Size] = {}
    for place, prefix in enumerate(form.layers):
        expected[f"{prefix}weight"] = torch.Size((widths[place + 1], widths[place]))
        expected[f"{prefix}bias"] = torch.Size((widths[place + 1],))
    check_names(weights, expected, path)
    layers = tuple(
        (weights[f"{prefix}weight"].to(device).float(), weights[f"{prefix}bias"].to(device).float())
        for prefix in form.layers
    )
    return AestheticHead(kinds[0], width, layers)


def save_head(head: AestheticHead, path: Path) -> None:
    """Write a head as one safetensors file under its official names, in whole or not at all.

    Raises CheckpointError for a name that does not end in ``.safetensors``, since it could not be
    read back.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: a head is saved as safetensors, expected that ending")
    weights = {
        name: value.detach().to("cpu").contiguous() for name, value in head.weights().items()
    }
    with atomic_path(path) as temporary:
        save_file(weights, temporary, metadata={"kind": head.kind})

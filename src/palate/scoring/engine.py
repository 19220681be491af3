"""How image towers are computed: in which precision, and by which library."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from palate.errors import SettingsError

Precision = Literal["float32", "bfloat16", "int8"]
Backend = Literal["torch", "openvino"]

# OpenVINO lays the weights out anew first; with fewer images than this that takes longer than it saves.
FEW = 24
# Below this gain the smaller numbers are not worth their rounding.
_WORTH = 1.3


@dataclass(frozen=True, slots=True)
class Engine:
    """A precision and the library that computes in it.

    ``float32`` equals the official codes up to rounding; ``bfloat16`` and ``int8`` are faster where the processor has
    such products, and drift (docs/speed.md says how far). Text towers and similarities are float32 in each.
    """

    precision: Precision = "float32"
    backend: Backend = "torch"

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if self.precision == "int8" and self.backend == "torch":
            raise SettingsError(
                "precision int8 needs the backend openvino: pip install 'palate[openvino]'"
            )
        if self.backend == "openvino" and not has_openvino():
            raise SettingsError(
                "the backend openvino is not installed: pip install 'palate[openvino]'"
            )


def choose_engine(
    *,
    device: str = "cpu",
    images: int | None = None,
    fast: bool = False,
    precision: str | None = None,
    backend: str | None = None,
) -> Engine:
    """Choose what is fastest here, unless precision or backend are given.

    On a processor OpenVINO computes where it is installed and ``images``, if known, are not few. ``fast`` takes
    bfloat16 on a GPU, and on a processor that is measured to multiply it faster; else float32 stays. ``int8`` is taken
    only by name, since it drifts more.
    """
    if device != "cpu":
        if backend == "openvino":
            raise SettingsError(
                f"the backend openvino computes on the cpu, but the device is {device}"
            )
        return _engine(precision or ("bfloat16" if fast else "float32"), "torch")
    few = images is not None and images < FEW and precision != "int8"
    chosen = backend or ("openvino" if has_openvino() and not few else "torch")
    return _engine(precision or _fastest(fast=fast), chosen)


def _engine(precision: str, backend: str) -> Engine:
    """Build an engine from what a user wrote."""
    for name, value, known in (
        ("precision", precision, get_args(Precision)),
        ("backend", backend, get_args(Backend)),
    ):
        if value not in known:
            raise SettingsError(f"{name} is '{value}', expected one of {', '.join(known)}")
    return Engine(cast("Precision", precision), cast("Backend", backend))


def has_openvino() -> bool:
    """Tell whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


def _fastest(*, fast: bool) -> Precision:
    return "bfloat16" if fast and bfloat16_gain() > _WORTH else "float32"


@cache
def bfloat16_gain() -> float:
    """Measure how many times faster this processor multiplies in bfloat16 than in float32, in a tenth of a second."""
    times = {kind: _time(kind) for kind in (torch.float32, torch.bfloat16)}
    return times[torch.float32] / times[torch.bfloat16]


def _time(kind: torch.dtype) -> float:
    left, right = torch.ones(512, 1024, dtype=kind), torch.ones(1024, 1024, dtype=kind)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def in_bfloat16(
    look: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Give a tower whose products PyTorch computes in bfloat16; states and norms between them stay float32."""

    def looks(pixels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return look(pixels).float()

    return looks

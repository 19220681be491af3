"""A generator's denoiser under training: asked with its adapter or without, for its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palate.adaptation.noising import Noising
from palate.generation.families import Conditions, Family


@dataclass(slots=True)
class Denoiser:
    """The network that predicts noise, v or a flow, and how it is asked."""

    family: Family
    network: Any
    """With the adapter on it."""
    noising: Noising
    precision: torch.dtype = torch.float32
    factor: int = 8
    """Pixels to a row of latents."""
    wrapped: Any = None
    """The network as data parallelism wraps it, so that gradients are exchanged; None where nothing is shared."""

    @property
    def module(self) -> Any:
        """The network that is trained: the wrapped one if there is one."""
        return self.network if self.wrapped is None else self.wrapped

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        device: torch.device = self.network.device
        return device

    def predict(
        self,
        noisy: Float[Tensor, "images channels height width"],
        levels: Int[Tensor, " images"],
        conditions: Conditions,
        size: tuple[int, int],
    ) -> Float[Tensor, "images channels height width"]:
        """Give the denoiser's answer, through the wrapper where gradients are kept; ``size``: height and width in pixels."""
        asked = self.module if torch.is_grad_enabled() else self.network
        low = self.precision != torch.float32
        told = conditions.to(self.device)
        with torch.autocast(self.device.type, self.precision, enabled=low):
            answer = self.family.predict(asked, noisy, self.noising.times[levels], told, size)
        return answer.float()

    def errors(
        self,
        latents: Float[Tensor, "images channels height width"],
        noise: Float[Tensor, "images channels height width"],
        levels: Int[Tensor, " images"],
        conditions: Conditions,
    ) -> Float[Tensor, " images"]:
        """Give each image's mean squared error; lower is better."""
        noisy, target = self.noising.add(latents, noise, levels)
        factor = self.factor
        size = (latents.shape[2] * factor, latents.shape[3] * factor)
        errors: Tensor = (
            (self.predict(noisy, levels, conditions, size) - target).square().mean(dim=(1, 2, 3))
        )
        return errors

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Run the block without the adapter and without gradients."""
        self.network.disable_adapters()
        try:
            with torch.no_grad():
                yield
        finally:
            self.network.enable_adapters()

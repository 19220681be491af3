"""The forward process of a generator: how noise is added, and what its denoiser is asked to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palate.errors import CheckpointError

Latents = Float[Tensor, "images channels height width"]
Draw = Literal["uniform", "logit-normal"]


@dataclass(frozen=True, slots=True)
class Noising:
    """Every noise level of a generator, the cleanest first: x_t = signal x_0 + rest noise.

    Diffusion: signal² + rest² = 1, with signal² the cumulative product (Ho et al., 2020, eq. 4); the target is
    the noise, or v = signal noise - rest x_0 (Salimans & Ho, 2022). Flow: signal = 1 - rest, and the target is
    noise - x_0 (Liu et al., 2022, arXiv 2209.03003; Esser et al., 2024, arXiv 2403.03206, eq. 13).
    """

    signal: Float[Tensor, " levels"]
    rest: Float[Tensor, " levels"]
    times: Tensor
    """What the denoiser is told at each level."""
    prediction: Literal["epsilon", "v_prediction", "flow"]

    def __len__(self) -> int:
        """Give the number of levels."""
        return len(self.signal)

    def draw(self, count: int, how: Draw | None, draw: torch.Generator) -> Int[Tensor, " images"]:
        """Draw levels. ``uniform``: all alike. ``logit-normal``: the middle ones most often, as SD3 was trained.

        None is what the kind of generator was trained with. Logit-normal: Esser et al., section 3.1, with mean 0
        and deviation 1.
        """
        if how == "logit-normal" or (how is None and self.prediction == "flow"):
            part = torch.sigmoid(torch.randn(count, generator=draw))
            return (part * len(self)).long().clamp(max=len(self) - 1)
        return torch.randint(0, len(self), (count,), generator=draw)

    def add(
        self, latents: Latents, noise: Latents, levels: Int[Tensor, " images"]
    ) -> tuple[Latents, Latents]:
        """Give the noisy latents and what the denoiser should answer."""
        signal, rest = self._at(levels)
        noisy = signal * latents + rest * noise
        if self.prediction == "epsilon":
            return noisy, noise
        if self.prediction == "flow":
            return noisy, noise - latents
        return noisy, signal * noise - rest * latents

    def clean(self, noisy: Latents, predicted: Latents, levels: Int[Tensor, " images"]) -> Latents:
        """Give the clean latents that a prediction amounts to; the inverse of :meth:`add`."""
        signal, rest = self._at(levels)
        if self.prediction == "epsilon":
            return (noisy - rest * predicted) / signal
        if self.prediction == "flow":
            return noisy - rest * predicted
        return signal * noisy - rest * predicted

    def min_snr_weights(
        self, levels: Int[Tensor, " images"], gamma: float
    ) -> Float[Tensor, " images"]:
        """Give each noise level's weight, so that nearly clean images do not count for most.

        min(SNR, gamma) / SNR where the noise is predicted, / (SNR + 1) where v is (Hang et al., 2023, arXiv
        2303.09556); the SNR is signal² / rest².
        """
        signal, rest = self.signal[levels].square(), self.rest[levels].square()
        ratio = signal / rest
        below = ratio if self.prediction == "epsilon" else ratio + 1
        return ratio.clamp(max=gamma) / below

    def _at(self, levels: Int[Tensor, " images"]) -> tuple[Tensor, Tensor]:
        """Give signal and rest of some images, ready to multiply latents."""
        signal, rest = (part[levels].view(-1, 1, 1, 1) for part in (self.signal, self.rest))
        return signal, rest


def noising_of(pipeline: Any, device: torch.device) -> Noising:
    """Read the forward process from a pipeline's scheduler, as it was before any sampling.

    Raises:
        CheckpointError: a scheduler with neither a cumulative product nor the noise levels of a flow, or a model that
            predicts neither the noise nor v.
    """
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    config = scheduler.config
    if hasattr(scheduler, "alphas_cumprod"):
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in {"epsilon", "v_prediction"}:
            raise CheckpointError(
                f"the generator predicts {prediction!r}, expected 'epsilon' or 'v_prediction'"
            )
        level = scheduler.alphas_cumprod.float().to(device)
        times = torch.arange(len(level), device=device)
        return Noising(level.sqrt(), (1 - level).sqrt(), times, prediction)
    if "FlowMatch" not in type(scheduler).__name__ or config.get("use_dynamic_shifting"):
        raise CheckpointError(
            f"the generator's scheduler is {type(scheduler).__name__}, expected one of diffusion, or of a flow with a "
            "fixed shift"
        )
    # diffusers lists them from noise to image
    rest = scheduler.sigmas[: len(scheduler.timesteps)].float().flip(0).to(device)
    times = scheduler.timesteps.float().flip(0).to(device)
    return Noising(1 - rest, rest, times, "flow")

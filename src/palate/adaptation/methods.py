"""Adaptation methods by name: what a label's caption becomes, and what a step minimises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palate.errors import CheckpointError, SettingsError
from palate.generation.text import tokenize

TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that HPS adapts: query, key, value and output of every attention layer."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to learn from labels."""

    name: str
    caption: Callable[[str, str, str], str]
    """From role, caption and identifier to the text that the denoiser is trained with."""
    requires: tuple[str, ...]
    """Roles without which the method is meaningless."""


def mark_rejected(role: str, caption: str, identifier: str) -> str:
    """Put the identifier before the caption of a rejected image, and leave other captions alone.

    >>> mark_rejected("rejected", "a red ball", "Weird image. ")
    'Weird image. a red ball'
    >>> mark_rejected("preferred", "a red ball", "Weird image. ")
    'a red ball'
    """
    return identifier + caption if role == "rejected" else caption


METHODS: Final = {
    "identifier": Method("identifier", mark_rejected, requires=("rejected",)),
}
"""Methods by the name that a recipe uses."""


def check_identifier(pipeline: Any, identifier: str, captions: Sequence[str]) -> None:
    """Make sure that the model reads the whole identifier in front of every caption.

    A caption that is too long loses its end, never the identifier. What could lose it is a text
    model too short for it, or a tokenizer that joins its last letters with the caption's first.

    Raises:
        SettingsError: the identifier is empty, too long, or not the start of a marked caption.
    """
    if not identifier.strip():
        raise SettingsError("identifier is empty, expected words such as 'Weird image. '")
    alone = tokenize(pipeline, [identifier])
    length = alone.ids.shape[1]
    words = alone.given[0] - 2  # without start and end
    if words + 2 >= length:
        raise SettingsError(
            f"identifier {identifier!r} has {words} tokens, "
            f"expected fewer than {length - 2}: the model reads {length} with start and end"
        )
    marked = tokenize(pipeline, [identifier + caption for caption in captions])
    start = alone.ids[0, : words + 1]
    wrong = (marked.ids[:, : words + 1] != start).any(dim=1).nonzero().flatten().tolist()
    if wrong:
        raise SettingsError(
            f"identifier {identifier!r} is not read as such before {captions[wrong[0]]!r}; "
            "end it with a space"
        )


@dataclass(frozen=True, slots=True)
class Noising:
    """The forward process of a diffusion model: how noise is added and what is predicted.

    q(x_t | x_0) = N(sqrt(a_t) x_0, (1 - a_t)), with a the cumulative product (Ho et al., 2020,
    eq. 4); the target is the noise, or v = sqrt(a_t) noise - sqrt(1 - a_t) x_0 (Salimans & Ho,
    2022).
    """

    cumulative: Float[Tensor, " steps"]
    prediction: str

    def add(
        self,
        latents: Float[Tensor, "images channels height width"],
        noise: Float[Tensor, "images channels height width"],
        times: Int[Tensor, " images"],
    ) -> tuple[
        Float[Tensor, "images channels height width"], Float[Tensor, "images channels height width"]
    ]:
        """Give the noisy latents and what the denoiser should answer."""
        level = self.cumulative[times].view(-1, 1, 1, 1)
        signal, rest = level.sqrt(), (1 - level).sqrt()
        noisy = signal * latents + rest * noise
        target = noise if self.prediction == "epsilon" else signal * noise - rest * latents
        return noisy, target

    def min_snr_weights(
        self, times: Int[Tensor, " images"], gamma: float
    ) -> Float[Tensor, " images"]:
        """Give each noise level's weight, so that nearly clean images do not count for most.

        min(SNR, gamma) / SNR where the noise is predicted, / (SNR + 1) where v is (Hang et al., 2023, arXiv
        2303.09556); the SNR is a / (1 - a).
        """
        level = self.cumulative[times]
        ratio = level / (1 - level)
        below = ratio if self.prediction == "epsilon" else ratio + 1
        return ratio.clamp(max=gamma) / below


def noising_of(pipeline: Any) -> Noising:
    """Read the forward process from a pipeline's scheduler.

    Raises:
        CheckpointError: the model predicts neither the noise nor v.
    """
    scheduler = pipeline.scheduler
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction not in {"epsilon", "v_prediction"}:
        raise CheckpointError(
            f"the generator predicts {prediction!r}, expected 'epsilon' or 'v_prediction'"
        )
    return Noising(scheduler.alphas_cumprod.float().to(pipeline.unet.device), prediction)


def denoising_errors(
    unet: Any,
    noisy: Float[Tensor, "images channels height width"],
    times: Int[Tensor, " images"],
    text: Float[Tensor, "images tokens dim"],
    target: Float[Tensor, "images channels height width"],
    precision: torch.dtype = torch.float32,
) -> Float[Tensor, " images"]:
    """Give each image's mean squared error of the denoiser; lower is better."""
    with torch.autocast(noisy.device.type, precision, enabled=precision != torch.float32):
        predicted = unet(noisy, times, text, return_dict=False)[0]
    errors: Tensor = (predicted.float() - target.float()).square().mean(dim=(1, 2, 3))
    return errors

"""Adaptation methods by name: whom they learn from, what a caption becomes, and what a step minimises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from palate.data.records import ROLES
from palate.errors import SettingsError
from palate.generation.text import tokenize

Losses = tuple[Float[Tensor, " units"], Mapping[str, Tensor]]
"""The loss of each unit (an image, or a pair), and numbers to log."""


@dataclass(frozen=True, slots=True)
class Errors:
    """The denoiser's mean squared errors on some units, each with one image or, in a pair, the better one first.

    All lower is better. ``mean`` gives the mean of a tensor over all processes.
    """

    own: Float[Tensor, "units sides"]
    """With the adapter; has gradients."""
    base: Float[Tensor, "units sides"] | None
    """Without it, at the same noise, where the method asks for it."""
    role: Int[Tensor, "units sides"]
    """Which role, as its place in ``palate.data.records.ROLES``."""
    mean: Callable[[Tensor], Tensor] = torch.mean

    @property
    def gain(self) -> Float[Tensor, "units sides"]:
        """Give how much smaller the error is with the adapter than without; higher is better."""
        assert self.base is not None
        return self.base - self.own


@dataclass(frozen=True, slots=True)
class Method:
    """A way to learn from labels."""

    name: str
    loss: Callable[[Errors, float], Losses]
    """From errors and ``beta``."""
    roles: tuple[str, ...]
    """Those that it learns from; images of others are left out."""
    requires: tuple[str, ...]
    """Those without which it is meaningless."""
    paired: bool = False
    """It learns from pairs: a preferred and a rejected image of one group."""
    reference: bool = False
    """It compares with the bare denoiser."""
    marks: bool = False
    """It puts the identifier before rejected captions."""

    def caption(self, role: str, caption: str, identifier: str) -> str:
        """Give the text that the denoiser is trained with.

        >>> METHODS["identifier"].caption("rejected", "a red ball", "Weird image. ")
        'Weird image. a red ball'
        >>> METHODS["identifier"].caption("preferred", "a red ball", "Weird image. ")
        'a red ball'
        """
        return identifier + caption if self.marks and role == "rejected" else caption


def denoise(errors: Errors, beta: float) -> Losses:
    """Give the plain denoising error: what a diffusion model is trained with (Ho et al., 2020, eq. 14)."""
    del beta
    return errors.own[:, 0], {}


def prefer(errors: Errors, beta: float) -> Losses:
    """Give Diffusion-DPO's loss: -log sigmoid(½ beta (gain of the better image - gain of the other)).

    Wallace et al., 2023, arXiv 2311.12908, eq. 14, with beta in the unit of their code: it multiplies ½ of a
    **mean** over the latent, and holds the number of noise levels and their weight. Logs the margin, how often it is
    above 0, and both sides' changes of error: a loss that falls while both rise is a failure that the loss hides.
    """
    gain = errors.gain
    margin = 0.5 * beta * (gain[:, 0] - gain[:, 1])
    change = -gain.detach()
    told = {
        "margin": margin.detach(),
        "accuracy": (margin.detach() > 0).float(),
        "preferred_change": change[:, 0],
        "rejected_change": change[:, 1],
    }
    return softplus(-margin), {name: errors.mean(value) for name, value in told.items()}


def weigh(errors: Errors, beta: float) -> Losses:
    """Give Diffusion-KTO's loss, for preferred and rejected images that form no pairs: 1 - sigmoid(± beta (gain - z)).

    Li et al., 2024, arXiv 2404.04465, eq. 8, with the utility of Kahneman and Tversky (``--halo sigmoid`` in their
    ``train_kto_sd_v1.5.py``) and beta in the unit of that code, which has no ½: z is the mean gain of the batch, at
    least 0 and without gradient, which stands for the distance from the base.
    """
    gain = errors.gain[:, 0]
    z = errors.mean(gain.detach()).clamp(min=0)
    sign = torch.where(errors.role[:, 0] == ROLES.index("preferred"), 1.0, -1.0)
    return 1 - torch.sigmoid(sign * beta * (gain - z)), {"z": z}


METHODS: Final = {
    method.name: method
    for method in (
        Method("identifier", denoise, ROLES, ("rejected",), marks=True),
        Method("sft", denoise, ("preferred", "regularisation"), ("preferred",)),
        Method(
            "dpo",
            prefer,
            ("preferred", "rejected"),
            ("preferred", "rejected"),
            paired=True,
            reference=True,
        ),
        Method("kto", weigh, ("preferred", "rejected"), ("preferred", "rejected"), reference=True),
        Method("reward", denoise, ("preferred", "regularisation"), ()),
    )
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

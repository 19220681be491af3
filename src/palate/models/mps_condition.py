"""What an MPS is asked: the words of each dimension, and how they pick the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from jaxtyping import Bool, Float
from torch import Tensor

from palate.errors import CheckpointError, SettingsError

Pooling = Literal["max", "mean"]
Among = Literal["all", "words"]

# Both evaluation scripts of Kwai-Kolors/MPS, and so its published numbers, take 0.3; its model's
# own forward pass and the example in its README take 0.01.
THRESHOLD = 0.3

CONDITIONS: Mapping[str, str] = MappingProxyType(
    {
        "overall": "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, "
        "hands, limbs, structure, instance, texture, quantity, attributes, position, number, "
        "location, word, things.",
        "aesthetics": "light, color, clarity, tone, style, ambiance, artistry.",
        "detail": "shape, face, hair, hands, limbs, structure, instance, texture.",
        "alignment": "quantity, attributes, position, number, location.",
    }
)
"""The words that stand for each dimension; their punctuation changes the tokens and the score.

Only ``overall`` is official (the evaluation scripts of Kwai-Kolors/MPS, letter for letter). The
others are the parts into which two independent successors divide it, with the official commas and
full stop; ``word`` and ``things`` are in no part. The published weights saw only ``overall``.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """How a condition picks the tokens of a prompt.

    A token's relevance is its dot product with the tokens of the condition: the largest one (``pooling =
    "max"``, the code of Kwai-Kolors/MPS) or their mean (``"mean"``, the paper's figure). It takes part if that,
    divided by the largest relevance in its prompt, is above ``threshold``: 0.3 in the official evaluation
    scripts, 0.01 in the official forward pass. ``tokens = "all"`` is official: start, end and padding of prompt
    and condition count like words; with ``"words"`` they count in neither.
    """

    pooling: Pooling = "max"
    threshold: float = THRESHOLD
    tokens: Among = "all"

    def __post_init__(self) -> None:
        """Refuse a threshold that no token could pass."""
        if not self.threshold < 1:
            raise SettingsError(
                f"the mask threshold is {self.threshold}, expected below 1: no token could pass"
            )


def tokens_kept(
    text: Float[Tensor, "prompts context dim"],
    condition: Float[Tensor, "#prompts words dim"],
    how: Masking = Masking(),
    among: Bool[Tensor, "prompts context"] | None = None,
) -> Bool[Tensor, "prompts context"]:
    """Say which tokens of each prompt take part under a condition.

    Where the largest relevance of a prompt is not positive every token takes part. So it is in the official code
    for a negative largest, which makes all ratios at least 1; for exactly 0 the official code gives NaN.
    The largest is that of the prompt alone, where the official code takes that of a batch: for a batch of one,
    which the published numbers use, it is the same. ``condition`` is one for all prompts or one for each.
    ``among`` marks the tokens that may take part, all by default; nothing else of a prompt is looked at.
    """
    products = text @ condition.transpose(1, 2)
    relevance = products.amax(-1) if how.pooling == "max" else products.mean(-1)
    if among is not None:
        relevance = relevance.masked_fill(~among, -float("inf"))
    most = relevance.amax(-1, keepdim=True)
    kept = (relevance / most > how.threshold) | (most <= 0)
    return kept if among is None else kept & among


def read_question(
    card: Mapping[str, Any], where: object
) -> tuple[Mapping[str, str], Masking | None]:
    """Read the conditions and the masking that a folder says, if it does. Raises CheckpointError."""
    said, mask = card.get("conditions", CONDITIONS), card.get("mask")
    if not (
        isinstance(said, Mapping) and said and all(type(text) is str for text in said.values())
    ):
        raise CheckpointError(
            f"{where}: conditions is {said!r}, expected the words of each dimension"
        )
    if mask is None:
        return said, None
    known = [part.name for part in fields(Masking)]
    if not isinstance(mask, dict) or set(mask) != set(known):
        raise CheckpointError(f"{where}: mask is {mask!r}, expected {', '.join(known)}")
    for name, kind in (("pooling", Pooling), ("tokens", Among)):
        if mask[name] not in get_args(kind):
            raise CheckpointError(
                f"{where}: mask: {name} is {mask[name]!r}, expected {' or '.join(map(repr, get_args(kind)))}"
            )
    if type(mask["threshold"]) not in {int, float}:
        raise CheckpointError(
            f"{where}: the mask threshold is {mask['threshold']!r}, expected a number"
        )
    try:
        return said, Masking(**mask | {"threshold": float(mask["threshold"])})
    except SettingsError as error:
        raise CheckpointError(f"{where}: mask: {error}") from error


def write_question(conditions: Mapping[str, str], masking: Masking | None) -> dict[str, Any]:
    """Write what :func:`read_question` reads; nothing where a folder leaves it to the scorer's profile."""
    return {} if masking is None else {"conditions": dict(conditions), "mask": asdict(masking)}

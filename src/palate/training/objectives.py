"""What a scorer is taught by: from scores and what people said to a loss, and to an accuracy beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate.data.duels import pair_index
from palate.errors import DataError
from palate.stats.accuracy import chance_top1, pairwise, top1
from palate.training.batches import Batch, Groups, as_pairs
from palate.training.losses import (
    choice_cross_entropy,
    choice_target,
    pair_cross_entropy,
    ranking_logistic,
)

Ties = Literal["half", "drop"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss with the accuracy that watches it.

    ``loss(logits, batch)`` gives nats per choice, lower is better. ``accuracy(values, ranks, offsets)``
    takes the flat columns of `palate.stats`, and ``chance(ranks, offsets)`` is its value of knowing nothing.
    ``pairs`` says that every choice is taken apart first.
    """

    what: str
    loss: Callable[[Float[Tensor, "groups most"], Batch], Float[Tensor, " groups"]]
    accuracy: Callable[[Any, Any, Any], float]
    chance: Callable[[Any, Any], float]
    pairs: bool = False


def prepared(groups: Groups, objective: Objective, ties: Ties) -> Groups:
    """Take choices apart where the objective asks for it, and leave out those that teach nothing."""
    if objective.pairs:
        return as_pairs(groups, ties=ties == "half")
    if objective is OBJECTIVES["rankings"]:
        ranks, mask = groups.all.ranks, groups.all.mask
        decided = (ranks.masked_fill(~mask, 1) != 1).any(-1)
        if not decided.any():
            raise DataError("all ranks are tied, expected rankings that put one image first")
        return groups.only(decided)
    return groups


def _choice_loss(logits: Float[Tensor, "groups most"], batch: Batch) -> Float[Tensor, " groups"]:
    mask, ranks = batch.mask.to(logits.device), batch.ranks.to(logits.device)
    return choice_cross_entropy(logits, mask, choice_target(ranks, mask))


def _pair_loss(logits: Float[Tensor, "groups 2"], batch: Batch) -> Float[Tensor, " groups"]:
    first, second = batch.ranks.to(logits.device).unbind(-1)
    target = torch.where(first == second, 0.5, (first < second).float())
    return pair_cross_entropy(logits[:, 0], logits[:, 1], target)


def _ranking_loss(logits: Float[Tensor, "groups most"], batch: Batch) -> Float[Tensor, " groups"]:
    return ranking_logistic(logits, batch.ranks.to(logits.device), batch.mask.to(logits.device))


def _pair_accuracy(values: Any, ranks: Any, offsets: Any) -> float:
    """Share of decided pairs in people's order; equal scores are half right."""
    lengths = np.diff(offsets)
    group, first, second = pair_index(lengths)
    first, second = offsets[group] + first, offsets[group] + second
    better = np.where(ranks[first] == ranks[second], 0.5, ranks[first] < ranks[second])
    return pairwise(values[first], values[second], better).value


def _even(ranks: Any, offsets: Any) -> float:  # noqa: ARG001 - whatever the pairs are
    return 0.5


def _top1(values: Any, ranks: Any, offsets: Any) -> float:
    return top1(values, ranks, offsets, ties="expected").value


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        "choice": Objective(
            "softmax over the images of a prompt (HPS)", _choice_loss, _top1, chance_top1
        ),
        "pairs": Objective(
            "softmax over two images, ties half and half (PickScore, HPS v2, MPS)",
            _pair_loss,
            _pair_accuracy,
            _even,
            pairs=True,
        ),
        "rankings": Objective(
            "logistic over the decided pairs of a ranking (ImageReward)",
            _ranking_loss,
            _pair_accuracy,
            _even,
        ),
    }
)
"""Every objective by its name in a recipe."""

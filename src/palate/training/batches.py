"""From choices to batches of prompts with their images, in an order that has an address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from palate.data.records import Choice
from palate.data.tables import to_rows
from palate.errors import DataError
from palate.runs import seed_for
from palate.training.losses import choice_target


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Choices as tensors: one row per choice, padded to the largest number of images.

    ``prompt`` and ``images`` are places in ``prompts`` and ``keys``. ``mask`` is true where there
    is an image; ``target`` is the distribution of the choice over them.
    """

    prompts: list[str]
    keys: list[str]
    prompt: Int[Tensor, " groups"]
    images: Int[Tensor, "groups most"]
    mask: Bool[Tensor, "groups most"]
    target: Float[Tensor, "groups most"]

    def __len__(self) -> int:
        """Count the choices."""
        return len(self.prompt)

    def flat(self, values: Float[Tensor, "groups most"]) -> tuple[Any, Any, Any]:
        """Give values, ranks and offsets of the images without padding, as the statistics take them.

        Ranks are 1 for the best and 2 for the others.
        """
        ranks = torch.where(self.target > 0, 1, 2)
        offsets = np.concatenate([[0], np.cumsum(self.mask.sum(-1).numpy())])
        return values[self.mask].double().numpy(), ranks[self.mask].numpy(), offsets


def read_groups(choices: Any, dimension: str, where: str) -> Groups:
    """Turn the choices on one dimension into groups, keeping all of them.

    Raises DataError where there is none, naming the dimensions that there are.
    """
    rows = list(to_rows(choices.filter(pc.equal(choices["dimension"], dimension)), Choice))
    if not rows:
        there = sorted(set(choices["dimension"].to_pylist()))
        raise DataError(f"{where}: no choices on '{dimension}', there are {there or 'none at all'}")
    prompts = {
        prompt: place for place, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))
    }
    keys = {
        key: place
        for place, key in enumerate(dict.fromkeys(key for row in rows for key in row.images))
    }
    most = max(len(row.images) for row in rows)
    images = np.zeros((len(rows), most), dtype=np.int64)
    ranks = np.zeros((len(rows), most), dtype=np.int64)
    mask = np.zeros((len(rows), most), dtype=bool)
    for place, row in enumerate(rows):
        count = len(row.images)
        images[place, :count] = [keys[key] for key in row.images]
        ranks[place, :count] = row.ranks
        mask[place, :count] = True
    masked = torch.from_numpy(mask)
    return Groups(
        prompts=list(prompts),
        keys=list(keys),
        prompt=torch.tensor([prompts[row.prompt] for row in rows]),
        images=torch.from_numpy(images),
        mask=masked,
        target=choice_target(torch.from_numpy(ranks), masked),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some choices, as places in their groups' prompts and keys."""

    prompt: Int[Tensor, " groups"]
    images: Int[Tensor, "groups most"]
    mask: Bool[Tensor, "groups most"]
    target: Float[Tensor, "groups most"]


def batch_at(groups: Groups, step: int, size: int, seed: int) -> Batch:
    """Give the batch of a step: every choice once per epoch, its images in a new order each time.

    It depends on the seed and the step only. The images of a choice are shuffled because people
    and bots favour places: in HPD v1 the last image wins 31 % of the fours.
    """
    picked = torch.from_numpy(_picked(len(groups), step * size, size, seed))
    mask = groups.mask[picked]
    draw = torch.rand(mask.shape, generator=generator("slots", seed, step))
    order = draw.masked_fill(~mask, 2.0).argsort(-1)  # padding stays behind
    return Batch(
        prompt=groups.prompt[picked],
        images=groups.images[picked].gather(1, order),
        mask=mask.gather(1, order),
        target=groups.target[picked].gather(1, order),
    )


def batches_in_order(groups: Groups, size: int) -> Sequence[Batch]:
    """Cut groups into batches as they come, for validation."""
    cuts = [slice(start, start + size) for start in range(0, len(groups), size)]
    return [
        Batch(groups.prompt[cut], groups.images[cut], groups.mask[cut], groups.target[cut])
        for cut in cuts
    ]


def generator(*address: str | int) -> torch.Generator:
    """Give the random numbers of an address."""
    return torch.Generator().manual_seed(seed_for("train", *address))


def augment(
    pixels: UInt8[Tensor, "images 3 size size"], shift: int, *, flip: bool, seed: int, step: int
) -> UInt8[Tensor, "images 3 size size"]:
    """Move each picture by up to ``shift`` pixels, repeating its edge, and mirror half of them.

    Mirroring swaps left and right, so it harms prompts that speak of them.
    """
    count, _, _, size = pixels.shape
    random = generator("augment", seed, step)
    moved = torch.randint(-shift, shift + 1, (2, count, 1), generator=random)
    lines = (torch.arange(size) + moved).clamp(0, size - 1)
    down, right = lines[0], lines[1]
    if flip:
        mirrored = torch.rand(count, 1, generator=random) < 0.5
        right = torch.where(mirrored, right.flip(1), right)
    rows = torch.arange(count)[:, None, None, None]
    colours = torch.arange(3)[None, :, None, None]
    return pixels[rows, colours, down[:, None, :, None], right[:, None, None, :]]


def _picked(count: int, start: int, size: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Read places ``start`` to ``start + size`` of one permutation after another."""
    places = np.arange(start, start + size)
    epochs = places // count
    parts = [
        _epoch(count, seed, int(epoch))[places[epochs == epoch] % count]
        for epoch in np.unique(epochs)
    ]
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _epoch(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Give the order of one epoch."""
    return torch.randperm(count, generator=generator("epoch", seed, epoch)).numpy()

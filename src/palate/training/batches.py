"""From choices to batches of prompts with their images, in an order that has an address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from palate.data.duels import pair_index
from palate.data.records import Choice
from palate.data.tables import to_rows
from palate.errors import DataError
from palate.runs import seed_for
from palate.training.losses import decided_pairs, prompt_weights

_WINDOW = 32  # batches whose choices are sorted together

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some choices: one row per choice, padded to the largest number of images.

    ``prompt``, ``images`` and ``dimension`` are places in the lists of their :class:`Groups`. ``mask`` is
    true where there is an image; ``ranks`` are 1 for the best and 0 in the padding. ``weight`` says how
    much a choice counts.
    """

    prompt: Int[Tensor, " groups"]
    images: Int[Tensor, "groups most"]
    mask: Bool[Tensor, "groups most"]
    ranks: Int[Tensor, "groups most"]
    dimension: Int[Tensor, " groups"]
    weight: Float[Tensor, " groups"]

    def __len__(self) -> int:
        """Count the choices."""
        return len(self.prompt)

    def rows(self, picked: Any) -> Batch:
        """Give some of the choices, without the columns that none of them needs."""
        parts = {part.name: getattr(self, part.name)[picked] for part in fields(Batch)}
        most = int(parts["mask"].sum(-1).max()) if len(parts["mask"]) else 0
        wide = {name: parts[name][:, :most] for name in ("images", "mask", "ranks")}
        return Batch(**(parts | wide))

    def part(self, number: int, of: int) -> Batch:
        """Give every ``of``-th choice, from ``number`` on: the parts are the batch."""
        return self if of == 1 else self.rows(slice(number, None, of))


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Choices as tensors, and what their places stand for."""

    prompts: list[str]
    keys: list[str]
    dimensions: list[str]
    all: Batch

    def __len__(self) -> int:
        """Count the choices."""
        return len(self.all)

    def flat(self, values: Float[Tensor, "groups most"]) -> tuple[Any, Any, Any]:
        """Give values, ranks and offsets of the images without padding, as the statistics take them."""
        mask = self.all.mask
        offsets = np.concatenate([[0], np.cumsum(mask.sum(-1).numpy())])
        return values[mask].double().numpy(), self.all.ranks[mask].numpy(), offsets

    def only(self, some: Bool[Tensor, " groups"]) -> Groups:
        """Give some of the choices."""
        return Groups(self.prompts, self.keys, self.dimensions, self.all.rows(some))

    def of_dimension(self, place: int) -> Bool[Tensor, " groups"]:
        """Mark the choices on one dimension."""
        return self.all.dimension == place


def read_groups(choices: Any, dimensions: Sequence[str], where: str) -> Groups:
    """Turn the choices on some dimensions into groups, keeping all of them.

    Raises DataError for a dimension without choices, naming those that there are.
    """
    rows = _rows_on(choices, dimensions, where)
    prompts = _places(row.prompt for row in rows)
    keys = _places(key for row in rows for key in row.images)
    numbers = {name: place for place, name in enumerate(dimensions)}
    most = max(len(row.images) for row in rows)
    images, ranks = np.zeros((2, len(rows), most), dtype=np.int64)
    mask = np.zeros((len(rows), most), dtype=bool)
    for place, row in enumerate(rows):
        count = len(row.images)
        images[place, :count] = [keys[key] for key in row.images]
        ranks[place, :count] = row.ranks
        mask[place, :count] = True
    prompt = torch.tensor([prompts[row.prompt] for row in rows])
    return Groups(
        prompts=list(prompts),
        keys=list(keys),
        dimensions=list(dimensions),
        all=Batch(
            prompt=prompt,
            images=torch.from_numpy(images),
            mask=torch.from_numpy(mask),
            ranks=torch.from_numpy(ranks),
            dimension=torch.tensor([numbers[row.dimension] for row in rows]),
            weight=torch.ones(len(rows)),
        ),
    )


def as_pairs(groups: Groups, *, ties: bool) -> Groups:
    """Take every choice apart into its pairs, with ranks 1 and 2; tied pairs stay if ``ties``.

    A choice that picks one image says nothing about the others: their pairs are left out. Raises DataError
    where nothing is left.
    """
    whole = groups.all
    lengths = whole.mask.sum(-1).numpy()
    group, first, second = (torch.from_numpy(part) for part in pair_index(lengths))
    left, right = whole.ranks[group, first], whole.ranks[group, second]
    picked_one = ((whole.ranks == 1).sum(-1) == 1) & (whole.ranks.amax(-1) == 2)
    silent = picked_one[group] & (left == 2) & (right == 2)
    kept = ~silent & ((left != right) | ties)
    if not kept.any():
        raise DataError("no two images have different ranks, expected pairs that people decided")
    group, first, second, left, right = (part[kept] for part in (group, first, second, left, right))
    tied = left == right
    ranks = torch.stack([1 + (left > right).long(), 1 + (left < right).long()], -1)
    ranks[tied] = 1
    images = torch.stack([whole.images[group, first], whole.images[group, second]], -1)
    return Groups(
        prompts=groups.prompts,
        keys=groups.keys,
        dimensions=groups.dimensions,
        all=Batch(
            prompt=whole.prompt[group],
            images=images,
            mask=torch.ones_like(images, dtype=torch.bool),
            ranks=ranks,
            dimension=whole.dimension[group],
            weight=whole.weight[group],
        ),
    )


def weighed(groups: Groups, by: str) -> Groups:
    """Let each of the ``choices`` count the same, each of the ``prompts``, or each of the decided ``pairs``.

    Of prompts as in PickScore's training, of pairs as in ImageReward's. Weigh choices as they are trained on:
    after they were taken apart.
    """
    whole = groups.all
    weight = torch.ones(len(whole))
    if by == "prompts":
        weight = prompt_weights(whole.prompt)
    elif by == "pairs":
        weight = decided_pairs(whole.ranks, whole.mask).float().clamp(min=1)
    return Groups(groups.prompts, groups.keys, groups.dimensions, replace(whole, weight=weight))


def batch_at(groups: Groups, step: int, size: int, seed: int, *, alike: bool = False) -> Batch:
    """Give the batch of a step: every choice once per epoch, its images in a new order each time.

    It depends on the seed and the step only. The images of a choice are shuffled because people
    and bots favour places: in HPD v1 the last image wins 31 % of the fours. ``alike`` puts choices of as
    many images and prompts of about one length together, so that less of a batch is padding.
    """
    if alike:
        picked = _alike(groups, step, size, seed)
    else:
        picked = _picked(len(groups), step * size, size, seed)
    batch = groups.all.rows(torch.from_numpy(picked))
    draw = torch.rand(batch.mask.shape, generator=generator("slots", seed, step))
    order = draw.masked_fill(~batch.mask, 2.0).argsort(-1)  # padding stays behind
    return Batch(
        prompt=batch.prompt,
        images=batch.images.gather(1, order),
        mask=batch.mask.gather(1, order),
        ranks=batch.ranks.gather(1, order),
        dimension=batch.dimension,
        weight=batch.weight,
    )


def batches_in_order(groups: Groups, size: int) -> Sequence[Batch]:
    """Cut groups into batches as they come, for validation; all are padded alike."""
    names = [part.name for part in fields(Batch)]
    return [
        Batch(**{name: getattr(groups.all, name)[start : start + size] for name in names})
        for start in range(0, len(groups), size)
    ]


def generator(*address: str | int) -> torch.Generator:
    """Give the random numbers of an address."""
    return torch.Generator().manual_seed(seed_for("train", *address))


def augment(
    pixels: UInt8[Tensor, "images 3 size size"],
    shift: int,
    *,
    flip: bool,
    seed: int,
    step: int,
    places: Int[Tensor, " images"] | None = None,
    of: int | None = None,
) -> UInt8[Tensor, "images 3 size size"]:
    """Move each picture by up to ``shift`` pixels, repeating its edge, and mirror half of them.

    Mirroring swaps left and right, so it harms prompts that speak of them. ``places`` say where these
    pictures stand among the ``of`` pictures of the step, by default all: a step computed in parts alters
    every picture as one computed at once.
    """
    count, size = len(pixels), pixels.shape[-1]
    whole = count if of is None else of
    random = generator("augment", seed, step)
    moved = torch.randint(-shift, shift + 1, (2, whole, 1), generator=random)
    lines = (torch.arange(size) + moved).clamp(0, size - 1)
    down, right = lines[0], lines[1]
    if flip:
        mirrored = torch.rand(whole, 1, generator=random) < 0.5
        right = torch.where(mirrored, right.flip(1), right)
    if places is not None:
        down, right = down[places], right[places]
    rows = torch.arange(count)[:, None, None, None]
    colours = torch.arange(3)[None, :, None, None]
    return pixels[rows, colours, down[:, None, :, None], right[:, None, None, :]]


def _places(values: Any) -> dict[str, int]:
    """Number the distinct values as they come."""
    return {value: place for place, value in enumerate(dict.fromkeys(values))}


def _rows_on(choices: Any, dimensions: Sequence[str], where: str) -> list[Choice]:
    """Give the choices on these dimensions, each of which must have some."""
    column = choices["dimension"]
    there = sorted(set(column.to_pylist()))
    for name in dimensions:
        if name not in there:
            raise DataError(f"{where}: no choices on '{name}', there are {there or 'none at all'}")
    kept = pc.is_in(column, value_set=pa.array(dimensions, pa.string()))
    return list(to_rows(choices.filter(kept), Choice))


def _picked(count: int, start: int, size: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Read places ``start`` to ``start + size`` of one permutation after another."""
    places = np.arange(start, start + size)
    epochs = places // count
    parts = [
        _epoch(count, seed, int(epoch))[places[epochs == epoch] % count]
        for epoch in np.unique(epochs)
    ]
    return np.concatenate(parts)


def _alike(groups: Groups, step: int, size: int, seed: int) -> Any:
    """Sort the choices of many steps by size, and give those of one of them; the steps change places."""
    window, place = divmod(step, _WINDOW)
    picked = _picked(len(groups), window * _WINDOW * size, _WINDOW * size, seed)
    sizes = groups.all.mask.sum(-1).numpy()[picked]
    lengths = np.array([len(prompt) for prompt in groups.prompts])
    lengths = lengths[groups.all.prompt.numpy()[picked]]
    order = torch.randperm(_WINDOW, generator=generator("windows", seed, window)).numpy()
    start = int(order[place]) * size
    return picked[np.lexsort((lengths, sizes))][start : start + size]


@lru_cache(maxsize=4)
def _epoch(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Give the order of one epoch."""
    return torch.randperm(count, generator=generator("epoch", seed, epoch)).numpy()

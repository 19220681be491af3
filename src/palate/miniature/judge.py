"""The ground truth of the simulated world: how well any picture shows a scene.

The judge looks only at pixels, so it can judge what a generator made as well as what the renderer drew. It
finds each object that the prompt asks for by its colour and the best place and size of its outline, and adds up
what people of this world care about. It is an approximation of a simulated taste, checked against no real person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch.nn import functional

from palate.errors import DataError
from palate.miniature.pictures import scenes_from
from palate.miniature.world import GROUND_VALUES, PALETTE, SHAPES, SIZE, Array, Scene, coverage

ASPECTS = ("match", "relation", "vividness", "clutter")
WEIGHTS = (1.6, 0.7, 0.9, -1.1)
RADII = tuple(np.arange(4.0, 9.6, 0.7))
KERNEL = 21
VISIBLE = 0.16  # distance from the ground, as a share of full scale, at which a pixel is something


@dataclass(frozen=True)
class Judgement:
    """What the judge saw: `aspects` (pictures × `ASPECTS`, each about 0 to 1) and `utility` (higher is better)."""

    aspects: Float[Array, "pictures aspects"]

    @property
    def utility(self) -> Float[Array, "pictures"]:
        """The weighted sum of the aspects; a clean picture has about 3.2, an empty one 0. Higher is better."""
        return np.asarray(self.aspects @ np.array(WEIGHTS))


def _templates() -> tuple[torch.Tensor, torch.Tensor]:
    """Outlines of every shape and radius, and the same grown by a margin: (shapes × radii) × 1 × K × K each."""
    middle = np.full((len(SHAPES), len(RADII)), KERNEL // 2, dtype=float)
    shape = np.repeat(np.arange(len(SHAPES))[:, None], len(RADII), axis=1)
    radius = np.repeat(np.array(RADII)[None], len(SHAPES), axis=0)
    outline = coverage(shape, middle, middle, radius)[..., :KERNEL, :KERNEL]
    around = coverage(np.zeros_like(shape), middle, middle, radius + 2.0)[..., :KERNEL, :KERNEL]
    return torch.from_numpy(outline).float(), torch.from_numpy(around).float()


_OUTLINE, _AROUND = _templates()


def judge(images: NDArray[np.uint8], prompts: Sequence[str], batch: int = 512) -> Judgement:
    """Judge pictures (pictures × 32 × 32 × 3, 8 bits) by the prompts that they were made for.

    Raises:
        DataError: if a prompt is not one of this world's, or a picture has another size.
    """
    scenes = scenes_from(prompts)
    if images.shape[1:] != (SIZE, SIZE, 3) or len(images) != len(scenes):
        raise DataError(
            f"expected {len(scenes)} pictures of {SIZE} × {SIZE} × 3, found {images.shape}"
        )
    parts = [
        _judge(images[i : i + batch], scenes[i : i + batch]) for i in range(0, len(scenes), batch)
    ]
    return Judgement(np.concatenate(parts) if parts else np.zeros((0, len(ASPECTS))))


def _judge(images: NDArray[np.uint8], scenes: Sequence[Scene]) -> Float[Array, "pictures aspects"]:
    n = len(scenes)
    pixels = torch.from_numpy(images.astype(np.float32) / 255)
    ground = torch.from_numpy(GROUND_VALUES[[scene.ground for scene in scenes]])[:, None, None, :]
    away = pixels - ground
    something = ((away.norm(dim=-1) / 3**0.5 - VISIBLE / 2) / (VISIBLE / 2)).clamp(0, 1)
    direction = torch.from_numpy(PALETTE)[None] - ground[:, 0]  # pictures × colours × 3
    length = direction.norm(dim=-1)
    unit = direction / length[..., None]
    along = torch.einsum("nhwc,nkc->nkhw", away, unit)
    nearest = (along / away.norm(dim=-1).clamp_min(1e-6)[:, None]).argmax(dim=1)
    found = [
        _find(scenes, i, something, nearest, along / length[..., None, None])
        for i in range(max(len(scene.objects) for scene in scenes))
    ]
    double = torch.tensor([len(scene.objects) == 2 for scene in scenes])
    match, vivid = found[0].match, found[0].vivid * found[0].match
    relation, explained = match, found[0].explained
    if double.any():
        second = found[1]
        match = torch.where(double, (match + second.match) / 2, match)
        vivid = torch.where(double, (vivid + second.vivid * second.match) / 2, vivid)
        relation = torch.where(double, _relation(scenes, found[0], second), relation)
        explained = torch.where(
            double[:, None, None], torch.maximum(explained, second.explained), explained
        )
    clutter = ((something * (1 - explained)).sum(dim=(1, 2)) / 45).clamp(max=1.5)
    return (
        torch.stack([match, relation, vivid, clutter], dim=1)
        .numpy()
        .astype(np.float64)
        .reshape(n, len(ASPECTS))
    )


@dataclass(frozen=True)
class _Found:
    match: torch.Tensor  # how well the best place fits, 0 to 1
    vivid: torch.Tensor  # how full the colour is there, 0 to 1
    x: torch.Tensor
    y: torch.Tensor
    explained: torch.Tensor  # the pixels that the object accounts for


def _find(
    scenes: Sequence[Scene],
    i: int,
    something: torch.Tensor,
    nearest: torch.Tensor,
    fullness: torch.Tensor,
) -> _Found:
    """Search every place and size for the i-th object of each scene (the first where there is no i-th)."""
    things = [scene.objects[min(i, len(scene.objects) - 1)] for scene in scenes]
    colour = torch.tensor([thing[0] for thing in things])
    shape = torch.tensor([thing[1] for thing in things])
    n, rows = len(things), torch.arange(len(things))
    mask = something * (nearest == colour[:, None, None])
    overlap = torch.empty(n, len(RADII), SIZE, SIZE)
    nearby = torch.empty_like(overlap)
    for kind in shape.unique():
        at = shape == kind
        flat = mask[at][:, None]
        overlap[at] = functional.conv2d(flat, _OUTLINE[kind][:, None], padding=KERNEL // 2)
        nearby[at] = functional.conv2d(flat, _AROUND[kind][:, None], padding=KERNEL // 2)
    area = _OUTLINE.sum(dim=(2, 3))[shape][..., None, None]
    fit = (overlap / (area + nearby - overlap)).flatten(1)
    best, place = fit.max(dim=1)
    size, y, x = place // (SIZE * SIZE), (place // SIZE) % SIZE, place % SIZE
    radius = torch.tensor(RADII, dtype=torch.float32)[size].numpy()
    covered = torch.from_numpy(
        coverage(shape.numpy(), x.numpy().astype(float), y.numpy().astype(float), radius)
    )
    weight = covered * mask
    vivid = (fullness[rows, colour].clamp(0, 1) * weight).sum(dim=(1, 2)) / weight.sum(
        dim=(1, 2)
    ).clamp_min(1.0)
    match = ((best - 0.45) / 0.35).clamp(0, 1)
    grown = functional.max_pool2d((covered > 0.05).float()[:, None], 3, stride=1, padding=1)[:, 0]
    explained = grown * mask
    return _Found(match, ((vivid - 0.2) / 0.7).clamp(0, 1), x.float(), y.float(), explained)


def _relation(scenes: Sequence[Scene], first: _Found, second: _Found) -> torch.Tensor:
    """Whether the objects lie as asked, 0 to 1; an object that is not there lies nowhere."""
    relation = torch.tensor([scene.relation for scene in scenes])
    dx, dy = second.x - first.x, second.y - first.y
    wanted = torch.stack([dy, -dy, dx, -dx], dim=1).gather(1, relation.clamp(min=0)[:, None])[:, 0]
    across = torch.where(relation < 2, dx.abs(), dy.abs())
    return ((wanted - across) / 6).clamp(0, 1) * torch.minimum(first.match, second.match)

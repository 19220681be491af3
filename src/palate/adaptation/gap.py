"""What was learnt, on pictures that were held out: errors with and without adapter, and the identifier gap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from palate.adaptation.denoiser import Denoiser
from palate.adaptation.examples import Examples, TextStore
from palate.adaptation.latents import Ints, Latents
from palate.runs import seed_for

CHUNK = 32
"""Pictures per forward."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The pictures that were kept aside, and the noise that they are measured at."""

    latents: Latents
    texts: TextStore
    examples: Examples
    rows: Mapping[str, list[int]]
    """By role."""
    draws: int = 8
    """Noise levels for each picture, spread evenly."""
    seed: int = 0


@torch.no_grad()
def identifier_gap(denoiser: Denoiser, held_out: HeldOut) -> dict[str, dict[str, Any]]:
    """Measure how the identifier in the caption changes the denoising error, per role.

    For each picture: the mean squared error with the identifier minus without, at the same noise
    and times. **Below 0 means that the identifier helps to explain the picture**: after a good adaptation rejected
    pictures are below 0 and preferred ones above. Where the method reads no identifier, the gap is 0 and says nothing.

    Returns:
        By role: ``gap`` (the mean), ``standard_error`` over pictures, ``images``, and ``error``
        (the mean error without the identifier).
    """
    found: dict[str, dict[str, Any]] = {}
    for role, plain, marked in _by_role(denoiser, held_out):
        change = marked - plain
        found[role] = {
            "gap": float(change.mean()),
            "standard_error": _standard_error(change),
            "images": len(change),
            "error": float(plain.mean()),
        }
    return found


def held_out_errors(denoiser: Denoiser, held_out: HeldOut) -> dict[str, Any]:
    """Measure each role's denoising error of held-out pictures, at their own captions and the same noise as ever."""
    return {
        role: {
            "error": float(plain.mean()),
            "standard_error": _standard_error(plain),
            "images": len(plain),
        }
        for role, plain, _ in _by_role(denoiser, held_out)
    }


Numbers = np.ndarray[Any, np.dtype[np.float64]]


def _standard_error(values: Numbers) -> float | None:
    """Give the standard error of a mean; None of one value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _by_role(denoiser: Denoiser, held_out: HeldOut) -> Iterator[tuple[str, Numbers, Numbers]]:
    """Give each role's errors without and with the identifier, by picture."""
    for role, mine in held_out.rows.items():
        if not mine:
            continue
        rows = np.asarray(mine, dtype=np.int64)
        plain, marked = np.zeros(len(rows)), np.zeros(len(rows))
        shapes = held_out.latents.shape[held_out.examples.latent[rows]]
        for shape in np.unique(shapes):
            same = np.flatnonzero(shapes == shape)
            for places in np.array_split(same, -(-len(same) // CHUNK)):
                plain[places], marked[places] = _errors(denoiser, held_out, rows[places])
        yield role, plain, marked


@torch.no_grad()
def _errors(denoiser: Denoiser, held_out: HeldOut, rows: Ints) -> tuple[Numbers, Numbers]:
    """Give the errors of pictures of one shape without and with the identifier, meaned over the noise levels."""
    examples, latents, device = held_out.examples, held_out.latents, denoiser.device
    pictures = examples.latent[rows]
    mean, _ = latents.moments(pictures)
    clean = latents.scaled(mean).to(device)
    levels = len(denoiser.noising)
    plain, marked = torch.zeros(len(rows)), torch.zeros(len(rows))
    same = bool((examples.marked[rows] == examples.unmarked[rows]).all())
    for number in range(held_out.draws):
        seeds = [
            seed_for("gap", held_out.seed, examples.images[picture], number) for picture in pictures
        ]
        generators = [torch.Generator().manual_seed(one) for one in seeds]
        noise = torch.stack([torch.randn(clean[0].shape, generator=one) for one in generators])
        # the middle of each of `draws` equal parts of the noise levels
        level = torch.full(
            (len(rows),), int((number + 0.5) * levels / held_out.draws), device=device
        )
        for sums, captions in ((plain, examples.unmarked), (marked, examples.marked)):
            if same and sums is marked:
                continue
            text = held_out.texts[captions[rows]]
            errors = denoiser.errors(clean, noise.to(device), level, text)
            sums.add_(errors.cpu(), alpha=1 / held_out.draws)
    if same:
        marked = plain
    return plain.double().numpy(), marked.double().numpy()

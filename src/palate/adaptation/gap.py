"""The identifier gap: whether the denoiser has learnt what the identifier means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from palate.adaptation.examples import Examples, TextStore
from palate.adaptation.latents import Latents
from palate.adaptation.methods import Noising, denoising_errors
from palate.runs import seed_for

CHUNK = 32
"""Pictures per forward."""


@torch.no_grad()
def identifier_gap(
    unet: Any,
    noising: Noising,
    latents: Latents,
    texts: TextStore,
    examples: Examples,
    rows: Mapping[str, list[int]],
    *,
    draws: int = 8,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Measure how the identifier in the caption changes the denoising error, per role.

    For each picture: the mean squared error with the identifier minus without, at the same noise
    and times, ``draws`` of them spread evenly over the noise levels. **Below 0 means that the
    identifier helps to explain the picture**: after a good adaptation rejected pictures are below
    0 and preferred ones above.

    Returns:
        By role: ``gap`` (the mean), ``standard_error`` over pictures, ``images``, and ``error``
        (the mean error without the identifier).
    """
    found = {}
    for role, mine in rows.items():
        if not mine:
            continue
        parts = [
            _differences(unet, noising, latents, texts, examples, part, draws, seed)
            for part in np.array_split(np.asarray(mine), -(-len(mine) // CHUNK))
        ]
        plain, change = (np.concatenate(part) for part in zip(*parts, strict=True))
        spread = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan
        found[role] = {
            "gap": float(change.mean()),
            "standard_error": float(spread),
            "images": len(change),
            "error": float(plain.mean()),
        }
    return found


def _differences(
    unet: Any,
    noising: Noising,
    latents: Latents,
    texts: TextStore,
    examples: Examples,
    rows: np.ndarray[Any, np.dtype[np.int64]],
    draws: int,
    seed: int,
) -> tuple[np.ndarray[Any, np.dtype[Any]], np.ndarray[Any, np.dtype[Any]]]:
    """Give each picture's error without the identifier, and the change that the identifier makes."""
    device = unet.device
    mean, _ = latents.moments(examples.latent[rows])
    clean = (mean - latents.shift) * latents.scaling
    levels = len(noising.cumulative)
    plain, marked = torch.zeros(len(rows)), torch.zeros(len(rows))
    for number in range(draws):
        seeds = [
            seed_for("gap", seed, examples.images[examples.latent[row]], number) for row in rows
        ]
        generators = [torch.Generator().manual_seed(one) for one in seeds]
        noise = torch.stack([torch.randn(clean[0].shape, generator=one) for one in generators])
        # the middle of each of `draws` equal parts of the noise levels
        times = torch.full((len(rows),), int((number + 0.5) * levels / draws), device=device)
        noisy, target = noising.add(clean.to(device), noise.to(device), times)
        for sums, captions in ((plain, examples.unmarked), (marked, examples.marked)):
            text = texts[captions[rows]].to(device)
            sums.add_(denoising_errors(unet, noisy, times, text, target).cpu(), alpha=1 / draws)
    return plain.double().numpy(), (marked - plain).double().numpy()

"""The sampling loop: noise in, images out, over the pipeline's own components.

It computes what ``StableDiffusionPipeline.__call__`` computes (a test holds the two equal, bit for bit) and leaves out
what that call repeats for every batch: tokenising and encoding prompts that were encoded before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one batch is sampled: everything but the prompts and the seeds."""

    steps: int
    guidance: float
    height: int
    width: int
    eta: float = 0.0


def in_batches(prompts: Sequence[str], size: int, *, mixed: bool) -> list[list[int]]:
    """Give the places of some images batch by batch, in their order.

    Unless ``mixed``, a batch has images of one prompt only: it ends where the prompt changes.

    >>> in_batches(["a", "a", "a", "b"], 2, mixed=True)
    [[0, 1], [2, 3]]
    >>> in_batches(["a", "a", "a", "b"], 2, mixed=False)
    [[0, 1], [2], [3]]
    """
    batches: list[list[int]] = []
    for place, prompt in enumerate(prompts):
        last = batches[-1] if batches else []
        if last and len(last) < size and (mixed or prompts[last[0]] == prompt):
            last.append(place)
        else:
            batches.append([place])
    return batches


def initial_noise(
    pipeline: Any, seeds: Sequence[int], height: int, width: int
) -> tuple[Float[Tensor, "images channels rows columns"], list[torch.Generator]]:
    """Draw each image's noise from its own seed, on the CPU so that every device starts from the same numbers.

    The generators come back too: a sampler that adds noise on the way goes on drawing from the image's own one.
    """
    factor = pipeline.vae_scale_factor
    shape = (1, pipeline.unet.config.in_channels, height // factor, width // factor)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noise = [torch.randn(shape, generator=generator) for generator in generators]
    return torch.cat(noise), generators


@torch.inference_mode()
def sample(
    pipeline: Any,
    prompt: Float[Tensor, "images tokens dim"],
    negative: Float[Tensor, "one tokens dim"],
    seeds: Sequence[int],
    how: Sampling,
) -> tuple[Float[Tensor, "images 3 height width"], list[bool]]:
    """Generate one image per row, in [0, 1], and say which ones the pipeline's checker blackened.

    ``prompt`` and ``negative`` are text embeddings (see ``generation.text``); ``negative`` is one
    row shared by all. The scheduler is the pipeline's own. Guidance: Ho & Salimans, arXiv
    2207.12598, as in diffusers: ``negative + guidance * (prompt - negative)``.
    """
    device, dtype = pipeline.unet.device, pipeline.unet.dtype
    distilled = pipeline.unet.config.time_cond_proj_dim is not None
    guided = how.guidance > 1 and not distilled
    text = torch.cat([negative.expand(len(prompt), -1, -1), prompt]) if guided else prompt
    text = text.to(device, dtype)
    latents, generators = initial_noise(pipeline, seeds, how.height, how.width)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(how.steps, device=device)
    latents = latents.to(device, dtype) * scheduler.init_noise_sigma
    extra = pipeline.prepare_extra_step_kwargs(generators, how.eta)
    condition = _guidance_embedding(pipeline, how.guidance, len(prompt)) if distilled else None
    for time in scheduler.timesteps:
        doubled = torch.cat([latents, latents]) if guided else latents
        predicted = pipeline.unet(
            scheduler.scale_model_input(doubled, time),
            time,
            encoder_hidden_states=text,
            timestep_cond=condition,
            return_dict=False,
        )[0]
        if guided:
            without, with_prompt = predicted.chunk(2)
            predicted = without + how.guidance * (with_prompt - without)
        latents = scheduler.step(predicted, time, latents, **extra, return_dict=False)[0]
    return decode(pipeline, latents)


@torch.inference_mode()
def decode(
    pipeline: Any, latents: Float[Tensor, "images channels rows columns"]
) -> tuple[Float[Tensor, "images 3 height width"], list[bool]]:
    """Turn latents into images in [0, 1].

    A pipeline with a safety checker applies it: what it flags comes out black, and marked.
    """
    pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    images = (pixels * 0.5 + 0.5).clamp(0, 1)
    _, flags = pipeline.run_safety_checker(pixels.clone(), pixels.device, latents.dtype)
    flagged = [bool(flag) for flag in flags] if flags is not None else [False] * len(images)
    images[torch.tensor(flagged, device=images.device)] = 0
    return images, flagged


def to_bytes(
    images: Float[Tensor, "images 3 height width"],
) -> UInt8[Tensor, "images height width 3"]:
    """Round images in [0, 1] to 8 bit, the channel last, as Pillow takes them."""
    return (images.permute(0, 2, 3, 1).float() * 255).round().to(torch.uint8).cpu()


def _guidance_embedding(pipeline: Any, guidance: float, rows: int) -> Tensor:
    """Give the guidance as an input, for models that were distilled to take it so."""
    scale = torch.tensor(guidance - 1).repeat(rows)
    embedding: Tensor = pipeline.get_guidance_scale_embedding(
        scale, embedding_dim=pipeline.unet.config.time_cond_proj_dim
    ).to(device=pipeline.unet.device, dtype=pipeline.unet.dtype)
    return embedding

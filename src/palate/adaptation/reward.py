"""The method ``reward``: images made in every step, and the gradient of their score (DRaFT-1 and ReFL)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palate.adaptation.denoiser import Denoiser
from palate.adaptation.settings import RewardSettings
from palate.errors import CheckpointError, SettingsError
from palate.generation.families import Conditions, Family
from palate.runs import seed_for
from palate.scoring.catalog import load
from palate.scoring.scorer import Scorer
from palate.training.processes import Processes


@dataclass(slots=True)
class Rewarding:
    """Makes images of prompts with the adapter, and differentiates their score through the last step.

    Earlier steps have no gradient. The estimate of the clean image at the last step (DRaFT-1: Clark et al., 2023,
    arXiv 2309.17400, section 3; for ReFL at a step drawn from the last few: Xu et al., 2023, arXiv 2304.05977,
    algorithm 1) is decoded and scored as it is, not cut to [0, 1] first as ReFL's code does: beyond the edge that
    has no gradient.
    """

    pipeline: Any
    denoiser: Denoiser
    scorer: Scorer
    watch: Scorer | None
    prompts: Sequence[str]
    settings: RewardSettings
    size: tuple[int, int]
    seed: int
    processes: Processes

    def losses(self, step: int, parts: int = 1) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Give this process's share of minus the mean reward of a step, in parts, and both scorers' means to log."""
        how = self.settings
        draw = torch.Generator("cpu").manual_seed(seed_for("reward", self.seed, step))
        chosen = torch.randint(0, len(self.prompts), (how.images,), generator=draw)
        noise = torch.randn((how.images, *self._latent()), generator=draw)
        late = int(torch.randint(0, how.late, (1,), generator=draw)) if how.variant == "refl" else 0
        own = torch.arange(self.processes.number, how.images, self.processes.count)
        for mine in own.tensor_split(min(parts, len(own))):
            prompts = [self.prompts[number] for number in chosen[mine].tolist()]
            pixels = self.make(prompts, noise[mine], how.sampling_steps - 1 - late)
            rewards = self.scorer.forward(pixels, prompts)
            told = {"reward": self.processes.gather(rewards.detach()).mean()}
            if self.watch is not None:
                with torch.no_grad():
                    seen = self.watch.forward(pixels.detach().clamp(0, 1), prompts)
                told["watch"] = self.processes.gather(seen).mean()
            share = rewards.sum() / how.images * self.processes.count
            yield -how.weight / how.unit * share, told

    def make(
        self, prompts: Sequence[str], noise: Tensor, last: int
    ) -> Float[Tensor, "images 3 height width"]:
        """Give images in about [0, 1] as they are estimated at step ``last``, counted from 0; that step has gradients."""
        from diffusers import DDIMScheduler

        # where a base's scheduler has no such setting, DDIM's own would cut latents to [-1, 1]
        config = {**self.pipeline.scheduler.config, "clip_sample": False, "thresholding": False}
        scheduler = DDIMScheduler.from_config(config)
        scheduler.set_timesteps(self.settings.sampling_steps)
        family, device = self.denoiser.family, self.denoiser.device
        with torch.no_grad():
            told = family.encode(self.pipeline, list(prompts))
            empty = self._empty(len(prompts))
        latents = noise.to(device) * scheduler.init_noise_sigma
        for number, time in enumerate(scheduler.timesteps[: last + 1].tolist()):
            levels = torch.full((len(prompts),), int(time), device=device)
            if number == last:
                predicted = self._guided(latents, levels, told, empty)
                latents = self.denoiser.noising.clean(latents, predicted, levels)
                break
            with torch.no_grad():
                predicted = self._guided(latents, levels, told, empty)
                latents = scheduler.step(predicted, int(time), latents, return_dict=False)[0]
        vae = self.pipeline.vae
        shift = vae.config.get("shift_factor") or 0.0
        decoded: Tensor = vae.decode(
            (latents / vae.config.scaling_factor + shift).to(vae.dtype), return_dict=False
        )[0]
        return decoded.float() * 0.5 + 0.5

    def _guided(
        self, latents: Tensor, levels: Tensor, told: Conditions, empty: Conditions
    ) -> Tensor:
        """Give the denoiser's answer, with guidance where it is above 1 (Ho & Salimans, 2022, arXiv 2207.12598)."""
        predicted = self.denoiser.predict(latents, levels, told, self.size)
        scale = self.settings.guidance
        if scale <= 1:
            return predicted
        without = self.denoiser.predict(latents, levels, empty, self.size)
        return without + scale * (predicted - without)

    def _empty(self, count: int) -> Conditions:
        """Give what the denoiser is told without a prompt: as the pipeline's call has it, for SDXL mostly zeros."""
        empty = self.denoiser.family.encode(self.pipeline, [""] * count)
        if not self.pipeline.config.get("force_zeros_for_empty_prompt"):
            return empty
        pooled = None if empty.pooled is None else torch.zeros_like(empty.pooled)
        return Conditions(torch.zeros_like(empty.states), pooled)

    def _latent(self) -> tuple[int, int, int]:
        """Give the shape of one image's latents."""
        factor = self.denoiser.factor
        channels = self.pipeline.vae.config.latent_channels
        return channels, self.size[0] // factor, self.size[1] // factor


def load_scorers(settings: RewardSettings, device: torch.device) -> tuple[Scorer, Scorer | None]:
    """Load the scorer that is learnt from and the one that watches.

    Raises:
        SettingsError: both are the same function.
        CheckpointError: an unknown scorer, or one that cannot be loaded.
    """
    scorer = load(settings.scorer, settings.weights, device=device.type)
    if not settings.watch:
        return scorer, None
    watch = load(settings.watch, settings.watch_weights, device=device.type)
    if watch.fingerprint == scorer.fingerprint:
        raise SettingsError(
            "reward.scorer and reward.watch are the same scorer, expected another one to watch: "
            "the one that is learnt from cannot tell whether the images are better"
        )
    return scorer, watch


def check_rewardable(family: Family, settings: RewardSettings, processes: int) -> None:
    """Refuse a generator that cannot be sampled here, and images that cannot be shared out evenly."""
    if family.flow:
        raise CheckpointError(
            f"the method 'reward' samples diffusion models only, expected Stable Diffusion 1, 2 or XL, "
            f"not the family '{family.name}'"
        )
    if settings.images % processes:
        raise SettingsError(
            f"reward.images is {settings.images}, expected a multiple of {processes}, the number of processes"
        )

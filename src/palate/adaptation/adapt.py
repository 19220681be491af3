"""Adapt: labelled images to a LoRA that makes a generator better, by the method of the HPS paper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from palate.adaptation.examples import Examples, TextStore, labels_hash, make_examples
from palate.adaptation.gap import identifier_gap
from palate.adaptation.latents import ImageFile, Latents, encode_latents
from palate.adaptation.lora_files import add_lora, save_adapter, without_lora
from palate.adaptation.methods import (
    METHODS,
    Noising,
    check_identifier,
    denoising_errors,
    noising_of,
)
from palate.adaptation.mixture import plan_batches
from palate.data.records import ROLES
from palate.errors import CheckpointError, SettingsError
from palate.generation.adapters import FILE_NAME
from palate.generation.generator import Generator, load_generator
from palate.generation.sampling import image_size
from palate.runs import hash_text, seed_for, start_run, write_atomic
from palate.training.loop import Fitted, LoopSettings, Losses, fit


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleWeights:
    """The expected share of each role in a batch; they need not add up to 1.

    The defaults are the shares in HPS's released data, where the three sets were concatenated.
    """

    preferred: float = 0.145
    rejected: float = 0.082
    regularisation: float = 0.773

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        values = [getattr(self, role) for role in ROLES]
        if min(values) < 0 or sum(values) == 0:
            raise SettingsError(f"role_weights are {values}, expected 0 or more and one above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptSettings:
    """How a generator is adapted; the defaults are HPS's released script (rank 32 in the paper)."""

    method: Literal["identifier"] = "identifier"
    identifier: str = "Weird image. "
    rank: int = 4
    alpha: float | None = None
    """The adapter counts alpha / rank; None is alpha = rank."""
    role_weights: RoleWeights = field(default_factory=RoleWeights)
    steps: int = 10_000
    batch: int = 40
    learning_rate: float = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    clip: float = 1.0
    """The norm of all gradients is cut to this; 0 never cuts."""
    ema: float = 0.0
    """Decay of a moving average of the adapter that is saved in its place; 0 is none, as HPS."""
    min_snr: float = 0.0
    """Weigh noise levels by min(SNR, this) / SNR; 0 weighs all alike, as HPS. A base that was trained
    so should be adapted so."""
    caption_dropout: float = 0.0
    """Share of captions, of any role, that are replaced by the empty text."""
    identifier_alone: float = 0.0
    """Share of rejected captions that are the identifier alone, as the negative prompt will be."""
    size: int | None = None
    """Side of the square that pictures are cut to, in pixels; None is the model's own size."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the denoiser under autocast; the adapter and its optimiser stay float32."""
    hold_out: int = 0
    """Preferred and rejected rows each that are kept aside to measure the identifier gap."""
    guidance_hint: float = 7.5
    """Written into the adapter's file for those who generate with it."""
    seed: int = 42
    save_every: int = 500
    log_every: int = 50

    def __post_init__(self) -> None:
        """Refuse numbers that make no adaptation."""
        for name in ("rank", "batch"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("caption_dropout", "identifier_alone"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected from 0 to 1")
        if self.min_snr < 0:
            raise SettingsError(f"min_snr is {self.min_snr}, expected 0 or more")
        if self.alpha is not None and self.alpha <= 0:
            raise SettingsError(f"alpha is {self.alpha}, expected above 0")
        self.loop()

    @property
    def weights(self) -> dict[str, float]:
        """Give the share of each role by name."""
        return {role: getattr(self.role_weights, role) for role in ROLES}

    def loop(self) -> LoopSettings:
        """Give the part that the training loop reads; AdamW's betas and epsilon are HPS's."""
        names = (
            "steps",
            "learning_rate",
            "schedule",
            "warmup_steps",
            "weight_decay",
            "clip",
            "ema",
        )
        return LoopSettings(
            **{name: getattr(self, name) for name in (*names, "save_every", "log_every")},
            beta2=0.999,
            epsilon=1e-8,
        )


def adapt(
    labels: Any,
    files: Mapping[str, ImageFile],
    base: Path,
    out: Path,
    settings: AdaptSettings | None = None,
    *,
    cache: Path | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Adapt a generator to labelled images; killed and called again, it ends bit for bit the same.

    Args:
        labels: a labels table.
        files: the pictures by key, from ``image_files``.
        base: a Stable Diffusion folder in diffusers format; it is not changed.
        out: gets ``pytorch_lora_weights.safetensors``, ``curves.json`` and ``run.json``.
        settings: see ``AdaptSettings``.
        cache: where latents are kept and found again; None keeps them in ``out``.
        device: where it runs.
        overwrite: empty ``out`` first if it holds a run.

    Returns:
        The run's result: rows, losses per role, the identifier gap, the adapter's file name.

    Raises:
        DataError: labels of images that are not there, or no rows of a role with a weight.
        SettingsError: an identifier that the model cannot read whole.
        CheckpointError: a base that cannot be loaded, or that cannot use a negative prompt.
    """
    settings = settings or AdaptSettings()
    generator = load_generator(base, device=device)
    method = METHODS[settings.method]
    examples = make_examples(
        labels, files, method, settings.identifier, settings.hold_out, settings.seed
    )
    _check(generator, examples, settings)
    plan = plan_batches(
        examples.training, settings.weights, settings.steps, settings.batch, settings.seed
    )
    inputs = {
        "base": generator.base,
        "labels": labels_hash(labels),
        "pictures": hash_text(*(files[image].sha256 for image in examples.images)),
    }
    with start_run("adapt", out, settings, inputs, overwrite=overwrite) as run:
        if run.finished:
            return run.result
        side = settings.size
        size = image_size(generator.pipeline) if side is None else (side, side)
        ordered = [files[image] for image in examples.images]
        latents = encode_latents(generator.pipeline, base, ordered, size, cache or out / "latents")
        texts = TextStore(generator.pipeline, examples.texts)
        work = _Work(generator, examples, latents, texts, plan, settings)
        fitted = work.train(out)
        save_adapter(generator.pipeline.unet, out, _details(generator, settings, inputs))
        curve = json.dumps([_without_nan(point) for point in fitted.train], indent=1)
        write_atomic(out / "curves.json", curve + "\n")
        run.finish(work.describe(fitted), files=[FILE_NAME, "curves.json"])
        return run.result


class _Work:
    """What a step reads: the base with its LoRA, latents, texts and the plan."""

    def __init__(
        self,
        generator: Generator,
        examples: Examples,
        latents: Latents,
        texts: TextStore,
        plan: np.ndarray[Any, np.dtype[np.int64]],
        settings: AdaptSettings,
    ) -> None:
        self.examples, self.latents, self.texts = examples, latents, texts
        self.plan, self.settings = plan, settings
        self.unet = generator.pipeline.unet
        self.noising: Noising = noising_of(generator.pipeline)
        alpha = settings.alpha if settings.alpha is not None else float(settings.rank)
        self.parameters = add_lora(self.unet, settings.rank, alpha, settings.seed)
        self.gap: dict[str, Any] = {}

    def train(self, out: Path) -> Fitted:
        """Train the LoRA in place, and measure the identifier gap before and after."""
        self.unet.train()
        fitted = fit(self.parameters, self.losses_at, self.settings.loop(), out, label="adapting")
        self.unet.eval()
        if self.settings.hold_out:
            with without_lora(self.unet):
                before = self._measure_gap()
            self.gap = {"before": before, "after": self._measure_gap()}
        return fitted

    def losses_at(self, step: int) -> Losses:
        """Give a step's loss: the weighted mean over its rows, and the plain mean of each role.

        Every random number has the address (seed, step), so the step needs no state of any kind.
        """
        device, rows = self.unet.device, self.plan[step]
        draw = torch.Generator("cpu").manual_seed(seed_for("adapt", self.settings.seed, step))
        latents = self.latents.draw(self.examples.latent[rows], draw).to(device)
        noise = torch.randn(latents.shape, generator=draw).to(device)
        levels = len(self.noising.cumulative)
        times = torch.randint(0, levels, (len(rows),), generator=draw).to(device)
        text = self.texts[self._captions(rows, draw)].to(device)
        noisy, target = self.noising.add(latents, noise, times)
        precision = getattr(torch, self.settings.precision)
        errors = denoising_errors(self.unet, noisy, times, text, target, precision)
        weight, role = (
            part[rows].to(device) for part in (self.examples.weight, self.examples.role)
        )
        if self.settings.min_snr:
            weight = weight * self.noising.min_snr_weights(times, self.settings.min_snr)
        yield (errors * weight).mean(), _by_role(errors.detach(), role)

    def _captions(self, rows: np.ndarray[Any, np.dtype[Any]], draw: torch.Generator) -> Tensor:
        """Choose each row's text: its caption, the identifier alone, or nothing."""
        luck = torch.rand((2, len(rows)), generator=draw)
        caption = self.examples.caption[rows]
        alone = luck[0] < self.settings.identifier_alone
        caption = torch.where(alone, self.examples.alone[rows], caption)
        return caption.masked_fill(luck[1] < self.settings.caption_dropout, 0)

    def _measure_gap(self) -> dict[str, dict[str, float]]:
        return identifier_gap(
            self.unet,
            self.noising,
            self.latents,
            self.texts,
            self.examples,
            self.examples.held_out,
            seed=self.settings.seed,
        )

    def describe(self, fitted: Fitted) -> dict[str, Any]:
        """Give the run's result."""
        seen = np.bincount(self.examples.role[self.plan.ravel()].numpy(), minlength=len(ROLES))
        rows = {role: len(mine) for role, mine in self.examples.training.items()}
        return {
            "adapter": FILE_NAME,
            "parameters": sum(part.numel() for part in self.parameters.values()),
            "rows": rows,
            "held_out": {role: len(mine) for role, mine in self.examples.held_out.items()},
            "times_seen": {
                role: round(int(seen[number]) / rows[role], 2) if rows[role] else None
                for number, role in enumerate(ROLES)
            },
            "truncated_captions": len(self.texts.tokens.truncated),
            "loss_first": _without_nan(fitted.train[0]),
            "loss_last": _without_nan(fitted.train[-1]),
            "identifier_gap": self.gap,
        }


def _check(generator: Generator, examples: Examples, settings: AdaptSettings) -> None:
    """Refuse a base or an identifier that the method cannot work with."""
    pipeline = generator.pipeline
    if pipeline.unet.config.time_cond_proj_dim is not None:
        raise CheckpointError(
            f"{generator.name}: takes its guidance as an input and reads no negative prompt, "
            "which the method 'identifier' needs"
        )
    size = settings.size
    if size is not None and size % (8 * pipeline.vae_scale_factor):
        step = 8 * pipeline.vae_scale_factor
        raise SettingsError(f"size is {size}, expected a multiple of {step}")
    captions = sorted({examples.texts[number] for number in examples.unmarked.tolist()})
    check_identifier(pipeline, settings.identifier, captions)


def _details(
    generator: Generator, settings: AdaptSettings, inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Give what the adapter's file says about itself."""
    from palate import __version__

    return {
        "method": settings.method,
        "identifier": settings.identifier,
        "base": generator.base,
        "base_name": generator.name,
        "rank": settings.rank,
        "alpha": settings.alpha if settings.alpha is not None else float(settings.rank),
        "guidance": settings.guidance_hint,
        "labels": inputs["labels"],
        "steps": settings.steps,
        "seed": settings.seed,
        "palate": __version__,
    }


def _by_role(errors: Tensor, role: Tensor) -> dict[str, Tensor]:
    """Give the mean error of each role; NaN where the batch has none of it."""
    sums = errors.new_zeros(len(ROLES)).index_add_(0, role, errors)
    means = sums / torch.bincount(role, minlength=len(ROLES))
    return dict(zip(ROLES, means.unbind(), strict=True))


def _without_nan(point: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in point.items()}

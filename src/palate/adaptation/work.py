"""What a step of an adaptation computes: the loss of its batch, from random numbers that the step itself names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palate.adaptation.denoiser import Denoiser
from palate.adaptation.examples import Examples, TextStore
from palate.adaptation.latents import Ints, Latents
from palate.adaptation.methods import Errors, Method
from palate.adaptation.reward import Rewarding
from palate.adaptation.settings import AdaptSettings
from palate.data.records import ROLES
from palate.generation.families import Conditions
from palate.runs import seed_for
from palate.training.loop import Losses
from palate.training.processes import Processes


@dataclass(frozen=True, slots=True)
class Drawn:
    """A step's batch over all processes, with its chance: whatever a unit has two of, both get the same."""

    rows: Ints
    """"units sides"."""
    posterior: list[Tensor]
    noise: list[Tensor]
    """Of each unit, in the size of its latents: for the autoencoder's draw and for the denoiser."""
    levels: Int[Tensor, " units"]
    captions: Int[Tensor, "units sides"]


@dataclass(slots=True)
class Work:
    """Labelled pictures before a denoiser.

    Every random number has the address (seed, step), so that a step needs no state of any kind, and each process
    draws for all of them and takes its own.
    """

    method: Method
    denoiser: Denoiser
    examples: Examples
    latents: Latents
    texts: TextStore
    plan: Ints
    """Which unit stands in which place of which step: "steps batch"."""
    settings: AdaptSettings
    processes: Processes
    rewarding: Rewarding | None = None

    def losses_at(self, step: int) -> Losses:
        """Give this process's share of a step's loss, in its parts: the weighted mean over the units of the batch.

        Logs the plain mean error of each role, and what the method has to say.
        """
        drawn = self.draw(step)
        batch, many = self.plan.shape[1], self.settings.accumulate
        own = np.arange(self.processes.number, batch, self.processes.count)
        factor = self.processes.count * (self.settings.reward.supervised if self.rewarding else 1)
        for number, mine in enumerate(np.array_split(own, many) if factor else []):
            last = number + 1 == many and not self.rewarding
            with self.processes.hold(self.denoiser.module, on=not last):
                errors = self.errors(drawn, mine)
                losses, told = self.method.loss(errors, self.settings.beta)
                weight = self._weights(drawn, mine).to(losses.device)
                total = (losses * weight).sum() / batch * factor
                yield total, {**self._by_role(errors), **told}
        if self.rewarding:
            yield from self._rewards(step)

    def _rewards(self, step: int) -> Losses:
        """Give the parts of the reward's loss; only at the last one are gradients exchanged."""
        assert self.rewarding is not None
        own = self.settings.reward.images // self.processes.count
        many = min(self.settings.accumulate, own)
        losses = self.rewarding.losses(step, many)
        for number in range(many):
            with self.processes.hold(self.denoiser.module, on=number + 1 < many):
                yield next(losses)

    def draw(self, step: int) -> Drawn:
        """Draw all that a step leaves to chance."""
        rows = self.examples.units[self.plan[step]]
        first = self.examples.latent[rows[:, 0]]
        draw = torch.Generator("cpu").manual_seed(seed_for("adapt", self.settings.seed, step))
        posterior = self.latents.noise(first, draw)
        noise = self.latents.noise(first, draw)
        levels = self.denoiser.noising.draw(len(rows), self.settings.noise_levels, draw)
        return Drawn(rows, posterior, noise, levels, self._captions(rows, draw))

    def errors(self, drawn: Drawn, units: Ints) -> Errors:
        """Give the denoiser's errors on some units of a batch, one forward for each shape of pictures."""
        shapes = self.latents.shape[self.examples.latent[drawn.rows[units, 0]]]
        order, own, base = [], [], []
        for shape in np.unique(shapes):
            mine = units[shapes == shape]
            order.append(mine)
            given = self._given(drawn, mine)
            # the bare one first: going back through blocks that are computed twice needs the adapter on
            if self.method.reference:
                with self.denoiser.bare():
                    base.append(self.denoiser.errors(*given).view(-1, len(mine)).T)
            own.append(self.denoiser.errors(*given).view(-1, len(mine)).T)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))  # units come in rising order
        return Errors(
            own=torch.cat(own)[back],
            base=torch.cat(base)[back] if base else None,
            role=self.examples.role[drawn.rows[units]].to(self.denoiser.device),
            mean=self._mean,
        )

    def _given(self, drawn: Drawn, units: Ints) -> tuple[Tensor, Tensor, Tensor, Conditions]:
        """Give latents, noise, levels and text of units of one shape: all first sides, then all second ones."""
        device, sides = self.denoiser.device, drawn.rows.shape[1]
        rows = drawn.rows[units].T.reshape(-1)
        chosen = units.tolist()
        posterior = torch.stack([drawn.posterior[unit] for unit in chosen]).repeat(sides, 1, 1, 1)
        noise = torch.stack([drawn.noise[unit] for unit in chosen]).repeat(sides, 1, 1, 1)
        latents = self.latents.draw(self.examples.latent[rows], posterior)
        text = self.texts[drawn.captions[units].T.reshape(-1)]
        levels = drawn.levels[units].repeat(sides).to(device)
        return latents.to(device), noise.to(device), levels, text

    def _weights(self, drawn: Drawn, units: Ints) -> Float[Tensor, " units"]:
        """Give what each unit counts: its labels' weights, times its noise level's."""
        weight = self.examples.weight[drawn.rows[units]].prod(dim=1)
        if not self.settings.min_snr:
            return weight
        levels = drawn.levels[units].to(self.denoiser.device)
        by_level = self.denoiser.noising.min_snr_weights(levels, self.settings.min_snr)
        return weight.to(by_level.device) * by_level

    def _captions(self, rows: Ints, draw: torch.Generator) -> Int[Tensor, "units sides"]:
        """Choose each image's text: its caption, the identifier alone, or nothing."""
        luck = torch.rand((2, len(rows)), generator=draw)[..., None]
        caption = self.examples.caption[rows]
        alone = luck[0] < self.settings.identifier_alone
        caption = torch.where(alone, self.examples.alone[rows], caption)
        return caption.masked_fill(luck[1] < self.settings.caption_dropout, 0)

    def _mean(self, values: Tensor) -> Tensor:
        """Give the mean over all processes, each of which has as many values."""
        return self.processes.gather(values.detach()).mean()

    def _by_role(self, errors: Errors) -> dict[str, Tensor]:
        """Give the mean error of each role over all processes; NaN where the batch has none of it."""
        own = self.processes.gather(errors.own.detach()).flatten()
        role = self.processes.gather(errors.role).flatten()
        sums = own.new_zeros(len(ROLES)).index_add_(0, role, own)
        means = sums / torch.bincount(role, minlength=len(ROLES))
        return {name: means[ROLES.index(name)] for name in self.method.roles}

    def seen(self) -> dict[str, Any]:
        """Say how often the training saw an image of each role, on average."""
        rows = self.examples.units[self.plan.ravel()].ravel()
        shown = np.bincount(self.examples.role[rows].numpy(), minlength=len(ROLES))
        used = np.concatenate([np.asarray(units) for units in self.examples.training.values()])
        own = np.unique(self.examples.units[used.astype(np.int64)])
        there = np.bincount(self.examples.role[own].numpy(), minlength=len(ROLES))
        return {
            role: round(int(shown[number]) / int(there[number]), 2) if there[number] else None
            for number, role in enumerate(ROLES)
        }

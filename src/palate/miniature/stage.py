"""One stage of the pre-training: it can be stopped at any time, and it keeps its log."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


class Stage:
    """One model's training: optimiser, warm-up and cosine, moving average, saving and resuming, and a log."""

    def __init__(
        self,
        name: str,
        out: Path,
        model: torch.nn.Module,
        *,
        steps: int,
        rate: float,
        ema: float,
        flat_first: bool = False,
        fused: bool = False,
    ) -> None:
        """Begin, or go on from what `out` holds."""
        self.name, self.out, self.model, self.steps, self.decay = name, out, model, steps, ema
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98), fused=fused
        )
        warm, flat = min(300, steps // 10), 0.6 * steps if flat_first else 0
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser,
            lambda step: min(
                (step + 1) / warm,
                0.5 + 0.5 * math.cos(math.pi * min(1.0, max(0.0, step - flat) / (steps - flat))),
            ),
        )
        self.average = [parameter.detach().clone() for parameter in model.parameters()]
        self.step, self.seconds, self.log = 0, 0.0, list[dict[str, float]]()
        if self.state_file.exists():
            state = torch.load(self.state_file, weights_only=True)
            model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])
            self.average = state["average"]
            self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]

    @property
    def state_file(self) -> Path:
        """Where the stage saves itself."""
        return self.out / f"{self.name}.state.pt"

    def save(self) -> None:
        """Save everything that going on needs, all or nothing."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
            "log": self.log,
        }
        temporary = self.state_file.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.state_file)

    def run(self, loss_of: Callable[[int], dict[str, torch.Tensor]], every: int = 250) -> None:
        """Train to the end; `loss_of(step)` gives the loss under `loss` and whatever else is to be logged."""
        began, since, sums = time.monotonic(), self.step, dict[str, float]()
        while self.step < self.steps:
            values = loss_of(self.step)
            self.optimiser.zero_grad(set_to_none=True)
            values["loss"].backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
            self.step += 1
            decay = min(self.decay, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, [*self.model.parameters()], 1 - decay)
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach())
            if self.step % every == 0 or self.step == self.steps:
                self.seconds += time.monotonic() - began
                count, began = self.step - since, time.monotonic()
                entry = {"step": self.step, "seconds": round(self.seconds, 1)}
                entry |= {key: round(total / count, 5) for key, total in sums.items()}
                self.log.append(entry)
                say(self.name, entry)
                since, sums = self.step, {}
                self.save()

    def use_average(self) -> None:
        """Put the moving average into the model."""
        with torch.no_grad():
            for parameter, mean in zip(self.model.parameters(), self.average, strict=True):
                parameter.copy_(mean)


def say(name: str, facts: object) -> None:
    """Print one line of the log at once."""
    sys.stdout.write(f"{name} {json.dumps(facts)}\n")
    sys.stdout.flush()


def write_figures(out: Path, name: str, stage: Stage, **figures: object) -> None:
    """Write what a stage reached, with its log, beside its weights."""
    plain = {
        key: round(float(value), 4) if isinstance(value, float) else value
        for key, value in figures.items()
    }
    record = {
        "stage": name,
        "steps": stage.step,
        "seconds": round(stage.seconds),
        **plain,
        "log": stage.log,
    }
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    say(name, plain)

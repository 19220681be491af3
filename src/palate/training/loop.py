"""The only training loop: a trainer is its parameters and losses that are a function of the step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import torch
from torch import Tensor
from torch.nn import Parameter

from palate.errors import DataError, RunError, SettingsError
from palate.runs import atomic_path, track
from palate.training.processes import Processes

STATE = "state.pt"

Losses = Iterator[tuple[Tensor, Mapping[str, Tensor]]]
"""The parts of a step's loss, which add up to it, each with named numbers to log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """How parameters are moved.

    AdamW with a linear warm-up over ``warmup_steps`` to ``learning_rate``, then the ``schedule``: a
    cosine to zero at ``steps``, or constant. ``weight_decay`` spares vectors and numbers. The norm
    of all gradients is cut to ``clip`` (0: never). ``ema`` is the decay of a moving average of the
    parameters that replaces them in evaluation and in the result (0: none). The state is saved
    every ``save_every`` steps and the validation runs every ``evaluate_every``.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    warmup_steps: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = 1.0
    ema: float = 0.0
    save_every: int = 100
    evaluate_every: int = 50
    log_every: int = 10

    def __post_init__(self) -> None:
        """Refuse numbers outside their range."""
        for name in ("steps", "save_every", "evaluate_every", "log_every"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("weight_decay", "warmup_steps", "clip", "learning_rate", "epsilon"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name in ("beta1", "beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 up to below 1")


@dataclass(slots=True)
class Fitted:
    """What a training found: its curves, and the best parameters with their validation.

    ``train`` and ``validation`` hold one dictionary of numbers per point, with ``step`` counted
    from 1. ``best`` are the parameters with the highest ``best_value``, else the last ones.
    """

    train: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    best_value: float = -math.inf


def learning_rate(step: int, settings: LoopSettings) -> float:
    """Give the learning rate of a step, counted from 0."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    left = max(1, settings.steps - settings.warmup_steps)
    part = (step - settings.warmup_steps) / left
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * part))


def fit(
    parameters: Mapping[str, Parameter],
    losses_at: Callable[[int], Losses],
    settings: LoopSettings,
    folder: Path,
    *,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    after_step: Callable[[], None] | None = None,
    processes: Processes | None = None,
    label: str = "training",
) -> Fitted:
    """Train parameters in place, and go on where an interrupted training of this folder stopped.

    ``losses_at(step)`` yields the loss of a step, counted from 0, in one or more parts, with numbers to
    log, of which the mean over the parts counts; each part is differentiated before the next is asked for. It must depend on nothing but the step
    and the parameters: draw random numbers from a seed that contains the step. Then a training that was
    killed and resumed ends bit for bit as one that was not. ``evaluate`` is told how many steps were taken and gives
    validation numbers; the parameters with the highest ``accuracy`` are kept, where there is one. ``after_step`` runs after each update, for constraints.
    At the end the parameters hold the best values. Raises RunError if the loss, a score or a parameter is not finite;
    a state that was saved before stays as it is.

    Of several ``processes`` each gives its share of the loss, times their number; the first one writes.
    """
    state = _State.begin(parameters, settings, processes or Processes())
    file = folder / STATE
    if state.processes.same(file.is_file()):
        state.load(file)
    waiting: list[tuple[int, Tensor, Mapping[str, Tensor]]] = []
    for step in track(range(state.step, settings.steps), label):
        total, parts = state.update(losses_at(step), step)
        if after_step is not None:
            after_step()
        state.average()
        waiting.append((step + 1, total, parts))
        last = step + 1 == settings.steps
        if last or (step + 1) % settings.log_every == 0:
            state.log(waiting)
        if evaluate is not None and (last or (step + 1) % settings.evaluate_every == 0):
            state.evaluate(evaluate)
        if last or (step + 1) % settings.save_every == 0:
            state.log(waiting)
            state.save(file)
    return state.finish()


class _State:
    """Everything that moves: parameters, optimiser, average, curves and the best so far."""

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        optimiser: torch.optim.AdamW,
        settings: LoopSettings,
        processes: Processes,
    ) -> None:
        self.parameters, self.optimiser, self.settings = parameters, optimiser, settings
        self.processes = processes
        self.step, self.found = 0, Fitted()
        self.ema = self.values() if settings.ema else {}

    @classmethod
    def begin(
        cls, parameters: Mapping[str, Parameter], settings: LoopSettings, processes: Processes
    ) -> _State:
        """Make the optimiser; vectors and numbers (biases, norms, scales) do not decay."""
        if not parameters:
            raise SettingsError("nothing is trained: every part of the model is frozen")
        matrices = [value for value in parameters.values() if value.ndim >= 2]
        vectors = [value for value in parameters.values() if value.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
        )
        return cls(parameters, optimiser, settings, processes)

    def values(self) -> dict[str, Tensor]:
        """Copy the parameters."""
        return {name: value.detach().clone() for name, value in self.parameters.items()}

    def update(self, losses: Losses, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Take one step downhill; give the loss before it, and what is to be logged."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.settings)
        self.optimiser.zero_grad(set_to_none=True)
        totals: list[Tensor] = []
        told: dict[str, list[Tensor]] = {}
        for total, parts in losses:
            self.processes.backward(total)
            totals.append(total.detach())
            for name, value in parts.items():
                told.setdefault(name, []).append(value.detach())
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.clip)
        self.optimiser.step()
        self.step = step + 1
        means = {name: torch.stack(values).nanmean() for name, values in told.items()}
        return torch.stack(totals).sum(), means

    @torch.no_grad()
    def average(self) -> None:
        """Move the average towards the parameters."""
        for name, value in self.ema.items():
            value.lerp_(self.parameters[name], 1 - self.settings.ema)

    def log(self, waiting: list[tuple[int, Tensor, Mapping[str, Tensor]]]) -> None:
        """Add the mean of the last steps to the curve; only here are numbers fetched."""
        if not waiting:
            return
        totals = torch.stack([loss for _, loss, _ in waiting]).double()
        total = self.processes.gather(totals).mean().item()
        if not math.isfinite(total):
            raise RunError(
                f"the loss is {total} at step {waiting[-1][0]}; expected a finite number, "
                "so try a lower learning_rate"
            )
        point = {"step": float(waiting[-1][0]), "loss": total}
        for name in waiting[-1][2]:
            parts = [values[name].detach().double() for _, _, values in waiting if name in values]
            point[name] = torch.stack(parts).nanmean().item()
        self.found.train.append(point)
        self.processes.log(point, self.step, group="train")
        waiting.clear()

    def evaluate(self, evaluate: Callable[[int], Mapping[str, float]]) -> None:
        """Validate the averaged parameters, and keep them if they are the best."""
        own = self.values() if self.ema else {}
        _put(self.parameters, self.ema)
        try:
            numbers = dict(evaluate(self.step))
        except DataError as error:  # the statistics take no score that is not a number
            raise RunError(
                f"the validation after step {self.step} failed: {error}; expected finite scores, "
                "so try a lower learning_rate"
            ) from error
        self.found.validation.append({"step": float(self.step)} | numbers)
        self.processes.log(numbers, self.step, group="validation")
        if numbers.get("accuracy", -math.inf) > self.found.best_value:
            self.found.best_value, self.found.best_step = numbers["accuracy"], self.step
            self.found.best = self.values()
        _put(self.parameters, own)

    def save(self, file: Path) -> None:
        """Write the state in one piece; one that is not finite does not replace the one before."""
        if not all(bool(value.isfinite().all()) for value in self.parameters.values()):
            raise RunError(
                f"the parameters are not finite after step {self.step}, so that they are not saved; "
                "try a lower learning_rate"
            )
        if not self.processes.first:
            return
        found = {part.name: getattr(self.found, part.name) for part in fields(self.found)}
        state = {
            "step": self.step,
            "settings": asdict(self.settings),
            "parameters": {name: value.detach() for name, value in self.parameters.items()},
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema,
            "found": found,
        }
        with atomic_path(file) as temporary, temporary.open("wb") as opened:
            _StateFile(opened).save(state)

    def load(self, file: Path) -> None:
        """Go back to a saved state, which all processes must see."""
        if not file.is_file():
            raise RunError(f"{file}: not there, expected a folder that all processes share")
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["settings"] != asdict(self.settings) or set(state["parameters"]) != set(
            self.parameters
        ):
            raise RunError(f"{file}: belongs to a training with other settings")
        _put(self.parameters, state["parameters"])
        self.optimiser.load_state_dict(state["optimiser"])
        device = next(iter(self.parameters.values())).device
        self.ema = {name: value.to(device) for name, value in state["ema"].items()}
        self.step = state["step"]
        self.found = Fitted(**state["found"])

    def finish(self) -> Fitted:
        """Leave the best parameters in place."""
        if not self.found.best:
            last = {name: value.detach() for name, value in self.parameters.items()}
            self.found.best = copy.copy(self.ema) or last
            self.found.best_step = self.step
        self.optimiser.zero_grad(set_to_none=True)
        _put(self.parameters, self.found.best)
        return self.found


class _StateFile:
    """A file that remembers what went wrong with it, which ``torch.save`` replaces by an error that says nothing.

    That is a full disk, or somebody's Ctrl-C.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.flush = file, file.flush
        self.fault: BaseException | None = None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write straight to the file: a state is three times the size of what is trained."""
        try:
            torch.save(state, cast("BinaryIO", self))
        except RuntimeError:
            if self.fault is None:
                raise
            raise self.fault from None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except BaseException as error:
            self.fault = error
            raise


@torch.no_grad()
def _put(parameters: Mapping[str, Parameter], values: Mapping[str, Tensor]) -> None:
    """Copy values into parameters."""
    for name, value in values.items():
        parameters[name].copy_(value)

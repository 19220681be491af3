"""The verb ``train``: choices in, a scorer out."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palate.data.tables import Dataset
from palate.errors import SettingsError
from palate.runs import Run, hash_text, write_atomic
from palate.scoring.inputs import hash_table
from palate.training.batches import (
    Batch,
    Groups,
    augment,
    batch_at,
    batches_in_order,
    read_groups,
    weighed,
)
from palate.training.learners.learner import Base, Change, Learner, Pictures
from palate.training.learners.make import learner_of
from palate.training.loop import STATE, Fitted, Losses, fit
from palate.training.losses import weighted_mean
from palate.training.objectives import OBJECTIVES, Objective, prepared
from palate.training.processes import Processes, start_processes, start_shared_run
from palate.training.settings import TrainSettings
from palate.training.stores import Shelf

CURVES = "curves.json"
_SHELF = "material"


def train(
    dataset: Dataset,
    base: Base,
    out: Path,
    settings: TrainSettings,
    validation: Dataset | None = None,
    *,
    overwrite: bool = False,
    processes: Processes | None = None,
) -> dict[str, Any]:
    """Teach a scorer from choices; write a scorer folder and give what was found.

    With ``validation`` the parameters with the best accuracy there are kept (top-1 for the objective
    ``choice``, ties expected; decided pairs for the others, ties half), else the last ones. ``base`` is
    changed. An interrupted training goes on where it was last saved and ends bit for bit as one that was not
    interrupted, on the same machine and number of threads. Several ``processes`` (those that
    `accelerate launch` started, by default) share each batch; the result is that of one process but for
    rounding.

    ``out`` becomes a folder for ``palate score --scorer``, with ``curves.json`` beside.
    """
    if processes is None:
        processes = start_processes(str(base.device.type), out, settings.trackers)
    inputs = {"choices": digest(dataset), "base": base.fingerprint()}
    if validation is not None:
        inputs["validation"] = digest(validation)
    with start_shared_run(processes, "train", out, settings, inputs, overwrite=overwrite) as run:
        done = processes.same(run.result if run and run.finished else None)
        if done is None:
            learner = learner_of(base, settings)
            done = _train(run, out, dataset, learner, settings, validation, processes)
    processes.end()
    return done


def _train(
    run: Run | None,
    out: Path,
    dataset: Dataset,
    learner: Learner,
    settings: TrainSettings,
    validation: Dataset | None,
    processes: Processes,
) -> dict[str, Any]:
    """Prepare, fit and save."""
    shelves = [Shelf(out / _SHELF / name, processes) for name in ("train", "validation")]
    task = Task.build(learner, dataset, shelves[0], settings, processes, wrap=True)
    check = None
    if validation is not None:
        check = Task.build(learner, validation, shelves[1], settings, processes)
    trained = learner.trained()
    before = check.validate() if check else {}
    processes.follow(settings.trackers, asdict(settings))
    fitted = fit(
        trained,
        task.losses_at,
        settings.loop(len(task.groups)),
        out,
        evaluate=(lambda _: check.validate()) if check else None,
        after_step=learner.after_step,
        processes=processes,
    )
    result = _result(fitted, task, check) | {"before": before}
    result["trained_parameters"] = sum(value.numel() for value in trained.values())
    for shelf in shelves:
        shelf.clear()
    with suppress(OSError):
        (out / _SHELF).rmdir()
    if run is not None:
        curves = {"before": before, "train": fitted.train, "validation": fitted.validation}
        _save(run, learner, settings, result, curves)
    return processes.same(result)


def _save(
    run: Run, learner: Learner, settings: TrainSettings, result: dict[str, Any], curves: Any
) -> None:
    """Write the scorer and its curves, and finish the run."""
    dimension = settings.dimensions[0] if len(settings.dimensions) == 1 else "overall"
    name = run.out.resolve().name
    files = learner.save(run.out, name=name, dimension=dimension, trained=result)
    write_atomic(run.out / CURVES, json.dumps(curves, indent=1) + "\n")
    run.finish(result, files=[*files, CURVES])
    (run.out / STATE).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Task:
    """A data set before a learner: the loss of every step, and how well it does on all of it."""

    learner: Learner
    module: nn.Module
    material: Any
    groups: Groups
    objective: Objective
    settings: TrainSettings
    processes: Processes

    @classmethod
    def build(
        cls,
        learner: Learner,
        dataset: Dataset,
        shelf: Shelf,
        settings: TrainSettings,
        processes: Processes,
        *,
        wrap: bool = False,
    ) -> Task:
        """Read the choices and open their images; a training ``wrap``s its learner, to share gradients, and may pad."""
        share = settings.batch // (processes.count * settings.accumulate)
        if not share:
            raise SettingsError(
                f"batch is {settings.batch}, expected at least one choice for each of "
                f"{processes.count} processes times {settings.accumulate} parts"
            )
        objective = OBJECTIVES[settings.objective]
        groups = read_groups(dataset.choices, settings.dimensions, f"{dataset.folder}")
        groups = weighed(prepared(groups, objective, settings.ties), settings.weights)
        pad = wrap and settings.pad == "training"
        material = learner.open(dataset, groups, shelf, altered=settings.altered, pad=pad)
        return cls(
            learner,
            processes.wrap(learner) if wrap else learner,
            material,
            groups,
            objective,
            settings,
            processes,
        )

    def losses_at(self, step: int) -> Losses:
        """Give this process's share of the loss of a step, in its parts, and the scale before the softmax.

        The loss is the weighted mean over the choices of the whole batch.
        """
        how, many = self.settings, self.settings.accumulate
        batch = batch_at(self.groups, step, how.batch, how.seed, alike=how.alike)
        total = float(batch.weight.sum())
        own = batch.part(self.processes.number, self.processes.count)
        for number in range(many):
            part = own.part(number, many)
            with self.processes.hold(self.module, on=number + 1 < many):
                losses = self.objective.loss(
                    self._scores(self.module, part, self._change(batch, step)), part
                )
                share = weighted_mean(losses, part.weight.to(losses.device), total)
                yield share * self.processes.count, {"scale": self.learner.scale().detach()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Give mean loss and accuracy over all choices, images unaltered; of each dimension if several."""
        scores = torch.zeros(self.groups.all.mask.shape)
        own = slice(self.processes.number, None, self.processes.count)
        batches = batches_in_order(self.groups, self.settings.batch)
        starts = range(0, len(self.groups), self.settings.batch)
        for start, batch in list(zip(starts, batches, strict=True))[own]:
            scores[start : start + len(batch)] = self._scores(self.learner, batch, None).cpu()
        if self.processes.count > 1:
            scores = self.processes.gather(scores[None]).sum(0)
        losses, weight = (
            self.objective.loss(scores, self.groups.all).double(),
            self.groups.all.weight,
        )
        found = {
            "loss": float((losses * weight).sum() / weight.double().sum()),
            "accuracy": self.objective.accuracy(*self.groups.flat(scores)),
        }
        if len(self.groups.dimensions) > 1:
            for place, name in enumerate(self.groups.dimensions):
                some = self.groups.of_dimension(place)
                part = self.groups.only(some)
                flat = part.flat(scores[some][:, : part.all.mask.shape[1]])
                found[f"accuracy/{name}"] = self.objective.accuracy(*flat)
        return found

    def chance(self) -> float:
        """Give the accuracy of knowing nothing."""
        _, ranks, offsets = self.groups.flat(torch.zeros(self.groups.all.mask.shape))
        return self.objective.chance(ranks, offsets)

    def _scores(
        self, module: nn.Module, batch: Batch, change: Change | None
    ) -> Float[Tensor, "groups most"]:
        """Score a batch, the towers in the precision of the settings."""
        low = self.settings.precision == "bfloat16"
        with torch.autocast(self.learner.device.type, torch.bfloat16, enabled=low):
            scores: Tensor = module(self.material, batch, change)
        return scores.float()

    def _change(self, batch: Batch, step: int) -> Change | None:
        """Give what alters the pictures of a step."""
        how = self.settings
        if not how.altered:
            return None
        all_shown = batch.images[batch.mask].unique()

        def change(pictures: Pictures, images: Int[Tensor, " images"]) -> Pictures:
            places = torch.searchsorted(all_shown, images)
            return augment(
                pictures,
                how.shift,
                flip=how.flip,
                seed=how.seed,
                step=step,
                places=places,
                of=len(all_shown),
            )

        return change


def _result(fitted: Fitted, task: Task, check: Task | None) -> dict[str, Any]:
    """Sum a training up."""
    best = next((point for point in fitted.validation if point["step"] == fitted.best_step), {})
    return {
        "choices": len(task.groups),
        "images": len(task.groups.keys),
        "prompts": len(task.groups.prompts),
        "steps": task.settings.loop(len(task.groups)).steps,
        "best_step": fitted.best_step,
        "loss": fitted.train[-1]["loss"],
        "validation": {name: value for name, value in best.items() if name != "step"},
        "validation_choices": len(check.groups) if check else 0,
        "chance": check.chance() if check else task.chance(),
        "tie_rule": "expected" if task.settings.objective == "choice" else "half",
        "cached": task.material.cached,
        "scale": float(task.learner.scale().detach()),
    }


def digest(dataset: Dataset) -> str:
    """Hash the content of a data set's tables, whichever way they were filtered before."""
    return hash_text(hash_table(dataset.images), hash_table(dataset.choices))

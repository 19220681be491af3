"""The verb ``train``: choices in, a scorer out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter

from palate.data.tables import Dataset
from palate.errors import SettingsError
from palate.models.clip import Clip
from palate.models.clip_files import CARD, save_clip
from palate.runs import Run, hash_text, start_run, write_atomic
from palate.scoring.inputs import hash_table
from palate.stats.accuracy import chance_top1, top1
from palate.training.banks import Change, Frozen, ImageBank, TextBank, decode_pictures, state_bytes
from palate.training.batches import Batch, Groups, augment, batch_at, batches_in_order, read_groups
from palate.training.loop import STATE, Fitted, LoopSettings, Losses, fit
from palate.training.losses import choice_cross_entropy

LARGEST_SCALE = math.log(100)
CURVES = "curves.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What is trained, on what, and how.

    ``dimension`` picks the choices. ``image_layers`` and ``text_layers`` say how many of the last
    layers of each tower are trained. With ``counting = "blocks"`` a layer is a block, the head
    (last norm and projection) comes with the first, one layer more than there are blocks adds the
    embedding, and 0 freezes the tower. With ``counting = "openclip"``, as in the papers, the
    projection of the image tower is its first layer, the last block with the norm the second, and
    the embedding the last; in the text tower a layer is a block, the head is always trained and
    the embedding never.

    ``logit_scale`` is the factor before the softmax at the start (none: the base's own);
    ``train_logit_scale`` lets it move, up to 100. Give either ``steps`` or ``epochs``. ``shift``
    and ``flip`` alter the images in each step (off by default; mirroring swaps left and right).
    ``cache_gb`` bounds the memory for the states below the first trained block, which are computed
    once where they fit and the images are not altered; 0 recomputes them in every step.

    The other settings are those of the loop (:class:`palate.training.loop.LoopSettings`).
    """

    dimension: str = "overall"
    image_layers: int = 3
    text_layers: int = 3
    counting: Literal["blocks", "openclip"] = "blocks"
    logit_scale: float | None = None
    train_logit_scale: bool = True
    batch: int = 24
    steps: int | None = None
    epochs: float | None = None
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    warmup_steps: int = 20
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = 1.0
    ema: float = 0.0
    shift: int = 0
    flip: bool = False
    cache_gb: float = 4.0
    evaluate_every: int = 50
    save_every: int = 100
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.steps is None) == (self.epochs is None):
            raise SettingsError("give either steps or epochs, and not both")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise SettingsError(f"epochs is {self.epochs}, expected more than 0")
        if self.batch < 1:
            raise SettingsError(f"batch is {self.batch}, expected at least 1")
        for name in ("image_layers", "text_layers", "shift", "cache_gb"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.logit_scale is not None and not 0 < self.logit_scale <= 100:
            raise SettingsError(f"logit_scale is {self.logit_scale}, expected above 0 up to 100")
        self.loop(1)

    def loop(self, groups: int) -> LoopSettings:
        """Give the loop's settings for so many choices."""
        steps = self.steps
        if steps is None:
            steps = max(1, math.ceil((self.epochs or 0) * groups / self.batch))
        return LoopSettings(
            steps=steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            warmup_steps=self.warmup_steps,
            schedule=self.schedule,
            clip=self.clip,
            ema=self.ema,
            save_every=self.save_every,
            evaluate_every=self.evaluate_every,
            log_every=self.log_every,
        )


def train(
    dataset: Dataset,
    base: Clip,
    out: Path,
    settings: TrainSettings,
    validation: Dataset | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Teach a CLIP from choices; write a scorer folder and give what was found.

    The loss is the softmax cross-entropy over the images of each prompt. With ``validation`` the
    parameters with the best top-1 accuracy there are kept (ties: expected), else the last ones.
    ``base`` is changed. An interrupted training goes on where it was last saved and ends bit for
    bit as one that was not interrupted, on the same machine and number of threads.

    ``out`` becomes a folder for ``palate score --scorer``, which transformers loads as well, with
    ``curves.json`` beside. Its unit is ``hps``: 100 times the cosine.
    """
    inputs = {"choices": _digest(dataset), "base": base.fingerprint()}
    if validation is not None:
        inputs["validation"] = _digest(validation)
    with start_run("train", out, settings, inputs, overwrite=overwrite) as run:
        if not run.finished:
            _train(run, dataset, base, settings, validation)
        return run.result


def _train(
    run: Run, dataset: Dataset, base: Clip, settings: TrainSettings, validation: Dataset | None
) -> None:
    """Prepare, fit and save."""
    frozen, trained = unfreeze(base, settings)
    if settings.logit_scale is not None:
        with torch.no_grad():
            base.model.logit_scale.fill_(math.log(settings.logit_scale))
    groups = read_groups(dataset.choices, settings.dimension, f"{dataset.folder}")
    task = _Task.build(base, dataset, groups, frozen, settings)
    check = None
    if validation is not None:
        held = read_groups(validation.choices, settings.dimension, f"{validation.folder}")
        check = _Task.build(base, validation, held, frozen, settings)
    before = check.validate() if check else {}
    fitted = fit(
        trained,
        task.loss_at,
        settings.loop(len(groups)),
        run.out,
        evaluate=check.validate if check else None,
        after_step=lambda: _clamp(base.model.logit_scale),
    )
    result = _result(fitted, task, check, trained) | {"before": before}
    curves = {"before": before, "train": fitted.train, "validation": fitted.validation}
    base.model.requires_grad_(requires_grad=False)
    name = run.out.resolve().name
    # the base's card speaks of the base: its scorer, source and licence are not those of what was trained
    save_clip(
        replace(base, about={}),
        run.out,
        name=name,
        unit="hps",
        dimension=settings.dimension,
        trained=result,
    )
    write_atomic(run.out / CURVES, json.dumps(curves, indent=1) + "\n")
    run.finish(result, files=[CARD, "config.json", "model.safetensors", CURVES])
    (run.out / STATE).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Task:
    """Choices with their images and prompts in memory."""

    clip: Clip
    groups: Groups
    images: ImageBank
    texts: TextBank
    settings: TrainSettings

    @classmethod
    def build(
        cls, clip: Clip, dataset: Dataset, groups: Groups, frozen: Frozen, settings: TrainSettings
    ) -> _Task:
        """Open the images and run what is frozen."""
        pictures = decode_pictures(clip, groups.keys, dataset.images, dataset.folder)
        altered = bool(settings.shift or settings.flip)
        room = state_bytes(clip, len(pictures)) <= settings.cache_gb * 1e9
        images = ImageBank(clip, pictures, frozen.image, cached=room and not altered)
        texts = TextBank(clip, groups.prompts, frozen.text, cached=settings.cache_gb > 0)
        return cls(clip, groups, images, texts, settings)

    def loss_at(self, step: int) -> Losses:
        """Give the loss of a step, and the scale before its softmax."""
        seed = self.settings.seed
        batch = batch_at(self.groups, step, self.settings.batch, seed)
        change: Change | None = None
        if self.settings.shift or self.settings.flip:
            change = lambda pixels: augment(  # noqa: E731
                pixels, self.settings.shift, flip=self.settings.flip, seed=seed, step=step
            )
        cosines = self._cosines(batch, change)
        scale = self.clip.model.logit_scale.exp()
        losses = choice_cross_entropy(
            scale * cosines, batch.mask.to(scale.device), batch.target.to(scale.device)
        )
        return losses.mean(), {"scale": scale.detach()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Give mean loss and top-1 accuracy over all choices, images unaltered."""
        size = self.settings.batch
        cosines = torch.cat(
            [self._cosines(batch, None).cpu() for batch in batches_in_order(self.groups, size)]
        )
        scale = self.clip.model.logit_scale.exp().cpu()
        losses = choice_cross_entropy(scale * cosines, self.groups.mask, self.groups.target)
        accuracy = top1(*self.groups.flat(cosines), ties="expected")
        return {"loss": float(losses.double().mean()), "accuracy": accuracy.value}

    def chance(self) -> float:
        """Give the accuracy of knowing nothing."""
        _, ranks, offsets = self.groups.flat(torch.zeros_like(self.groups.target))
        return chance_top1(ranks, offsets)

    def _cosines(self, batch: Batch, change: Change | None) -> Float[Tensor, "groups most"]:
        """Give the cosine of every image with its prompt; each distinct one is encoded once.

        Padding gets the cosine of some other image; the mask hides it.
        """
        shown, where = batch.images[batch.mask].unique(return_inverse=True)
        asked, prompt = batch.prompt.unique(return_inverse=True)
        place = torch.zeros_like(batch.images)
        place[batch.mask] = where
        images = self.images.features(shown, change)
        texts = self.texts.features(asked)
        return (images[place.to(images.device)] * texts[prompt.to(texts.device)][:, None]).sum(-1)


def unfreeze(clip: Clip, settings: TrainSettings) -> tuple[Frozen, dict[str, Parameter]]:
    """Mark what is trained; give how much of each tower stays, and the trained parameters by name.

    Raises SettingsError if a tower has fewer layers than are asked for.
    """
    model = clip.model.requires_grad_(requires_grad=False)
    image_parts = _image_parts(clip, settings)
    text_parts = _text_parts(clip, settings)
    for part in (*image_parts[1], *text_parts[1]):
        part.requires_grad_(requires_grad=True)
    model.logit_scale.requires_grad_(settings.train_logit_scale)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if not set(trained) - {"logit_scale"}:
        raise SettingsError("image_layers and text_layers leave nothing to train")
    return Frozen(image_parts[0], text_parts[0]), trained


def _image_parts(clip: Clip, settings: TrainSettings) -> tuple[int | None, list[Any]]:
    """List the trained parts of the image tower, and count the frozen ones."""
    tower = clip.model.vision_model
    blocks = list(tower.encoder.layers)
    layers, head = settings.image_layers, [clip.model.visual_projection]
    if settings.counting == "openclip":
        _bound("image_layers", layers, len(blocks) + 2)
        layers -= 1  # the projection is the first
    else:
        _bound("image_layers", layers, len(blocks) + 1)
    if layers < 0 or (layers == 0 and settings.counting == "blocks"):
        return None, []
    if layers == 0:
        return 1 + len(blocks), head
    stem = [tower.embeddings, tower.pre_layrnorm] if layers > len(blocks) else []
    kept = max(0, len(blocks) - layers)
    return 0 if stem else 1 + kept, [*stem, *blocks[kept:], tower.post_layernorm, *head]


def _text_parts(clip: Clip, settings: TrainSettings) -> tuple[int | None, list[Any]]:
    """List the trained parts of the text tower, and count the frozen ones."""
    tower = clip.model.text_model
    blocks, layers = list(tower.encoder.layers), settings.text_layers
    counted = settings.counting == "blocks"
    _bound("text_layers", layers, len(blocks) + counted)
    if layers == 0 and counted:
        return None, []
    stem = [tower.embeddings] if layers > len(blocks) else []
    kept = max(0, len(blocks) - layers)
    head = [tower.final_layer_norm, clip.model.text_projection]
    return 0 if stem else 1 + kept, [*stem, *blocks[kept:], *head]


def _bound(name: str, asked: int, most: int) -> None:
    """Refuse more layers than a tower has."""
    if asked > most:
        raise SettingsError(f"{name} is {asked}, but this tower has {most} layers to train")


def _clamp(scale: Parameter) -> None:
    """Keep the factor before the softmax at 100 or below, as CLIP's training does."""
    with torch.no_grad():
        scale.clamp_(max=LARGEST_SCALE)


def _result(
    fitted: Fitted, task: _Task, check: _Task | None, trained: Mapping[str, Parameter]
) -> dict[str, Any]:
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
        "tie_rule": "expected",
        "trained_parameters": sum(value.numel() for value in trained.values()),
        "cached": task.images.states is not None,
        "scale": float(task.clip.model.logit_scale.detach().exp()),
    }


def _digest(dataset: Dataset) -> str:
    """Hash the content of a data set's tables, whichever way they were filtered before."""
    return hash_text(hash_table(dataset.images), hash_table(dataset.choices))

"""A CLIP that learns: the last layers of both towers, and the scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palate.data.tables import Dataset
from palate.errors import SettingsError
from palate.models.clip import Clip
from palate.models.clip_files import CARD, save_clip
from palate.training.banks import Frozen, ImageBank, TextBank
from palate.training.batches import Batch, Groups
from palate.training.learners.learner import Change, Learner, Trained, open_pictures, shown_in
from palate.training.stores import Shelf

LARGEST_SCALE = math.log(100)


@dataclass(frozen=True, slots=True)
class ClipMaterial:
    """The images and prompts of a data set, as the towers take them."""

    images: ImageBank
    texts: TextBank

    @property
    def cached(self) -> bool:
        """Whether the frozen blocks of the image tower ran once for all."""
        return self.images.states is not None


class ClipLearner(Learner):
    """Scores by exp(logit scale) times the cosine of image and prompt, as HPS and PickScore do.

    The scale is kept at 100 or below, as in CLIP's training.
    """

    unit = "hps"

    def __init__(
        self,
        clip: Clip,
        how: Trained,
        *,
        logit_scale: float | None = None,
        train_logit_scale: bool = True,
        unit: str = "hps",
    ) -> None:
        """Mark what is trained. Raises SettingsError if a tower has fewer layers than are asked for."""
        super().__init__()
        self.clip, self.model, self.how, self.unit = clip, clip.model, how, unit
        self.preparation = clip.preparation
        self.model.checkpointing = how.checkpointing
        self.frozen = unfreeze(clip, how)
        self.model.logit_scale.requires_grad_(train_logit_scale)
        if logit_scale is not None:
            with torch.no_grad():
                self.model.logit_scale.fill_(math.log(logit_scale))

    def open(
        self, dataset: Dataset, groups: Groups, shelf: Shelf, *, altered: bool
    ) -> ClipMaterial:
        """Open the images, and run the frozen blocks where their states are to be kept."""
        pictures = open_pictures(dataset, groups.keys, self.preparation, shelf)
        room = self.how.cache_bytes
        kept = None if altered else shelf
        images = ImageBank(self.clip, pictures, self.frozen.image, kept, room)
        texts = TextBank(self.clip, groups.prompts, self.frozen.text, shelf, room)
        return ClipMaterial(images, texts)

    def forward(
        self, material: ClipMaterial, batch: Batch, change: Change | None = None
    ) -> Float[Tensor, "groups most"]:
        """Score the images of a batch; each distinct image and prompt is encoded once."""
        shown = shown_in(batch)
        images = material.images.features(shown.images, change)
        texts = material.texts.features(shown.prompts)
        image, prompt = shown.image.to(images.device), shown.prompt.to(texts.device)
        cosines = (images[image] * texts[prompt][:, None]).sum(-1)
        return self.scale() * cosines

    def after_step(self) -> None:
        """Keep the scale at 100 or below."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=LARGEST_SCALE)

    def scale(self) -> Tensor:
        """Give exp(logit scale)."""
        scale: Tensor = self.model.logit_scale.exp()
        return scale

    def save(self, folder: Path, **about: object) -> list[str]:
        """Write a folder that Palate and transformers load.

        The base's card speaks of the base: its scorer, source and licence are not those of what was trained.
        """
        self.model.requires_grad_(requires_grad=False)
        save_clip(replace(self.clip, about={}), folder, half=False, unit=self.unit, **about)
        return ["config.json", "model.safetensors", CARD]


def unfreeze(clip: Clip, how: Trained) -> Frozen:
    """Mark what is trained of both towers; give how much of each stays.

    Raises SettingsError if a tower has fewer layers than are asked for.
    """
    clip.model.requires_grad_(requires_grad=False)
    image, text = _image_parts(clip, how), _text_parts(clip, how)
    for part in (*image[1], *text[1]):
        part.requires_grad_(requires_grad=True)
    return Frozen(image[0], text[0])


def _image_parts(clip: Clip, how: Trained) -> tuple[int | None, list[Any]]:
    """List the trained parts of the image tower, and count the frozen ones."""
    tower = clip.model.vision_model
    blocks = list(tower.encoder.layers)
    layers, head = how.image_layers, [clip.model.visual_projection]
    if how.counting == "openclip":
        _bound("image_layers", layers, len(blocks) + 2)
        layers -= 1  # the projection is the first
    else:
        _bound("image_layers", layers, len(blocks) + 1)
    if layers < 0 or (layers == 0 and how.counting == "blocks"):
        return None, []
    if layers == 0:
        return 1 + len(blocks), head
    stem = [tower.embeddings, tower.pre_layrnorm] if layers > len(blocks) else []
    kept = max(0, len(blocks) - layers)
    return 0 if stem else 1 + kept, [*stem, *blocks[kept:], tower.post_layernorm, *head]


def _text_parts(clip: Clip, how: Trained) -> tuple[int | None, list[Any]]:
    """List the trained parts of the text tower, and count the frozen ones."""
    tower = clip.model.text_model
    blocks, layers = list(tower.encoder.layers), how.text_layers
    counted = how.counting == "blocks"
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

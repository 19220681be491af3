"""Two towers that learn, a CLIP's or a SigLIP's: the last layers of both, and the scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palate.data.tables import Dataset
from palate.errors import SettingsError
from palate.models.clip_files import CARD, save_clip
from palate.models.siglip import Siglip
from palate.models.siglip_files import save_siglip
from palate.models.towers import Towers
from palate.training.banks import Frozen, ImageBank, TextBank
from palate.training.batches import Batch, Groups
from palate.training.learners.learner import Change, Learner, Trained, open_pictures, shown_in
from palate.training.stores import Shelf

LARGEST_SCALE = 100.0
"""What CLIP's authors and open_clip keep exp(logit scale) below (arXiv 2103.00020, section 2.5)."""


@dataclass(frozen=True, slots=True)
class TowersMaterial:
    """The images and prompts of a data set, as the towers take them."""

    images: ImageBank
    texts: TextBank

    @property
    def cached(self) -> bool:
        """Whether the frozen blocks of the image tower ran once for all."""
        return self.images.cached


@dataclass(frozen=True, slots=True)
class Parts:
    """The modules of a tower from the input on: what embeds, the blocks, and the last norm with the head."""

    stem: tuple[nn.Module, ...]
    blocks: tuple[nn.Module, ...]
    norm: nn.Module
    head: nn.Module


class TowersLearner(Learner):
    """Scores by exp(logit scale) times the cosine of image and prompt, as HPS and PickScore do.

    A CLIP's scale is kept at 100 or below, as in CLIP's training. A SigLIP's, about 117 in published
    weights, has no limit, as in SigLIP's training (arXiv 2303.15343, algorithm 1). A SigLIP's bias
    is left out and never trained: it is the same number on every image of a prompt, so that it cancels in a
    softmax over them and in every difference. No loss says anything of it, and it stays what the base had.
    """

    def __init__(
        self,
        towers: Towers,
        how: Trained,
        *,
        logit_scale: float | None = None,
        train_logit_scale: bool = True,
        unit: str = "hps",
    ) -> None:
        """Mark what is trained.

        Raises SettingsError if a tower has fewer layers than are asked for, for a scale above the limit,
        and for layers of a SigLIP counted as a CLIP's.
        """
        super().__init__()
        self.towers, self.model, self.how, self.unit = towers, towers.model, how, unit
        self.preparation = towers.preparation
        self.largest_scale = None if isinstance(towers, Siglip) else LARGEST_SCALE
        self.model.checkpointing = how.checkpointing
        self.frozen = unfreeze(towers, how)
        self.model.logit_scale.requires_grad_(train_logit_scale)
        if logit_scale is not None:
            if self.largest_scale is not None and logit_scale > self.largest_scale:
                raise SettingsError(
                    f"logit_scale is {logit_scale:g}, expected up to 100, the limit of a CLIP"
                )
            with torch.no_grad():
                self.model.logit_scale.fill_(math.log(logit_scale))

    def open(
        self, dataset: Dataset, groups: Groups, shelf: Shelf, *, altered: bool, pad: bool = False
    ) -> TowersMaterial:
        """Open the images, and run the frozen blocks where their states are to be kept."""
        pictures = open_pictures(dataset, groups.keys, self.preparation, shelf, pad=pad)
        room = self.how.cache_bytes
        kept = None if altered else shelf
        images = ImageBank(self.towers, pictures, self.frozen.image, kept, room)
        texts = TextBank(self.towers, groups.prompts, self.frozen.text, shelf, room)
        return TowersMaterial(images, texts)

    def forward(
        self, material: TowersMaterial, batch: Batch, change: Change | None = None
    ) -> Float[Tensor, "groups most"]:
        """Score the images of a batch; each distinct image and prompt is encoded once."""
        shown = shown_in(batch)
        # in 16 bits a cosine of ¼ times 100 would move in steps of ⅛
        images = material.images.features(shown.images, change).float()
        texts = material.texts.features(shown.prompts).float()
        image, prompt = shown.image.to(images.device), shown.prompt.to(texts.device)
        cosines = (images[image] * texts[prompt][:, None]).sum(-1)
        return self.scale() * cosines

    def after_step(self) -> None:
        """Keep the scale at its limit or below."""
        if self.largest_scale is not None:
            with torch.no_grad():
                self.model.logit_scale.clamp_(max=math.log(self.largest_scale))

    def scale(self) -> Tensor:
        """Give exp(logit scale)."""
        scale: Tensor = self.model.logit_scale.exp().reshape(())  # a SigLIP has a list of one
        return scale

    def save(self, folder: Path, **about: object) -> list[str]:
        """Write a folder that Palate and transformers load.

        The base's card speaks of the base: its scorer, source and licence are not those of what was trained.
        """
        self.model.requires_grad_(requires_grad=False)
        plain = replace(self.towers, about={})
        if isinstance(plain, Siglip):
            save_siglip(plain, folder, half=False, unit=self.unit, **about)
        else:
            save_clip(plain, folder, half=False, unit=self.unit, **about)
        return ["config.json", "model.safetensors", CARD]


def unfreeze(towers: Towers, how: Trained) -> Frozen:
    """Mark what is trained of both towers; give how much of each stays.

    Raises SettingsError if a tower has fewer layers than are asked for, and for layers of a SigLIP that are
    to be counted as open_clip counts a CLIP's.
    """
    if how.counting == "openclip" and isinstance(towers, Siglip):
        raise SettingsError(
            "counting is 'openclip', which counts a CLIP's projection as a layer, but a SigLIP pools its "
            "patches and has none; expected 'blocks'"
        )
    towers.model.requires_grad_(requires_grad=False)
    image, text = _image_parts(towers, how), _text_parts(towers, how)
    for part in (*image[1], *text[1]):
        part.requires_grad_(requires_grad=True)
    return Frozen(image[0], text[0])


def parts_of(towers: Towers) -> tuple[Parts, Parts]:
    """Name the parts of the image tower and of the text tower."""
    model: Any = towers.model
    image, text = model.vision_model, model.text_model
    blocks = tuple(image.encoder.layers), tuple(text.encoder.layers)
    if isinstance(towers, Siglip):
        return (
            Parts((image.embeddings,), blocks[0], image.post_layernorm, image.head),
            Parts((text.embeddings,), blocks[1], text.final_layer_norm, text.head),
        )
    stem = (image.embeddings, image.pre_layrnorm)
    return (
        Parts(stem, blocks[0], image.post_layernorm, model.visual_projection),
        Parts((text.embeddings,), blocks[1], text.final_layer_norm, model.text_projection),
    )


def _image_parts(towers: Towers, how: Trained) -> tuple[int | None, list[nn.Module]]:
    """List the trained parts of the image tower, and count the frozen ones."""
    tower, layers = parts_of(towers)[0], how.image_layers
    if how.counting == "openclip":
        _bound("image_layers", layers, len(tower.blocks) + 2)
        layers -= 1  # the projection is the first
    else:
        _bound("image_layers", layers, len(tower.blocks) + 1)
    if layers < 0 or (layers == 0 and how.counting == "blocks"):
        return None, []
    if layers == 0:
        return 1 + len(tower.blocks), [tower.head]
    return _last(tower, layers)


def _text_parts(towers: Towers, how: Trained) -> tuple[int | None, list[nn.Module]]:
    """List the trained parts of the text tower, and count the frozen ones."""
    tower, layers = parts_of(towers)[1], how.text_layers
    counted = how.counting == "blocks"
    _bound("text_layers", layers, len(tower.blocks) + counted)
    if layers == 0 and counted:
        return None, []
    return _last(tower, layers)


def _last(tower: Parts, layers: int) -> tuple[int, list[nn.Module]]:
    """List the last so many blocks of a tower with what is above; one more than there are adds the stem."""
    stem = tower.stem if layers > len(tower.blocks) else ()
    kept = max(0, len(tower.blocks) - layers)
    return 0 if stem else 1 + kept, [*stem, *tower.blocks[kept:], tower.norm, tower.head]


def _bound(name: str, asked: int, most: int) -> None:
    """Refuse more layers than a tower has."""
    if asked > most:
        raise SettingsError(f"{name} is {asked}, but this tower has {most} layers to train")

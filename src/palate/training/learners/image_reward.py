"""An ImageReward that learns: the last layers of both towers, and the head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from palate.data.tables import Dataset
from palate.errors import SettingsError
from palate.models.clip_files import CARD
from palate.models.image_reward import ImageReward, save_image_reward
from palate.models.pixels import normalise
from palate.training.batches import Batch, Groups
from palate.training.learners.learner import Change, Learner, Trained, open_pictures, shown_in
from palate.training.states import StateBank
from palate.training.stores import Shelf

_AT_ONCE = 32
STANDARD_FROM = 10_000
"""How many (image, prompt) of the training choices the standardisation is taken from, at most."""


@dataclass(frozen=True, slots=True)
class RewardMaterial:
    """The images of a data set as the image tower takes them, and its prompts as tokens."""

    images: StateBank
    ids: Int[Tensor, "prompts context"]
    mask: Int[Tensor, "prompts context"]

    @property
    def cached(self) -> bool:
        """Whether the frozen blocks of the image tower ran once for all."""
        return self.images.kept is not None


class ImageRewardLearner(Learner):
    """Scores by the raw reward: the head's output before it is standardised, whose differences are logits.

    The last norm of the image tower comes with its first trained block. Of the head the weights are trained:
    nothing but affine maps follow a bias of it, so that it adds the same number to every reward, which
    cancels in every loss. Dropout is off everywhere. The official training had it on (0.2, 0.2 and 0.1 in the head,
    0.1 in the text encoder).

    What the last layers of the text encoder read depends on image and prompt together, so that only the image
    tower's states are kept below the first trained block.
    """

    unit = "reward"

    def __init__(self, model: ImageReward, how: Trained) -> None:
        """Mark what is trained. Raises SettingsError if a tower has fewer layers than are asked for."""
        super().__init__()
        self.model, self.how, self.preparation = model, how, model.preparation
        self.vision, self.text, self.head = model.vision, model.text, model.head
        self.frozen = unfreeze(model, how)
        if how.checkpointing:
            for block in (*self.vision.encoder.layers, *self.text.encoder.layer):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        self._learnt: tuple[RewardMaterial, Groups] | None = None

    def open(
        self, dataset: Dataset, groups: Groups, shelf: Shelf, *, altered: bool, pad: bool = False
    ) -> RewardMaterial:
        """Open the images, and run the frozen blocks where their states are to be kept.

        The first data set that is opened is the one that is learnt from: its rewards are made standard.
        """
        pictures = open_pictures(dataset, groups.keys, self.preparation, shelf, pad=pad)
        images = StateBank(
            "image-states",
            pictures,
            self._below,
            None if altered or self.frozen == 0 else shelf,
            self.how.cache_bytes,
            label="frozen blocks",
        )
        words = self.model.tokenizer.batch(groups.prompts)
        material = RewardMaterial(images, words.ids.to(self.device), words.mask.to(self.device))
        if self._learnt is None:
            self._learnt = material, groups
        return material

    def forward(
        self, material: RewardMaterial, batch: Batch, change: Change | None = None
    ) -> Float[Tensor, "groups most"]:
        """Score the images of a batch; each image is encoded once, and read once with each of its prompts."""
        shown, mask = shown_in(batch), batch.mask
        columns = (shown.image, shown.prompt[:, None])
        read = torch.stack([column.expand_as(mask)[mask] for column in columns])
        read, where = read.unique(dim=1, return_inverse=True)
        rewards = self._rewards(material, shown.images, read[0], shown.prompts[read[1]], change)
        scores = rewards.new_zeros(mask.shape)
        scores[mask.to(rewards.device)] = rewards[where.to(rewards.device)]
        return scores

    def standard(self) -> tuple[float, float]:
        """Give mean and deviation of the raw reward over the images of the training choices, as it is now.

        Each (image, prompt) counts once; of more than 10,000 that many are taken, evenly. The official ones
        (0.167 and 1.033) are of its authors' data. Where all rewards are the same the deviation is given as 1.
        """
        assert self._learnt is not None
        material, groups = self._learnt
        mask = groups.all.mask
        prompt = groups.all.prompt[:, None].expand_as(mask)[mask]
        seen = torch.stack([groups.all.images[mask], prompt]).unique(dim=1)
        taken = torch.arange(min(seen.shape[1], STANDARD_FROM)) * seen.shape[1]
        image, prompt = seen[:, taken // len(taken)]
        parts = []
        with torch.no_grad():
            for cut in torch.arange(len(image)).split(_AT_ONCE):
                own, place = image[cut].unique(return_inverse=True)
                parts.append(self._rewards(material, own, place, prompt[cut]).double().cpu())
        rewards = torch.cat(parts)
        return float(rewards.mean()), float(rewards.std(correction=0)) or 1.0

    def save(self, folder: Path, **about: object) -> list[str]:
        """Write a folder that Palate loads, with the standardisation of what was learnt from.

        The base's card speaks of the base: its scorer, source and licence are not those of what was trained.
        """
        for part in (self.vision, self.text, self.head):
            part.requires_grad_(requires_grad=False)
        mean, std = self.standard()
        model = replace(self.model, mean=mean, std=std, about={})
        save_image_reward(model, folder, half=False, unit=self.unit, **about)
        return ["config.json", "model.safetensors", "vocab.txt", CARD]

    def _rewards(
        self,
        material: RewardMaterial,
        images: Int[Tensor, " images"],
        image: Int[Tensor, " read"],
        prompts: Int[Tensor, " read"],
        change: Change | None = None,
    ) -> Float[Tensor, " read"]:
        """Encode some images, and read each ``image`` (a place among them) with the prompt at the same place."""
        states = self._above(material.images.states(images, change))
        places = prompts.to(self.device)
        return self.model.raw_reward(
            states[image.to(self.device)], material.ids[places], material.mask[places]
        )

    def _below(self, pictures: Tensor) -> Tensor:
        """Run the frozen part of the image tower."""
        pixels = normalise(pictures.to(self.device), self.preparation)
        if self.frozen == 0:
            return pixels
        with torch.no_grad():
            if self.frozen is None:
                return self.model.image_states(pixels)
            return self.model.image_blocks(self.model.image_stem(pixels), 0, self.frozen - 1)

    def _above(self, states: Tensor) -> Float[Tensor, "images patches width"]:
        """Run the rest of it."""
        states = states.to(self.device)
        if self.frozen is None:
            return states
        if self.frozen == 0:
            return self.model.image_rest(self.model.image_stem(states), 0)
        return self.model.image_rest(states, self.frozen - 1)


def unfreeze(model: ImageReward, how: Trained) -> int | None:
    """Mark what is trained; give how much of the image tower stays, as :class:`palate.training.banks.Frozen` counts.

    Raises SettingsError if a tower has fewer layers than are asked for.
    """
    vision: Any = model.vision
    text: Any = model.text
    blocks, layers = list(vision.encoder.layers), list(text.encoder.layer)
    for name, tower in (("image_layers", blocks), ("text_layers", layers)):
        if (asked := getattr(how, name)) > len(tower) + 1:
            raise SettingsError(
                f"{name} is {asked}, but this tower has {len(tower) + 1} layers to train"
            )
    for part in (vision, text, model.head):
        part.requires_grad_(requires_grad=False)
    kept = len(blocks) - how.image_layers
    trained: list[nn.Module] = [
        *blocks[max(0, kept) :],
        *layers[max(0, len(layers) - how.text_layers) :],
    ]
    trained += [vision.post_layernorm] if how.image_layers else []
    trained += [vision] if kept < 0 else []
    trained += [text.embeddings] if how.text_layers > len(layers) else []
    for part in trained:
        part.requires_grad_(requires_grad=True)
    for name, value in model.head.named_parameters():
        value.requires_grad_(not name.endswith("bias"))
    if kept < 0:
        return 0
    return 1 + kept if how.image_layers else None

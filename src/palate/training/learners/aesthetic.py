"""An aesthetic head that learns from choices, on the image features of a CLIP that stays as it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palate.data.tables import Dataset
from palate.errors import CheckpointError
from palate.models.aesthetic import HEAD, AestheticHead, load_head, save_head
from palate.models.clip import Clip
from palate.models.clip_files import CARD, load_clip, save_clip
from palate.training.banks import ImageBank
from palate.training.batches import Batch, Groups
from palate.training.learners.learner import Change, Learner, open_pictures, shown_in
from palate.training.stores import Shelf


@dataclass(frozen=True, slots=True, eq=False)
class AestheticBase:
    """A CLIP, and the head on its image features that a training starts from; a new one rates all images 0."""

    clip: Clip
    head: AestheticHead

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.clip.device

    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change with the CLIP, the kind of head and any of its weights."""
        parts = self.clip.fingerprint() + self.head.fingerprint()
        return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()


def load_aesthetic_base(
    path: Path,
    *,
    tokenizer: Path | None = None,
    architecture: Path | None = None,
    device: str = "cpu",
) -> AestheticBase:
    """Read a CLIP and the head in its folder (``head.safetensors``), else a new linear head of zeros.

    Folders with a head are those that ``palate train`` and ``palate convert`` write. Raises CheckpointError,
    also for a head that was fitted to features of another width.
    """
    clip = load_clip(path, tokenizer=tokenizer, architecture=architecture, device=device)
    width = clip.model.config.projection_dim
    if not (path / HEAD).is_file():
        zero = torch.zeros(1, width, device=device), torch.zeros(1, device=device)
        return AestheticBase(clip, AestheticHead("laion-v1", width, (zero,)))
    head = load_head(path / HEAD, device=device)
    if head.width != width:
        raise CheckpointError(
            f"{path / HEAD}: takes features of {head.width} numbers, but the CLIP beside it gives {width}"
        )
    return AestheticBase(clip, head)


class AestheticLearner(Learner):
    """Rates images by a head on a frozen CLIP's image features, whatever their prompts.

    A CLIP alone gets one linear layer, as LAION's first head has; a head that is there is trained as it is, all
    its layers. LAION fitted its heads to ratings by the squared error; here they learn from choices, so that
    ratings are logits: their softmax over the images of a choice is how often people would pick each.
    Dropout, which LAION's five layers were trained with, is left out.

    What is added to every rating alike cancels within a choice, so that no loss says anything of it. The last
    bias is therefore not trained, nor any other where nothing but linear layers follow.
    """

    unit = "logit"

    def __init__(self, base: AestheticBase) -> None:
        """Take copies of the head's layers."""
        super().__init__()
        self.base, self.preparation = base, base.clip.preparation
        self.weights = nn.ParameterList(weight.clone() for weight, _ in base.head.layers)
        self.biases = nn.ParameterList(bias.clone() for _, bias in base.head.layers)
        last = len(self.biases) - 1
        for place, bias in enumerate(self.biases):
            bias.requires_grad_(base.head.kind == "laion-v2-relu" and place < last)

    def open(
        self, dataset: Dataset, groups: Groups, shelf: Shelf, *, altered: bool, pad: bool = False
    ) -> ImageBank:
        """Open the images and compute their features once, unless they are altered in each step."""
        pictures = open_pictures(dataset, groups.keys, self.preparation, shelf, pad=pad)
        return ImageBank(self.base.clip, pictures, None, None if altered else shelf)

    def forward(
        self, material: ImageBank, batch: Batch, change: Change | None = None
    ) -> Float[Tensor, "groups most"]:
        """Rate the images of a batch, the head in 32 bits."""
        shown = shown_in(batch)
        features = material.features(shown.images, change)
        with torch.autocast(features.device.type, enabled=False):
            ratings = self.head().rate(features)
        return ratings[shown.image.to(ratings.device)]

    def head(self) -> AestheticHead:
        """Give the head as it is now."""
        layers = tuple(zip(self.weights, self.biases, strict=True))
        return replace(self.base.head, layers=layers)

    def save(self, folder: Path, **about: object) -> list[str]:
        """Write a folder with the head and its CLIP, which `palate score` reads.

        The base's card speaks of the base: its scorer, source and licence are not those of what was trained.
        """
        save_head(self.head(), folder / HEAD)
        save_clip(replace(self.base.clip, about={}), folder, half=False, unit=self.unit, **about)
        return [HEAD, "config.json", "model.safetensors", CARD]

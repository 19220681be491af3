"""The promise of a learner: images opened once, scores with gradients, and a folder at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import Parameter

from palate.data.tables import Dataset, image_path
from palate.errors import DataError, SettingsError
from palate.models.pixels import Preparation, open_picture, squares
from palate.training.batches import Batch, Groups
from palate.training.stores import Shelf

Pictures = UInt8[Tensor, "images 3 size size"]
Change = Callable[[Pictures, Int[Tensor, " images"]], Pictures]
"""Alters pictures before a network sees them; told which images they are."""


@runtime_checkable
class Base(Protocol):
    """A model that a training starts from."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change with any weight, the tokens or the preparation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Which layers of the towers are trained, and how many bytes the states below them may take.

    See :class:`palate.training.settings.TrainSettings`.
    """

    image_layers: int = 3
    text_layers: int = 3
    counting: Literal["blocks", "openclip"] = "blocks"
    cache_bytes: float = 4e9
    checkpointing: bool = False


class Learner(nn.Module, ABC):
    """A preference model in training.

    ``forward(material, batch, change)`` gives a score for every image of every choice (groups × most, higher
    is better), already multiplied by the model's scale; what stands in the padding has no meaning.
    ``material`` is what :meth:`open` made of a data set. All is on ``device``.
    """

    unit: str
    preparation: Preparation

    @abstractmethod
    def open(
        self, dataset: Dataset, groups: Groups, shelf: Shelf, *, altered: bool, pad: bool = False
    ) -> Any:
        """Open the images of a data set, and run what is frozen where its states are to be kept.

        ``altered`` says that pictures will be changed, so that no state of them can be kept. ``pad`` brings their longer edge
        to the square and pads with black, whatever the preparation of the scorer does.
        """

    @abstractmethod
    def forward(
        self, material: Any, batch: Batch, change: Change | None = None
    ) -> Float[Tensor, "groups most"]:
        """Score the images of a batch."""

    @abstractmethod
    def save(self, folder: Path, **about: object) -> list[str]:
        """Write a folder that `palate score` reads; give the names of its files, the card last."""

    def after_step(self) -> None:
        """Restore constraints after an update."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.parameters()).device

    def trained(self) -> dict[str, Parameter]:
        """Give the parameters that are trained, by name. Raises SettingsError if there is none."""
        found = {name: value for name, value in self.named_parameters() if value.requires_grad}
        if not {name for name in found if not name.endswith("logit_scale")}:
            raise SettingsError("image_layers and text_layers leave nothing to train")
        return found

    def scale(self) -> Tensor:
        """Give the factor before the loss; 1 where there is none."""
        return torch.ones(())


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The distinct images and prompts of a batch, and where each choice finds its own.

    ``images`` and ``prompts`` are places in the groups' lists; ``image`` (groups × most) and ``prompt``
    (groups) are places in those. Padding points at some image; the mask hides it.
    """

    images: Int[Tensor, " images"]
    prompts: Int[Tensor, " prompts"]
    image: Int[Tensor, "groups most"]
    prompt: Int[Tensor, " groups"]


def shown_in(batch: Batch) -> Shown:
    """Find the distinct images and prompts of a batch, so that each is encoded once."""
    images, where = batch.images[batch.mask].unique(return_inverse=True)
    prompts, prompt = batch.prompt.unique(return_inverse=True)
    image = torch.zeros_like(batch.images)
    image[batch.mask] = where
    return Shown(images, prompts, image, prompt)


def open_pictures(
    dataset: Dataset,
    keys: Sequence[str],
    preparation: Preparation,
    shelf: Shelf,
    *,
    pad: bool = False,
    workers: int = 2,
) -> Pictures:
    """Open the images of these keys, in this order, and make squares of them; ``pad`` keeps all of each image.

    Raises DataError or ImageError naming the first image that is unknown or cannot be read.
    """
    if pad:
        preparation = padded(preparation)
    table = dataset.images.select(["image", "path"])
    known = dict(zip(table["image"].to_pylist(), table["path"].to_pylist(), strict=True))

    def one(key: str) -> Tensor:
        if key not in known:
            raise DataError(
                f"{dataset.folder}: a choice shows image '{key}', which is not in the table of images"
            )
        path = image_path({"image": key, "path": known[key]}, dataset.folder)
        return squares([open_picture(path)], preparation)[0]

    with ThreadPoolExecutor(workers) as pool:

        def part(cut: slice) -> Tensor:
            return torch.stack(list(pool.map(one, keys[cut])))

        return shelf.fill("pictures", len(keys), part, label="opening images")


def padded(preparation: Preparation) -> Preparation:
    """Bring the longer edge to the square and pad with black, as HPS and HPS v2 were trained."""
    return replace(preparation, resize="longer", pad=0.0)

"""Images and prompts of a data set, with everything below the first trainable block computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palate.models.pixels import normalise
from palate.models.towers import Towers
from palate.training.learners.learner import Change, Pictures
from palate.training.states import StateBank
from palate.training.stores import Shelf


@dataclass(frozen=True, slots=True)
class Frozen:
    """How many parts of each tower stay as they are, counted from the input.

    0: all of the tower is trained. 1: its embedding is frozen. 1 + k: also its first k blocks.
    ``None``: all of it is frozen, with the head.
    """

    image: int | None
    text: int | None


class ImageBank:
    """Pictures as the tower sees them, and their features.

    Pictures are opened once. On a ``shelf`` the states that enter the first trainable block are kept
    too, if they fit into ``room`` bytes, so that a step costs only what it trains; else the frozen part
    is run every time.
    """

    def __init__(
        self,
        towers: Towers,
        pictures: Pictures,
        frozen: int | None,
        shelf: Shelf | None = None,
        room: float = math.inf,
    ) -> None:
        """Run the frozen part over all pictures if it is to be kept."""
        self.towers, self.frozen = towers, frozen
        kept = None if frozen == 0 else shelf
        self.bank = StateBank(
            "image-states", pictures, self._below, kept, room, label="frozen blocks"
        )

    @property
    def cached(self) -> bool:
        """Whether the frozen part ran once for all."""
        return self.bank.kept is not None

    def features(
        self, places: Int[Tensor, " images"], change: Change | None = None
    ) -> Float[Tensor, "images dim"]:
        """Give unit-length features of some pictures, with gradients to what is trained.

        ``change`` alters the pictures first; it needs a bank without kept states.
        """
        return self._above(self.bank.states(places, change).to(self.towers.device))

    def _below(self, pictures: Pictures) -> Tensor:
        """Run the frozen part."""
        pixels = normalise(pictures.to(self.towers.device), self.towers.preparation)
        if self.frozen == 0:
            return pixels
        with torch.no_grad():
            if self.frozen is None:
                return self.towers.image_features(pixels)
            return self.towers.image_blocks(self.towers.image_stem(pixels), 0, self.frozen - 1)

    def _above(self, state: Tensor) -> Float[Tensor, "images dim"]:
        """Run the trained part."""
        if self.frozen is None:
            return state
        if self.frozen == 0:
            return self.towers.image_rest(self.towers.image_stem(state), 0)
        return self.towers.image_rest(state, self.frozen - 1)


class TextBank:
    """Prompts as tokens, and their features; as :class:`ImageBank`."""

    def __init__(
        self,
        towers: Towers,
        prompts: Sequence[str],
        frozen: int | None,
        shelf: Shelf | None = None,
        room: float = math.inf,
    ) -> None:
        """Run the frozen part over all prompts if it is to be kept."""
        self.towers, self.frozen = towers, frozen
        self.ids = towers.tokenizer.batch(prompts).ids.to(towers.device)
        kept = None if frozen == 0 else shelf
        self.bank = StateBank("text-states", self.ids, self._below, kept, room)

    def features(self, places: Int[Tensor, " prompts"]) -> Float[Tensor, "prompts dim"]:
        """Give unit-length features of some prompts, with gradients to what is trained."""
        ids = self.ids[places.to(self.ids.device)]
        state = self.bank.states(places).to(self.towers.device)
        if self.frozen is None:
            return state
        if self.frozen == 0:
            return self.towers.text_rest(self.towers.text_stem(ids), 0, ids)
        return self.towers.text_rest(state, self.frozen - 1, ids)

    def _below(self, ids: Int[Tensor, "prompts context"]) -> Tensor:
        """Run the frozen part."""
        if self.frozen == 0:
            return ids
        with torch.no_grad():
            if self.frozen is None:
                return self.towers.text_features(ids)
            return self.towers.text_blocks(self.towers.text_stem(ids), 0, self.frozen - 1)

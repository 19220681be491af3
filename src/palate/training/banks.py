"""Images and prompts in memory, with everything below the first trainable block computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from palate.data.tables import image_path
from palate.errors import DataError
from palate.models.clip import Clip, encode_prompts
from palate.models.pixels import normalise, open_picture, squares
from palate.runs import track

_CHUNK = 128

Change = Callable[[UInt8[Tensor, "images 3 size size"]], UInt8[Tensor, "images 3 size size"]]


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

    Pictures are decoded once. With ``cached`` the state that enters the first trainable block is
    kept too, so that a step costs only what it trains; without, the frozen part is run every time.
    """

    def __init__(
        self,
        clip: Clip,
        pictures: UInt8[Tensor, "images 3 size size"],
        frozen: int | None,
        *,
        cached: bool,
    ) -> None:
        """Run the frozen part over all pictures if it is to be cached."""
        self.clip, self.pictures, self.frozen = clip, pictures, frozen
        self.states: Tensor | None = None
        if cached and frozen != 0:
            self.states = _in_chunks(
                len(pictures), lambda cut: self._below(pictures[cut]), "frozen blocks"
            )

    def features(
        self, places: Int[Tensor, " images"], change: Change | None = None
    ) -> Float[Tensor, "images dim"]:
        """Give unit-length features of some pictures, with gradients to what is trained.

        ``change`` alters the pictures first; it needs a bank without cached states.
        """
        if self.states is not None:
            if change is not None:
                raise AssertionError("pictures cannot change below a cached state")
            return self._above(self.states[places].to(self.clip.device))
        pictures = self.pictures[places]
        return self._above(self._below(pictures if change is None else change(pictures)))

    def _below(self, pictures: UInt8[Tensor, "images 3 size size"]) -> Tensor:
        """Run the frozen part."""
        pixels = normalise(pictures.to(self.clip.device), self.clip.preparation)
        if self.frozen == 0:
            return pixels
        with torch.no_grad():
            if self.frozen is None:
                return self.clip.image_features(pixels)
            return self.clip.image_blocks(self.clip.image_stem(pixels), 0, self.frozen - 1)

    def _above(self, state: Tensor) -> Float[Tensor, "images dim"]:
        """Run the trained part."""
        if self.frozen is None:
            return state
        if self.frozen == 0:
            return self.clip.image_features(state)
        return self.clip.image_head(self.clip.image_blocks(state, self.frozen - 1))


class TextBank:
    """Prompts as tokens, and their features; as :class:`ImageBank`."""

    def __init__(
        self, clip: Clip, prompts: Sequence[str], frozen: int | None, *, cached: bool
    ) -> None:
        """Run the frozen part over all prompts if it is to be cached."""
        self.clip, self.frozen = clip, frozen
        self.ids = encode_prompts(clip, prompts)
        self.states: Tensor | None = None
        if cached and frozen != 0:
            self.states = _in_chunks(len(self.ids), lambda cut: self._below(self.ids[cut]), "")

    def features(self, places: Int[Tensor, " prompts"]) -> Float[Tensor, "prompts dim"]:
        """Give unit-length features of some prompts, with gradients to what is trained."""
        ids = self.ids[places.to(self.ids.device)]
        state = (
            self._below(ids) if self.states is None else self.states[places].to(self.clip.device)
        )
        if self.frozen is None:
            return state
        if self.frozen == 0:
            return self.clip.text_features(ids)
        return self.clip.text_head(self.clip.text_blocks(state, self.frozen - 1), ids)

    def _below(self, ids: Int[Tensor, "prompts context"]) -> Tensor:
        """Run the frozen part."""
        if self.frozen == 0:
            return ids
        with torch.no_grad():
            if self.frozen is None:
                return self.clip.text_features(ids)
            return self.clip.text_blocks(self.clip.text_stem(ids), 0, self.frozen - 1)


def decode_pictures(
    clip: Clip, keys: Sequence[str], images: Any, folder: Path, workers: int = 2
) -> UInt8[Tensor, "images 3 size size"]:
    """Open, resize and crop the images of these keys, in this order.

    Raises DataError or ImageError naming the first image that is unknown or cannot be read.
    """
    known = dict(zip(images["image"].to_pylist(), images["path"].to_pylist(), strict=True))
    size = clip.preparation.size

    def one(key: str) -> Tensor:
        if key not in known:
            raise DataError(
                f"{folder}: a choice shows image '{key}', which is not in the table of images"
            )
        path = image_path({"image": key, "path": known[key]}, folder)
        return squares([open_picture(path)], clip.preparation)[0]

    decoded = torch.empty(len(keys), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor(workers) as pool:
        for start in track(range(0, len(keys), _CHUNK), "opening images"):
            part = keys[start : start + _CHUNK]
            for place, picture in enumerate(pool.map(one, part), start):
                decoded[place] = picture
    return decoded


def state_bytes(clip: Clip, images: int) -> int:
    """Give the memory that cached states of so many images take."""
    vision = clip.model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    size: int = 4 * images * patches * vision.hidden_size
    return size


def _in_chunks(count: int, compute: Callable[[slice], Tensor], label: str) -> Tensor:
    """Compute states in parts of a fixed size, so that they are the same after a restart."""
    cuts = [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]
    watched = track(cuts, label) if label else iter(cuts)
    states: Tensor | None = None
    for cut in watched:
        part = compute(cut).detach().cpu()
        if states is None:
            states = torch.empty(count, *part.shape[1:], dtype=part.dtype)
        states[cut] = part
    if states is None:
        raise DataError("there is nothing to train on")
    return states

"""The promise of a scorer, and the part that all scorers with a network share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from palate.errors import DataError
from palate.models.pixels import Preparation, area_kept, finish, prepare_tensor, ready
from palate.scoring.card import Card, make_card
from palate.scoring.given import Picture, as_items, as_picture, as_pixels, paired, split_kinds

_REMEMBERED_BYTES = 256 * 2**20
_AT_ONCE = 32


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The scores of some images, in their order, and how much of prompt and image was read.

    ``values`` are float64 in the scorer's unit, higher is better. ``tokens_given`` and ``tokens_kept`` count the
    tokens of the prompt and those that the scorer saw; they differ where a prompt was cut, and are 0 for a scorer that
    reads no prompt. ``area_kept`` is the share of the image's area that was not cropped away, from 0 to 1.
    """

    values: NDArray[np.float64]
    tokens_given: NDArray[np.int32]
    tokens_kept: NDArray[np.int32]
    area_kept: NDArray[np.float64]


class Scorer(ABC):
    """Judges how much people would like an image for a prompt; higher is better.

    Every scorer promises, and :func:`palate.scoring.promises.check_scorer` tests: its scores are finite; they are the
    same alone and in any batch; they follow their image under reordering; they are the same twice; nothing in gives
    nothing out; the inputs stay as they are; and gradients reach the pixels of :meth:`forward`.
    """

    reads_prompts: bool = True
    """False for a scorer that looks at the image alone."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the column ``scorer`` says."""

    @property
    @abstractmethod
    def dimension(self) -> str:
        """What is judged, such as ``overall``."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """Unit of the scores; :mod:`palate.scoring.units` lists those of Palate."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that decides a score: weights, tokens, preparation, unit."""

    @abstractmethod
    def judge(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scored:
        """Score each image for the prompt at the same place, and say how much of both was read.

        Images have any size and mode. A single text instead of a sequence is the prompt of every image. Raises
        DataError if there are not as many prompts as images.
        """

    @abstractmethod
    def forward(
        self, pixels: Float[Tensor, "images 3 height width"], prompts: Sequence[str]
    ) -> Float[Tensor, " images"]:
        """Score pixels in [0, 1], with gradients to the pixels."""

    def facts(self) -> Mapping[str, Any]:
        """Give what the card says beside name, dimension, unit and fingerprint."""
        return {}

    @final
    def card(self) -> Card:
        """Say in plain values which function this is: unit and direction, weights, profile, preparation."""
        return make_card(self.name, self.dimension, self.unit, self.fingerprint, self.facts())

    @final
    def score(self, images: Any, prompts: Any = None) -> NDArray[np.float32]:
        """Score images for their prompts: float32, one number per image, higher is better.

        Args:
            images: one or several paths, Pillow images, or tensors: 8-bit, or floats in [0, 1], each 3 × height ×
                width, or a batch of them. Files, Pillow images and 8-bit pixels are prepared as officially; floats as
                :meth:`forward` does. Files are opened a few at a time.
            prompts: one text for all images, or one for each; only a scorer that reads none can do without.

        Raises:
            DataError: anything else, or another number of prompts than of images.
            ImageError: a file that cannot be opened.
        """
        items = as_items(images)
        if prompts is None and self.reads_prompts:
            raise DataError(f"{self.name} reads prompts, expected a text or one for each image")
        texts = paired(len(items), "" if prompts is None else prompts)
        values = np.empty(len(items), dtype=np.float32)
        for start in range(0, len(items), _AT_ONCE):
            here = slice(start, start + _AT_ONCE)
            pictures = [as_picture(item, place) for place, item in enumerate(items[here], start)]
            values[here] = self._score_some(pictures, texts[here])
        return values

    def _score_some(self, pictures: list[Picture], texts: list[str]) -> NDArray[np.float32]:
        values = np.empty(len(pictures), dtype=np.float32)
        plain, tensors = split_kinds(pictures)
        judged = self.judge([pictures[i] for i in plain], [texts[i] for i in plain])  # type: ignore[misc]
        values[plain] = judged.values
        with torch.no_grad():
            for i in tensors:
                one: Tensor = pictures[i]  # type: ignore[assignment]
                values[i] = float(self.forward(one.float()[None], [texts[i]]))
        return values


class Eye:
    """How a scorer looks at images: their preparation and the image tower.

    Two eyes with the same ``key`` give the same features of the same image, so scorers can share them.
    """

    def __init__(
        self,
        look: Callable[[Tensor], Tensor],
        preparation: Preparation,
        device: torch.device,
        identify: Callable[[], str],
    ) -> None:
        """Take the tower as a function of prepared pixels; ``identify`` hashes it when that is asked for."""
        self.look, self.preparation, self.device = look, preparation, device
        self._identify = identify

    @cached_property
    def key(self) -> str:
        """Hash of the tower and its preparation."""
        return self._identify()

    def see(self, images: Sequence[Image.Image]) -> Tensor:
        """Give the features of pictures."""
        return self.see_ready([ready(image, self.preparation) for image in images])

    def see_ready(self, pixels: Sequence[NDArray[np.uint8] | NDArray[np.float32]]) -> Tensor:
        """Give the features of what :func:`palate.models.pixels.ready` made of pictures."""
        with torch.inference_mode():
            return self.look(finish(pixels, self.preparation, str(self.device)))

    def see_tensor(self, pixels: Float[Tensor, "images 3 height width"]) -> Tensor:
        """Give the features of pixels in [0, 1], with gradients."""
        return self.look(prepare_tensor(pixels.to(self.device), self.preparation))


@dataclass(frozen=True, slots=True)
class Read:
    """Prompts as a network reads them: any number of tensors, one row per prompt, and the token counts."""

    states: tuple[Tensor, ...]
    given: NDArray[np.int32]
    kept: NDArray[np.int32]


@dataclass(slots=True)
class _Memory:
    """The prompts seen last, with what the network made of them, up to a number of bytes."""

    rows: OrderedDict[str, tuple[tuple[Tensor, ...], int, int]] = field(default_factory=OrderedDict)
    size: int = 0

    def add(self, prompt: str, states: tuple[Tensor, ...], given: int, kept: int) -> None:
        """Remember a prompt."""
        self.rows[prompt] = (states, given, kept)
        self.size += _bytes(states)

    def forget(self) -> None:
        """Drop the prompts that were not asked for longest."""
        while self.size > _REMEMBERED_BYTES and len(self.rows) > 1:
            _, (states, _, _) = self.rows.popitem(last=False)
            self.size -= _bytes(states)


def _bytes(states: tuple[Tensor, ...]) -> int:
    return sum(state.numel() * state.element_size() for state in states)


class NetworkScorer(Scorer):
    """A scorer that looks at the image, reads the prompt, and compares the two.

    A kind of network says how it reads prompts (:meth:`read`) and how it compares (:meth:`compare`). What was read is
    remembered, so that a prompt costs once, whatever its number of images; ``batch`` images are looked at at a time.
    """

    batch: int = 32

    def __init__(
        self,
        eye: Eye,
        name: str,
        unit: str,
        dimension: str = "overall",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the eye and the names; ``about`` goes on the card."""
        self.eye, self.about = eye, dict(about or {})
        self._name, self._unit, self._dimension = name, unit, dimension
        self._memory, self._lock = _Memory(), Lock()

    @property
    def name(self) -> str:
        """What the column ``scorer`` says."""
        return self._name

    @property
    def dimension(self) -> str:
        """What is judged."""
        return self._dimension

    @property
    def unit(self) -> str:
        """Unit of the scores."""
        return self._unit

    @abstractmethod
    def identify(self) -> str:
        """Hash weights, tokens, preparation and whatever else decides a score, but the unit."""

    @abstractmethod
    def read(self, prompts: Sequence[str]) -> Read:
        """Read distinct prompts, without gradients."""

    @abstractmethod
    def compare(self, seen: Tensor, states: tuple[Tensor, ...]) -> Float[Tensor, " images"]:
        """Give the scores of images from their features and those of their prompts, row by row."""

    @final
    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides a score; the precision is float32."""
        return f"{self.identify()}-{self._unit}-float32"

    @final
    def facts(self) -> Mapping[str, Any]:
        """Give what the card says of weights, profile and preparation."""
        return {**self.about, "precision": "float32", "preparation": self.eye.preparation}

    @final
    def judge(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scored:
        """Score each image for the prompt at the same place."""
        texts = paired(len(images), prompts)
        cuts = [slice(start, start + self.batch) for start in range(0, len(images), self.batch)]
        parts = [
            self.judge_seen(
                self.eye.see(images[cut]), [image.size for image in images[cut]], texts[cut]
            )
            for cut in cuts
        ]
        return join_scored(parts)

    @final
    def judge_seen(
        self, seen: Tensor, sizes: Sequence[tuple[int, int]], prompts: Sequence[str]
    ) -> Scored:
        """Score images whose features are known already; ``sizes`` are their width and height in pixels."""
        read = self._read(prompts)
        with torch.inference_mode():
            values = self.compare(seen, read.states).to("cpu", torch.float64).numpy()
        how = self.eye.preparation
        area = np.array([area_kept(height, width, how) for width, height in sizes])
        return Scored(values, read.given, read.kept, area)

    @final
    def forward(
        self, pixels: Float[Tensor, "images 3 height width"], prompts: Sequence[str]
    ) -> Float[Tensor, " images"]:
        """Score pixels in [0, 1], with gradients to the pixels (not to the text)."""
        pixels = as_pixels(pixels)
        texts = paired(len(pixels), prompts)
        if len(pixels) == 0:
            return pixels.sum((1, 2, 3))
        return self.compare(self.eye.see_tensor(pixels), self._read(texts).states)

    def _read(self, prompts: Sequence[str]) -> Read:
        """Read prompts, each distinct one once; one thread at a time."""
        with self._lock:
            return self._read_alone(prompts)

    def _read_alone(self, prompts: Sequence[str]) -> Read:
        memory = self._memory
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in memory.rows]
        for start in range(0, len(new), self.batch):
            chunk = new[start : start + self.batch]
            # Not inference mode: such tensors could not take part in the gradients of `forward`.
            with torch.no_grad():
                read = self.read(chunk)
            for row, prompt in enumerate(chunk):
                states = tuple(state[row].clone() for state in read.states)
                memory.add(prompt, states, int(read.given[row]), int(read.kept[row]))
        rows = [memory.rows[prompt] for prompt in prompts]
        for prompt in prompts:
            memory.rows.move_to_end(prompt)
        memory.forget()
        columns = zip(*(states for states, _, _ in rows), strict=True)
        return Read(
            tuple(torch.stack(column) for column in columns),
            np.array([given for _, given, _ in rows], dtype=np.int32),
            np.array([kept for _, _, kept in rows], dtype=np.int32),
        )


def join_scored(parts: Sequence[Scored]) -> Scored:
    """Put scores one after the other; no parts give no scores."""
    counts: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
    numbers: list[NDArray[np.float64]] = [np.zeros(0)]
    return Scored(
        np.concatenate([*numbers, *(part.values for part in parts)]),
        np.concatenate([*counts, *(part.tokens_given for part in parts)]),
        np.concatenate([*counts, *(part.tokens_kept for part in parts)]),
        np.concatenate([*numbers, *(part.area_kept for part in parts)]),
    )

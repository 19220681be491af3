"""The promise of a scorer, and the part that all scorers with a network share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from palate.models.pixels import area_kept
from palate.scoring.card import Card, make_card
from palate.scoring.engine import Engine
from palate.scoring.eye import Eye
from palate.scoring.given import Picture, as_items, as_picture, as_pixels, paired, split_kinds
from palate.scoring.reading import OnePrompt, PromptMemory, PromptStore, storable

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


@dataclass(frozen=True, slots=True)
class Read:
    """Prompts as a network reads them: any number of tensors, one row per prompt, and the token counts."""

    states: tuple[Tensor, ...]
    given: NDArray[np.int32]
    kept: NDArray[np.int32]


class NetworkScorer(Scorer):
    """A scorer that looks at the image, reads the prompt, and compares the two.

    A kind of network says how it reads prompts (:meth:`read`) and how it compares (:meth:`compare`). What was read is
    remembered, so that a prompt costs once, whatever its number of images; ``batch`` images are looked at at a time.
    Given a ``store``, what was read is kept there as well.
    """

    batch: int = 32
    store: PromptStore | None = None

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
        self._memory, self._lock = PromptMemory(), Lock()

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
        """Hash of all that decides a score, with unit and precision."""
        return f"{self.identify()}-{self._unit}-{self.eye.engine.precision}"

    @final
    def facts(self) -> Mapping[str, Any]:
        """Give what the card says of weights, profile and preparation."""
        how = self.eye.engine
        engine = {"precision": how.precision, "backend": how.backend}
        return {**self.about, **engine, "preparation": self.eye.preparation}

    @final
    def use(self, engine: Engine) -> None:
        """Compute the image tower on another engine from now on; the fingerprint tells the precision."""
        self.eye = self.eye.on(engine)
        self.__dict__.pop("fingerprint", None)

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

    @final
    def forget(self) -> None:
        """Drop the prompts that were read, but for those in the store."""
        with self._lock:
            self._memory = PromptMemory()

    @final
    def read_ahead(self, prompts: Sequence[str]) -> None:
        """Read prompts that are not remembered, many at a time, for scores that are asked for next."""
        with self._lock:
            self._remember(prompts)

    def _read_alone(self, prompts: Sequence[str]) -> Read:
        self._remember(prompts)
        rows = self._memory.take(prompts)
        columns = zip(*(row.states for row in rows), strict=True)
        return Read(
            tuple(torch.stack(column) for column in columns),
            np.array([row.given for row in rows], dtype=np.int32),
            np.array([row.kept for row in rows], dtype=np.int32),
        )

    def _remember(self, prompts: Sequence[str]) -> None:
        new = self._memory.new(prompts)
        if new and self.store is not None:
            self._memory.recall(new, self.store, self._space, self.eye.device)
            new = self._memory.new(new)
        for start in range(0, len(new), self.batch):
            self._learn(new[start : start + self.batch])

    def _learn(self, prompts: Sequence[str]) -> None:
        """Read prompts that are not remembered."""
        # Not inference mode: such tensors could not take part in the gradients of `forward`.
        with torch.no_grad():
            read = self.read(prompts)
        for row, prompt in enumerate(prompts):
            states = tuple(storable(state[row].clone()) for state in read.states)
            self._memory.add(prompt, OnePrompt(states, int(read.given[row]), int(read.kept[row])))
        if self.store is not None:
            self._memory.keep(prompts, self.store, self._space)

    @property
    def _space(self) -> str:
        return f"{self.fingerprint}-text"


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

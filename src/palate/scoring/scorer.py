"""The promise of a scorer, and the scorer of a CLIP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from palate.errors import DataError
from palate.models.clip import Clip
from palate.models.pixels import prepare, prepare_tensor

Unit = Literal["cosine", "hps", "logit"]
_REMEMBERED = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The scores of some images, in their order, and how much of each prompt was read.

    ``values`` are float64 in the scorer's unit, higher is better. ``tokens_given`` and
    ``tokens_kept`` count the tokens of the prompt and those that the scorer saw; they differ where
    a prompt was cut.
    """

    values: NDArray[np.float64]
    tokens_given: NDArray[np.int32]
    tokens_kept: NDArray[np.int32]


class Scorer(ABC):
    """Judges how much people would like an image for a prompt; higher is better.

    Every scorer promises, and :func:`palate.scoring.promises.check_scorer` tests: its scores are
    finite; they are the same alone and in any batch; they follow their image under reordering; they
    are the same twice; nothing in gives nothing out; the inputs stay as they are; and gradients
    reach the pixels of :meth:`forward`.
    """

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
        """Unit of the scores: ``cosine``, ``hps`` (100 times the cosine) or ``logit``."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that decides a score: weights, tokens, preparation, unit."""

    @abstractmethod
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scored:
        """Score each image for the prompt at the same place.

        Images have any size and mode. A single text instead of a sequence is the prompt of every
        image. Raises DataError if there are not as many prompts as images.
        """

    @abstractmethod
    def forward(
        self, pixels: Float[Tensor, "images 3 height width"], prompts: Sequence[str]
    ) -> Float[Tensor, " images"]:
        """Score pixels in [0, 1], with gradients to the pixels."""


@final
class ClipScorer(Scorer):
    """Scores by the cosine between a CLIP's image and text features, times the unit's scale.

    ``cosine`` is the cosine; ``hps`` is 100 times it, as the HPS paper defines its score; ``logit``
    is the cosine times exp(logit scale) of the weights. The features of the prompts seen last are
    remembered; ``batch`` is how many images go through the tower at once.
    """

    def __init__(
        self,
        clip: Clip,
        name: str,
        *,
        unit: Unit = "hps",
        dimension: str = "overall",
        batch: int = 32,
    ) -> None:
        """Take a loaded CLIP; it is put in evaluation mode."""
        clip.model.eval()
        self.clip, self.batch = clip, batch
        self._name, self._unit, self._dimension = name, unit, dimension
        logit = float(clip.model.logit_scale.detach().exp())
        self.scale = {"cosine": 1.0, "hps": 100.0, "logit": logit}[unit]
        self._texts: OrderedDict[str, tuple[Tensor, int, int]] = OrderedDict()

    @property
    def name(self) -> str:
        """What the column ``scorer`` says."""
        return self._name

    @property
    def dimension(self) -> str:
        """What is judged."""
        return self._dimension

    @property
    def unit(self) -> Unit:
        """Unit of the scores."""
        return self._unit

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, tokens, preparation and unit; the precision is float32."""
        return f"{self.clip.fingerprint()}-{self._unit}-float32"

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scored:
        """Score each image for the prompt at the same place."""
        prompts = _paired(len(images), prompts)
        values = np.empty(len(images), dtype=np.float64)
        given = np.empty(len(images), dtype=np.int32)
        kept = np.empty(len(images), dtype=np.int32)
        for start in range(0, len(images), self.batch):
            here = slice(start, min(start + self.batch, len(images)))
            texts, given[here], kept[here] = self._text_features(prompts[here])
            with torch.inference_mode():
                pixels = prepare(images[here], self.clip.preparation).to(self.clip.device)
                cosines = (self.clip.image_features(pixels) * texts).sum(-1)
            values[here] = self.scale * cosines.to("cpu", torch.float64).numpy()
        return Scored(values, given, kept)

    def forward(
        self, pixels: Float[Tensor, "images 3 height width"], prompts: Sequence[str]
    ) -> Float[Tensor, " images"]:
        """Score pixels in [0, 1], with gradients to the pixels (not to the text)."""
        prompts = _paired(len(pixels), prompts)
        if len(pixels) == 0:
            return pixels.sum((1, 2, 3))
        texts, _, _ = self._text_features(prompts)
        images = self.clip.image_features(prepare_tensor(pixels, self.clip.preparation))
        return self.scale * (images * texts).sum(-1)

    def _text_features(
        self, prompts: Sequence[str]
    ) -> tuple[Float[Tensor, "prompts dim"], NDArray[np.int32], NDArray[np.int32]]:
        """Give the features and token counts of prompts, computing each distinct one once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        for start in range(0, len(new), self.batch):
            chunk = new[start : start + self.batch]
            tokens = self.clip.tokenizer.batch(chunk)
            # Not inference mode: such tensors could not take part in the gradients of `forward`.
            with torch.no_grad():
                features = self.clip.text_features(tokens.ids.to(self.clip.device))
            for row, prompt in enumerate(chunk):
                counts = int(tokens.given[row]), int(tokens.kept[row])
                self._texts[prompt] = (features[row], *counts)
        rows = [self._texts[prompt] for prompt in prompts]
        for prompt in prompts:
            self._texts.move_to_end(prompt)
        while len(self._texts) > _REMEMBERED:
            self._texts.popitem(last=False)
        given = np.array([row[1] for row in rows], dtype=np.int32)
        kept = np.array([row[2] for row in rows], dtype=np.int32)
        return torch.stack([row[0] for row in rows]), given, kept


def _paired(images: int, prompts: Sequence[str]) -> list[str]:
    """Give one prompt per image."""
    if isinstance(prompts, str):
        return [prompts] * images
    if len(prompts) != images:
        raise DataError(
            f"{images} images but {len(prompts)} prompts, expected one prompt per image"
        )
    return list(prompts)

"""What a scorer sees of an image, whatever its prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from palate.errors import SettingsError
from palate.models.openvino_graph import compiled
from palate.models.pixels import Preparation, finish, prepare_tensor, ready
from palate.scoring.engine import Engine, Precision, in_bfloat16

# On a processor the states of a few images stay in its caches: 32 at once take a quarter longer.
_IN_CACHE = 4


class Eye:
    """How a scorer looks at images: their preparation, the image tower, and what computes it.

    Two eyes with the same ``key`` give the same features of the same image, so scorers can share them.
    """

    def __init__(
        self,
        trunk: Callable[[Tensor], Tensor],
        head: Callable[[Tensor], Tensor],
        preparation: Preparation,
        device: torch.device,
        identify: Callable[[], str],
        graph: Callable[[Precision], Any] | None = None,
        engine: Engine | None = None,
    ) -> None:
        """Take the tower: the ``trunk`` makes states of prepared pixels, the ``head`` features of states.

        The head is small and always float32: features that are rounded at the end lose more than the trunk loses.
        ``identify`` hashes the tower when that is asked for. ``graph`` writes the same trunk for OpenVINO. Raises
        SettingsError for an engine that the tower does not have.
        """
        engine = engine or Engine()
        if engine.backend == "openvino" and graph is None:
            raise SettingsError("the backend openvino does not know this tower, expected torch")
        self.trunk, self.head, self.preparation, self.device = trunk, head, preparation, device
        self.engine, self._identify, self._graph = engine, identify, graph

    def on(self, engine: Engine) -> Eye:
        """Give the same eye on another engine; gradients always take PyTorch in float32."""
        parts = (self.trunk, self.head, self.preparation, self.device, self._identify, self._graph)
        again = Eye(*parts, engine)
        if "_identity" in self.__dict__:
            again.__dict__["_identity"] = self._identity
        return again

    @cached_property
    def key(self) -> str:
        """Hash of the tower and its preparation, with the precision and what computes it."""
        return f"{self._identity}-{self.engine.precision}-{self.engine.backend}"

    @cached_property
    def _identity(self) -> str:
        return self._identify()

    def see(self, images: Sequence[Image.Image]) -> Tensor:
        """Give the features of pictures."""
        return self.see_ready([ready(image, self.preparation) for image in images])

    def see_ready(self, pixels: Sequence[NDArray[np.uint8] | NDArray[np.float32]]) -> Tensor:
        """Give the features of what :func:`palate.models.pixels.ready` made of pictures."""
        with torch.inference_mode():
            finished = finish(pixels, self.preparation, str(self.device))
            if not len(pixels):
                return self.look(finished)
            parts = finished.split(_IN_CACHE if self.device.type == "cpu" else len(finished))
            return self.head(torch.cat([self._quick(part) for part in parts]))

    def look(self, pixels: Float[Tensor, "images 3 size size"]) -> Tensor:
        """Give the features of prepared pixels by PyTorch in float32, with gradients."""
        return self.head(self.trunk(pixels))

    def see_tensor(self, pixels: Float[Tensor, "images 3 height width"]) -> Tensor:
        """Give the features of pixels in [0, 1], with gradients."""
        return self.look(prepare_tensor(pixels.to(self.device), self.preparation))

    @cached_property
    def _quick(self) -> Callable[[Tensor], Tensor]:
        """The trunk as the engine computes it; compiled when the first image comes."""
        if self.engine.backend == "openvino" and self._graph is not None:
            return compiled(self._graph, self.engine.precision)
        if self.engine.precision == "float32":
            return self.trunk
        return in_bfloat16(self.trunk, self.device)

"""Looking at images: each content once per tower, in batches that come out the same after an interruption."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.scoring.eye import Eye
from palate.scoring.pieces import Survey
from palate.scoring.scorer import NetworkScorer, Scorer

if TYPE_CHECKING:
    from palate.scoring.cache import FeatureCache
    from palate.scoring.workers import Opened

_REMEMBERED_BYTES = 256 * 2**20
_IMAGE_BYTES = 200_000  # of an image, about, where nobody counted them
_ENTRY = 200  # bytes that the cache needs beside the numbers of a value, about


@dataclass(slots=True)
class Store:
    """The cache as one run uses it: what would not fit for all of the run is not written, and uses are counted.

    ``expected`` values come in each space, which has ``room`` bytes. ``left_out`` are the spaces that are too large.
    """

    cache: FeatureCache
    expected: int
    room: int
    hits: int = 0
    misses: int = 0
    left_out: set[str] = field(default_factory=set)

    def get(self, space: str, keys: Sequence[str]) -> list[tuple[NDArray[Any], ...] | None]:
        """Give the value of each key, or None."""
        return self.cache.get(space, keys)

    def put(self, space: str, items: Mapping[str, tuple[NDArray[Any], ...]]) -> None:
        """Keep values, all or none, if those of the whole run have room."""
        for arrays in items.values():
            size = sum(array.nbytes for array in arrays) + _ENTRY
            if size * self.expected > self.room:
                self.left_out.add(space)
            break
        if space not in self.left_out:
            self.cache.put(space, items)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where a run keeps the features of its images and of its prompts."""

    images: Store
    texts: Store

    def counts(self) -> dict[str, Any]:
        """Say for the record how often an image's features were there, and what was not kept."""
        asked = self.images.hits + self.images.misses
        return {
            "hits": self.images.hits,
            "misses": self.images.misses,
            "hit_rate": round(self.images.hits / asked, 4) if asked else None,
            "too_large_to_keep": [
                kind
                for kind, store in (("images", self.images), ("prompts", self.texts))
                if store.left_out
            ],
        }


def shelf_for(cache: FeatureCache, survey: Survey, judges: Sequence[Scorer]) -> Shelf:
    """Share the cache's limit among all towers and all readers of prompts."""
    networks = [judge for judge in judges if isinstance(judge, NetworkScorer)]
    spaces = len({judge.eye.key for judge in networks}) + len(networks)
    room = int(0.9 * cache.limit) // max(1, spaces)
    guess = survey.size // _IMAGE_BYTES
    images, prompts = (guess if n is None else n for n in (survey.images, survey.prompts))
    return Shelf(Store(cache, images, room), Store(cache, prompts, room))


@dataclass(frozen=True, slots=True)
class Tower:
    """An eye, and the name of its features: scorers whose eyes have one name share them."""

    eye: Eye
    key: str


def find_towers(judges: Sequence[Scorer], *, named: bool) -> list[Tower]:
    """Give the distinct towers; a lone one needs a name only for the cache, and to hash its weights takes a while."""
    eyes = [judge.eye for judge in judges if isinstance(judge, NetworkScorer)]
    if len(eyes) == 1 and not named:
        return [Tower(eyes[0], "")]
    return list({eye.key: Tower(eye, eye.key) for eye in eyes}.values())


@final
class Looking:
    """One tower looking at the images of one piece.

    Images are added in the order of the rows. Those whose features are neither remembered nor kept in the cache are
    looked at, ``batch`` at a time and what is left at the end of a stride; a batch is kept whole. So a run that was
    killed finds whole batches and makes the same ones of the rest.
    """

    def __init__(
        self, tower: Tower, place: int, batch: int, store: Store | None, suffix: str
    ) -> None:
        """``place`` is the tower's among those of an opened image; ``suffix`` goes behind the content's hash."""
        self.tower, self.place, self.batch = tower, place, batch
        self._store, self._suffix = store, suffix
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._size = 0
        self._waiting: dict[str, Opened] = {}
        self._asked = 0

    def add(self, opened: Opened) -> None:
        """Take an image; its features are there after :meth:`settle` at the latest."""
        key = opened.sha256
        if key in self._known:
            self._known.move_to_end(key)
        elif key not in self._waiting:
            found = opened.found[self.place]
            if found is not None:
                self._count(1, 0)
                self._remember(key, torch.from_numpy(found).to(self.tower.eye.device))
                return
            self._waiting[key] = opened
            if len(self._waiting) == self.batch:
                self._ask()
                if len(self._waiting) == self.batch:
                    self._look()

    def settle(self) -> None:
        """Look at what was added and not looked at yet."""
        if self._waiting:
            self._ask()
        if self._waiting:
            self._look()

    def seen(self, keys: Sequence[str]) -> Tensor:
        """Give the features of images by their content."""
        return torch.stack([self._known[key] for key in keys])

    def forget(self) -> None:
        """Drop what was not added for longest, beyond a number of bytes; called between strides."""
        while self._size > _REMEMBERED_BYTES:
            _, features = self._known.popitem(last=False)
            self._size -= features.nbytes

    def _ask(self) -> None:
        """Look once more in the cache: what was kept since the image was opened need not be looked at."""
        if self._store is None:
            return
        new = list(self._waiting)[self._asked :]
        values = self._store.get(self.tower.key, [key + self._suffix for key in new])
        for key, value in zip(new, values, strict=True):
            if value is not None:
                self._remember(key, torch.from_numpy(value[0]).to(self.tower.eye.device))
                del self._waiting[key]
        self._count(sum(value is not None for value in values), 0)
        self._asked = len(self._waiting)

    def _look(self) -> None:
        pixels = [opened.ready[self.place] for opened in self._waiting.values()]
        seen = self.tower.eye.see_ready(pixels)  # type: ignore[arg-type]
        # the cache has no bfloat16, and what it gives back must be what was put in
        seen = seen.float() if seen.dtype is torch.bfloat16 else seen
        if self._store is not None:
            rows = seen.cpu().numpy()
            self._count(0, len(rows))
            self._store.put(
                self.tower.key,
                {
                    key + self._suffix: (row, np.array(opened.size, dtype=np.int32))
                    for row, (key, opened) in zip(rows, self._waiting.items(), strict=True)
                },
            )
        for row, key in zip(seen, self._waiting, strict=True):
            self._remember(key, row.clone())
        self._waiting.clear()
        self._asked = 0

    def _remember(self, key: str, features: Tensor) -> None:
        self._known[key] = features
        self._size += features.nbytes

    def _count(self, hits: int, misses: int) -> None:
        if self._store is not None:
            self._store.hits += hits
            self._store.misses += misses

"""What a network made of prompts, remembered: a prompt costs once, whatever its number of images."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_REMEMBERED_BYTES = 256 * 2**20
_Arrays = tuple[NDArray[Any], ...]


@runtime_checkable
class PromptStore(Protocol):
    """Where what was read is kept beyond the memory of a process: arrays by a space and a key."""

    def get(self, space: str, keys: Sequence[str]) -> list[_Arrays | None]:
        """Give the value of each key, or None."""

    def put(self, space: str, items: Mapping[str, _Arrays]) -> None:
        """Keep values, all or none."""


class OnePrompt(NamedTuple):
    """A prompt as a network reads it, and its tokens."""

    states: tuple[Tensor, ...]
    given: int
    kept: int


@dataclass(slots=True)
class PromptMemory:
    """The prompts read last, up to a number of bytes."""

    rows: OrderedDict[str, OnePrompt] = field(default_factory=OrderedDict)
    size: int = 0

    def new(self, prompts: Sequence[str]) -> list[str]:
        """Give the distinct prompts that are not remembered, in their order."""
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.rows]

    def add(self, prompt: str, one: OnePrompt) -> None:
        """Remember a prompt."""
        self.rows[prompt] = one
        self.size += _bytes(one.states)

    def take(self, prompts: Sequence[str]) -> list[OnePrompt]:
        """Give prompts that are all remembered; what was not asked for longest goes where there is too much."""
        found = [self.rows[prompt] for prompt in prompts]
        for prompt in prompts:
            self.rows.move_to_end(prompt)
        while self.size > _REMEMBERED_BYTES and len(self.rows) > 1:
            _, one = self.rows.popitem(last=False)
            self.size -= _bytes(one.states)
        return found

    def recall(
        self, prompts: Sequence[str], store: PromptStore, space: str, device: torch.device
    ) -> None:
        """Remember those of some prompts that a store has."""
        found = store.get(space, [_key(prompt) for prompt in prompts])
        for prompt, value in zip(prompts, found, strict=True):
            if value is not None:
                *states, (given, kept) = value
                there = tuple(torch.from_numpy(state).to(device) for state in states)
                self.add(prompt, OnePrompt(there, int(given), int(kept)))

    def keep(self, prompts: Sequence[str], store: PromptStore, space: str) -> None:
        """Put remembered prompts into a store, all or none."""
        items = {}
        for prompt in prompts:
            states, given, kept = self.rows[prompt]
            counts = np.array([given, kept], dtype=np.int32)
            items[_key(prompt)] = (*(state.cpu().numpy() for state in states), counts)
        store.put(space, items)


def storable(state: Tensor) -> Tensor:
    """Give numbers of a kind that a store has, so that what comes back from it is what was put in."""
    return state.float() if state.dtype is torch.bfloat16 else state


def _bytes(states: tuple[Tensor, ...]) -> int:
    return sum(state.numel() * state.element_size() for state in states)


def _key(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()

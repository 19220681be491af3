"""What the frozen part of a network makes of its inputs: computed once where it fits, else whenever it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

from jaxtyping import Int
from torch import Tensor

from palate.training.learners.learner import Change
from palate.training.stores import Shelf, chunk_for


class StateBank:
    """Inputs, a row each, and the states that a frozen part makes of them.

    On a ``shelf`` the states are kept, if they fit into ``room`` bytes, so that a step costs only what it trains.
    """

    def __init__(
        self,
        name: str,
        inputs: Tensor,
        below: Callable[[Tensor], Tensor],
        shelf: Shelf | None = None,
        room: float = math.inf,
        label: str = "",
    ) -> None:
        """Run the frozen part, ``below``, over all inputs if its states are to be kept."""
        self.inputs, self.below = inputs, below
        self.kept: Tensor | None = None
        if shelf is not None:
            one = below(inputs[:1])
            if len(inputs) * one.numel() * one.element_size() <= room:
                chunk = chunk_for(one)
                self.kept = shelf.fill(
                    name, len(inputs), lambda cut: below(inputs[cut]), chunk=chunk, label=label
                )

    def states(self, places: Int[Tensor, " rows"], change: Change | None = None) -> Tensor:
        """Give the states of some inputs; ``change`` alters the inputs first and needs a bank that keeps nothing."""
        if self.kept is None:
            inputs = self.inputs[places.to(self.inputs.device)]
            return self.below(inputs if change is None else change(inputs, places))
        if change is not None:
            raise AssertionError("inputs cannot change below a kept state")
        return self.kept[places.to(self.kept.device)]

"""Every duel of every choice: who met whom, and who won.

A choice between n images is n (n - 1) / 2 duels. Training, evaluation and rating systems all
count them, so they are taken apart once, here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.errors import DataError


@dataclass(frozen=True, eq=False)
class Duels:
    """Columns of equal length, one entry per pair of images that were shown together.

    `choice` is the row in the table of choices; `first` < `second` are positions in the order
    shown; `first_index` and `second_index` point into `flat`, the keys of all images of all choices;
    `first_image` and `second_image` are their keys (Arrow strings), taken when they are asked for. `outcome`
    is 1 where the first is better, 0 where the second is, and 0.5 at equal ranks. Duels stand in
    the order of the choices, then of `first`, then of `second`.
    """

    choice: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    first_index: NDArray[np.int64]
    second_index: NDArray[np.int64]
    flat: Any
    outcome: NDArray[np.float64]

    @cached_property
    def first_image(self) -> Any:
        """Key of the image shown first."""
        return self.flat.take(pa.array(self.first_index))

    @cached_property
    def second_image(self) -> Any:
        """Key of the image shown second."""
        return self.flat.take(pa.array(self.second_index))

    def __len__(self) -> int:
        """Return the number of duels."""
        return len(self.choice)

    def to_table(self) -> Any:
        """Return the columns choice, first, second, the two keys and outcome as Arrow."""
        return pa.table(
            {
                "choice": self.choice,
                "first": self.first,
                "second": self.second,
                "first_image": self.first_image,
                "second_image": self.second_image,
                "outcome": self.outcome,
            }
        )


def pair_index(
    lengths: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return every pair of positions of every group: group, first, second (first < second).

    `lengths` holds the size of each group. Groups of one or none have no pairs.
    """
    counts = lengths * (lengths - 1) // 2
    starts = np.concatenate([[0], np.cumsum(counts)])
    group = np.repeat(np.arange(len(lengths), dtype=np.int64), counts)
    first = np.empty(starts[-1], dtype=np.int64)
    second = np.empty(starts[-1], dtype=np.int64)
    for size in np.unique(lengths[lengths > 1]):
        low, high = np.triu_indices(int(size), 1)
        places = starts[:-1][lengths == size][:, None] + np.arange(len(low))
        first[places] = low
        second[places] = high
    return group, first, second


def duels(choices: Any) -> Duels:
    """Take every choice apart into its pairs of images.

    `choices` is a table of choices; a million choices between two images take well under a
    second. Raises `DataError` where images and ranks differ in number.
    """
    lengths = list_lengths(choices.column("images"))
    if not np.array_equal(lengths, list_lengths(choices.column("ranks"))):
        raise DataError("a choice has another number of ranks than of images")
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy()
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    choice, first, second = pair_index(lengths)
    first_index = starts[choice] + first
    second_index = starts[choice] + second
    left, right = ranks[first_index], ranks[second_index]
    return Duels(
        choice=choice,
        first=first,
        second=second,
        first_index=first_index,
        second_index=second_index,
        flat=pc.list_flatten(choices.column("images")).combine_chunks(),
        outcome=np.where(left == right, 0.5, (left < right).astype(np.float64)),
    )

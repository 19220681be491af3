"""Who chose which of the images shown, and what could have been chosen instead: the ground of tests by relabelling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.errors import DataError

Rows = NDArray[np.int64]


def decided_choices(choices: Any, dimension: str | None = None) -> tuple[Any, int]:
    """Give the choices with one best image, in the order of their keys, and how many have none or several.

    Raises `DataError` for choices on several dimensions, unless one is named, and for none at all.
    """
    if dimension is not None:
        choices = choices.filter(pc.equal(choices.column("dimension"), dimension))
    names = sorted(choices.column("dimension").unique().to_pylist())
    if not names:
        on = "" if dimension is None else f" on the dimension {dimension!r}"
        raise DataError(f"there are no choices{on}")
    if len(names) > 1:
        raise DataError(
            f"choices on {len(names)} dimensions ({', '.join(names)}), expected one: name the dimension"
        )
    choices = choices.take(pc.sort_indices(choices.column("choice")))
    lengths = list_lengths(choices.column("images"))
    owner = np.repeat(np.arange(len(choices)), lengths)
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy()
    lowest = np.minimum.reduceat(ranks, np.cumsum(lengths) - lengths)
    single = np.bincount(owner, weights=ranks == lowest[owner]) == 1
    return choices.filter(pa.array(single)), int((~single).sum())


class Shown:
    """The images of choices as numbered nodes (prompt, image), with who was chosen and who was not.

    `keys[node]` is the image and `prompts[choice]` the number of the prompt. `flat` holds the nodes of all choices,
    within a choice in the order of their keys; `order` sorts columns of the table into it, `lengths` and `starts` cut
    it. `ranks` are in that order. `chosen[choice]` is the node put first and `others[draw][choice]` a drawn one of
    the rest. Every choice has one best image. The same choices in the same order give the same draws, whatever the
    order of their images.
    """

    def __init__(self, choices: Any, draws: int, seed: int) -> None:
        """Number the images of a table of choices, and draw one other image of each choice `draws` times."""
        lengths = list_lengths(choices.column("images"))
        images = pc.list_flatten(choices.column("images")).to_pylist()
        named = np.unique(choices.column("prompt").to_pylist(), return_inverse=True)[1]
        self.prompts: Rows = named.astype(np.int64)
        self.lengths, self.starts = lengths, np.concatenate([[0], np.cumsum(lengths)])[:-1]
        self.seed, owner = seed, np.repeat(np.arange(len(choices)), lengths)
        pairs = list(zip(self.prompts[owner].tolist(), images, strict=True))
        nodes = sorted(set(pairs))
        place = {node: number for number, node in enumerate(nodes)}
        self.keys = [key for _, key in nodes]
        numbers = np.array([place[pair] for pair in pairs], dtype=np.int64)
        self.order = np.lexsort((numbers, owner))
        self.flat: Rows = numbers[self.order]
        self.ranks = pc.list_flatten(choices.column("ranks")).to_numpy()[self.order]
        lowest = np.minimum.reduceat(self.ranks, self.starts)
        best = np.flatnonzero(self.ranks == np.repeat(lowest, lengths))
        self.chosen: Rows = self.flat[best]
        rng, self.others = np.random.default_rng(seed), list[Rows]()
        for _ in range(draws):
            drawn = self.starts + rng.integers(0, lengths - 1)
            self.others.append(self.flat[drawn + (drawn >= best)])
        self.groups = _components(self.flat, owner, len(nodes))

    @property
    def prompt_count(self) -> int:
        """The number of prompts."""
        return int(self.prompts.max()) + 1

    def relabellings(self, count: int) -> Iterator[Rows]:
        """Give, for every node, the node that takes its place; only images of one group change places."""
        rng = np.random.default_rng((self.seed, 1))
        home = np.argsort(self.groups, kind="stable")
        for _ in range(count):
            taken = np.empty(len(home), dtype=np.int64)
            taken[home] = np.lexsort((rng.random(len(home)), self.groups))
            yield taken

    def resamples(self, count: int) -> Iterator[Rows]:
        """Give choices, those of every prompt together and as often as the prompt was drawn."""
        rng, prompts = np.random.default_rng((self.seed, 2)), self.prompt_count
        for _ in range(count):
            times = np.bincount(rng.integers(0, prompts, prompts), minlength=prompts)
            yield np.repeat(np.arange(len(self.prompts)), times[self.prompts])


def _components(flat: Rows, owner: Rows, count: int) -> Rows:
    """Number the groups of nodes that were shown together, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = count + int(owner[-1]) + 1
    links = coo_array((np.ones(len(flat)), (flat, count + owner)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1][:count], dtype=np.int64)

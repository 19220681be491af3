"""Whether the answers tie all items together, so that every strength is finite.

A strength has a maximum of its likelihood only where every group of items has lost to, or tied
with, the rest at least once, and has beaten or tied with it at least once (Ford 1957, "Solution of
a ranking problem from binary comparisons").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.intervals import Column

Codes = NDArray[np.int64]

MOST_ITEMS: Final = 10_000
"""More items than this are refused: a fit holds a number for every pair of items."""

_NAMED: Final = 5
_FEW_CELLS: Final = 4


@dataclass(frozen=True, slots=True)
class Connectivity:
    """How the answers tie the items together.

    `groups` are the items that are comparable with each other both ways, in order of their first
    label; a single group means that every strength is finite. `undefeated` are the groups that
    nothing outside beat or tied with, `winless` those that beat or tied with nothing outside.
    `apart` are the groups that never met, not even through others; a single one where all did.
    """

    groups: tuple[tuple[Any, ...], ...]
    undefeated: tuple[tuple[Any, ...], ...]
    winless: tuple[tuple[Any, ...], ...]
    apart: tuple[tuple[Any, ...], ...]

    @property
    def connected(self) -> bool:
        """Whether all strengths are finite."""
        return len(self.groups) == 1

    def sentence(self) -> str:
        """Say in one sentence what keeps strengths from being finite, by name."""
        if self.connected:
            return "all items are connected by wins and losses"
        if len(self.apart) > 1:
            told = "; ".join(named(group) for group in self.apart[:_NAMED])
            more = len(self.apart) - _NAMED
            told += f"; and {more} more groups" if more > 0 else ""
            return f"the items fall into {len(self.apart)} groups that never met: {told}"
        top = " nor ".join(_joint(group) for group in self.undefeated[:_NAMED])
        low = " nor ".join(_joint(group) for group in self.winless[:_NAMED])
        return (
            f"no other item ever beat or tied with {top}, and none ever lost to or tied with {low}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "connected": self.connected,
            "sentence": self.sentence(),
            "groups": [list(group) for group in self.groups],
            "undefeated": [list(group) for group in self.undefeated],
            "winless": [list(group) for group in self.winless],
            "apart": [list(group) for group in self.apart],
        }


def named(items: tuple[Any, ...]) -> str:
    """The first five items by name, and how many more there are."""
    told = ", ".join(str(item) for item in items[:_NAMED])
    return told + (f" and {len(items) - _NAMED} more" if len(items) > _NAMED else "")


def _joint(group: tuple[Any, ...]) -> str:
    return str(group[0]) if len(group) == 1 else f"the group of {named(group)}"


class Labels(Sequence[Any]):
    """A column of labels kept as numbers into `names`, which are sorted and differ; -1 is no label.

    So a million labels are never a million Python objects. A mask or rows give the labels of these.
    """

    def __init__(self, codes: Codes, names: Sequence[Any]) -> None:
        self.codes, self.names = codes, names

    def __len__(self) -> int:
        """Return how many labels there are."""
        return len(self.codes)

    def __getitem__(self, at: Any) -> Any:
        """Return a label by its place, or the labels of a mask, a slice or rows."""
        found = self.codes[at]
        if np.ndim(found):
            return Labels(found, self.names)
        return self.names[int(found)] if found >= 0 else None


def item_codes(*columns: Column) -> tuple[tuple[Any, ...], list[Codes]]:
    """The different labels of several columns in sorted order, and each column as their numbers.

    Labels of several types are sorted by how they are written.
    """
    if all(isinstance(column, Labels) for column in columns):
        return _coded(cast("tuple[Labels, ...]", columns))
    arrays = [np.asarray(column) for column in columns]
    if all(array.dtype.kind in "iub" for array in arrays):
        found, codes = np.unique(np.concatenate(arrays), return_inverse=True)
        cuts = np.cumsum([len(array) for array in arrays])[:-1]
        return tuple(found.tolist()), np.split(codes.astype(np.int64), cuts)
    # A dictionary codes a million texts several times faster than sorting them does.
    texts = [array.tolist() for array in arrays]
    unique = {label for column in texts for label in column}
    if None in unique:
        raise DataError("an item has no label")
    try:
        items = tuple(sorted(unique))
    except TypeError:
        items = tuple(sorted(unique, key=lambda label: (str(label), str(type(label)))))
    numbers = {label: number for number, label in enumerate(items)}
    coded = [np.fromiter(map(numbers.__getitem__, c), np.int64, len(c)) for c in texts]
    return items, coded


def _coded(columns: tuple[Labels, ...]) -> tuple[tuple[Any, ...], list[Codes]]:
    """The same for labels that are numbers already, into the same names."""
    if any(column.names is not columns[0].names for column in columns):
        raise DataError("labels of items point into different names")
    if any((column.codes < 0).any() for column in columns):
        raise DataError("an item has no label")
    items, codes = only_used(columns[0].names, *(column.codes for column in columns))
    return items, list(codes)


def only_used(items: Sequence[Any], *columns: Codes) -> tuple[tuple[Any, ...], tuple[Codes, ...]]:
    """The items that the columns of numbers hold, and the columns with the numbers among these."""
    there = np.zeros(len(items), dtype=bool)
    for column in columns:
        there[column] = True
    place = np.cumsum(there) - 1
    kept = tuple(items[at] for at in np.flatnonzero(there).tolist())
    return kept, tuple(place[column] for column in columns)


def refuse_many(items: tuple[Any, ...]) -> None:
    """Refuse more items than memory holds pairs of."""
    if len(items) > MOST_ITEMS:
        raise DataError(
            f"{len(items)} items to rank, expected at most {MOST_ITEMS}: rank generators, or fewer "
            "images"
        )


def connect(items: tuple[Any, ...], better: Codes, worse: Codes) -> Connectivity:
    """How wins tie items together: `better[k]` beat `worse[k]`; a tie stands there both ways."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(items)
    key = better * size + worse
    few = size * size <= _FEW_CELLS * len(key)
    # a cell is looked up where there are few, and searched for among many
    key = np.flatnonzero(np.bincount(key)) if few else np.unique(key)
    better, worse = key // size, key % size
    ones = np.ones(len(key), dtype=np.int8)
    graph = coo_array((ones, (worse, better)), shape=(size, size)).tocsr()
    _, strong = connected_components(graph, directed=True, connection="strong")
    _, weak = connected_components(graph, directed=True, connection="weak")
    groups, strong = _grouped(items, strong)
    outside = strong[better] != strong[worse]
    beaten = np.zeros(len(groups), dtype=bool)
    winning = np.zeros(len(groups), dtype=bool)
    beaten[strong[worse[outside]]] = True
    winning[strong[better[outside]]] = True
    return Connectivity(
        groups=groups,
        undefeated=tuple(g for g, lost in zip(groups, beaten, strict=True) if not lost),
        winless=tuple(g for g, won in zip(groups, winning, strict=True) if not won),
        apart=_grouped(items, weak)[0],
    )


def _grouped(
    items: tuple[Any, ...], labels: NDArray[Any]
) -> tuple[tuple[tuple[Any, ...], ...], Codes]:
    """Groups of items in the order of their first item, and the group of each item."""
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[codes].astype(np.int64)
    groups: list[list[Any]] = [[] for _ in first]
    for item, group in zip(items, place.tolist(), strict=True):
        groups[group].append(item)
    return tuple(tuple(group) for group in groups), place


def components(size: int, first: Codes, second: Codes) -> Codes:
    """The number of the group of every item, among items that met, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(first), dtype=np.int8)
    graph = coo_array((ones, (first, second)), shape=(size, size)).tocsr()
    found: Codes = connected_components(graph, directed=False)[1].astype(np.int64)
    return found


def ties_say_more(size: int, wins: tuple[Codes, Codes], ties: tuple[Codes, Codes]) -> bool:
    """Whether a parameter for ties is finite too, in items that are connected.

    `wins` are pairs (better, worse). Strengths d and the tie parameter t can grow for ever where
    d_i - d_j ≥ t for every win and |d_i - d_j| ≤ t for every tie. Such differences exist exactly
    where no cycle has more wins than ties, which the Bellman-Ford algorithm decides.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import NegativeCycleError, bellman_ford

    keys = np.concatenate(
        [wins[0] * size + wins[1], *(a * size + b for a, b in (ties, ties[::-1]))]
    )
    # The first of equal keys is kept, and wins stand first: they bind more than ties.
    places, at = np.unique(keys, return_index=True)
    weights = np.where(at < len(wins[0]), -1.0, 1.0)
    cells = (weights, (places // size, places % size))
    try:
        bellman_ford(csr_array(cells, shape=(size, size)), directed=True, indices=0)
    except NegativeCycleError:
        return True
    return False

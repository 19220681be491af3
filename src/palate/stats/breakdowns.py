"""An accuracy part by part: per dimension, category or number of images, beside its baselines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.accuracy import NothingDecidedError
from palate.stats.intervals import Column
from palate.stats.protocols import Protocol, ProtocolAccuracy, accuracy_under


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a breakdown; `result` is None where its choices hold no decision."""

    name: str
    choices: int
    result: ProtocolAccuracy | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        told = None if self.result is None else self.result.to_dict()
        return {"name": self.name, "choices": self.choices, "result": told}


def breakdown(
    protocol: Protocol | str,
    scores: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    by: Column,
    **settings: Any,
) -> tuple[Part, ...]:
    """Measure every part of the choices by itself, in the sorted order of the labels `by`.

    `by` has one label per choice: its dimension, its source, its number of images (`sizes_of`) or a
    fact in the details (`facts_of`). The settings are those of `accuracy_under`. Many parts are
    many intervals: the best and the worst of twenty differ by chance alone.
    """
    flat, order = np.asarray(scores, dtype=np.float64), np.asarray(ranks)
    sizes, labels = sizes_of(offsets), np.asarray(by)
    if labels.shape != sizes.shape:
        raise DataError(f"{len(sizes)} choices but labels of shape {labels.shape}")
    if flat.shape != order.shape or flat.shape != (sizes.sum(),):
        raise DataError(f"{flat.shape} scores, {order.shape} ranks and the offsets do not match")
    names, codes = np.unique(labels, return_inverse=True)
    own = None if prompts is None else np.asarray(prompts)
    parts = []
    for code, name in enumerate(names.tolist()):
        rows = codes == code
        kept, cuts = np.repeat(rows, sizes), np.concatenate([[0], np.cumsum(sizes[rows])])
        columns = (flat[kept], order[kept], cuts, None if own is None else own[rows])
        try:
            result = accuracy_under(protocol, *columns, **settings)
        except NothingDecidedError:
            result = None
        parts.append(Part(str(name), int(rows.sum()), result))
    return tuple(parts)


def sizes_of(offsets: Column) -> NDArray[np.int64]:
    """Number of images of every choice: labels for a breakdown by size."""
    bounds = np.asarray(offsets, dtype=np.int64)
    return bounds[1:] - bounds[:-1]


def facts_of(details: Column, name: str, *, absent: str = "(none)") -> list[str]:
    """Read one fact out of every JSON text of a column `details`: labels for a breakdown.

    `details` has one text (or None) per choice, its own or that of its first image; a fact that is
    not there gives `absent`.
    """
    found = []
    for text in details:
        value = json.loads(text).get(name) if text else None
        found.append(absent if value is None else str(value))
    return found

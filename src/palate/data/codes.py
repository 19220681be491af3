"""Columns of texts as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray


def text_codes(column: Any) -> NDArray[np.int64]:
    """Number the texts of an Arrow column in sorted order, whatever the order of the rows; null is -1."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    order = pc.sort_indices(encoded.dictionary).to_numpy().astype(np.int64)
    place = np.full(len(order) + 1, -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    codes: NDArray[np.int64] = place[pc.fill_null(encoded.indices, -1).to_numpy()]
    return codes


def annotator_codes(choices: Any) -> NDArray[np.int64]:
    """Number the people of choices in sorted order; those that are not known by name are -1."""
    column = choices.column("annotator")
    return text_codes(pc.if_else(pc.equal(column, ""), None, column))

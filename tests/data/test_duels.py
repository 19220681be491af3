"""Every duel of every choice: the quick version equals the obvious one."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from palate_strategies import choices

from palate.data.duels import duels
from palate.data.records import Choice
from palate.data.schemas import SCHEMAS
from palate.data.tables import to_table
from palate.errors import DataError


def slow_duels(rows: list[Choice]) -> list[tuple[object, ...]]:
    found = []
    for row, choice in enumerate(rows):
        for first, second in combinations(range(len(choice.images)), 2):
            left, right = choice.ranks[first], choice.ranks[second]
            outcome = 1.0 if left < right else 0.0 if left > right else 0.5
            found.append((row, first, second, choice.images[first], choice.images[second], outcome))
    return found


@given(st.lists(choices(rank=3), max_size=12), st.integers(0, 12))
def test_the_quick_duels_are_the_obvious_ones(rows: list[Choice], start: int) -> None:
    chunks = [to_table([row], "choices") for row in rows] or [SCHEMAS["choices"].empty_table()]
    table = pa.concat_tables(chunks).slice(start)
    found = duels(table)
    assert list(zip(*found.to_table().to_pydict().values(), strict=True)) == slow_duels(
        rows[start:]
    )
    flat = [image for row in rows[start:] for image in row.images]
    assert [flat[k] for k in found.first_index] == found.first_image.to_pylist()
    assert [flat[k] for k in found.second_index] == found.second_image.to_pylist()


@given(choices(rank=3))
def test_turning_the_order_round_turns_the_outcomes_round(row: Choice) -> None:
    back = Choice("back", row.prompt, row.images[::-1], row.ranks[::-1])
    there = duels(to_table([row], "choices")).outcome
    assert sorted(1 - duels(to_table([back], "choices")).outcome) == sorted(there)


def test_choices_without_matching_ranks_are_refused() -> None:
    table = pa.table({"images": [["a", "b"]], "ranks": [[1]]})
    with pytest.raises(DataError, match="another number of ranks than of images"):
        duels(table)


def test_a_hundred_thousand_choices_take_no_time() -> None:
    count = 100_000
    offsets = pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32))
    keys = pa.array(np.arange(2 * count).astype(str).tolist())
    table = pa.table(
        {
            "images": pa.ListArray.from_arrays(offsets, keys),
            "ranks": pa.ListArray.from_arrays(offsets, pa.array([1, 2] * count, pa.int16())),
        }
    )
    start = time.perf_counter()
    assert duels(table).outcome.sum() == count
    # a tenth of the promise of benchmarks/duels.py, with room for a busy machine
    assert time.perf_counter() - start < 1

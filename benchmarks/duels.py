"""Measure how long it takes to take a million two-image choices apart into duels.

The promise is under a second. Run it as `python benchmarks/duels.py`; it prints one line and exits
with 1 if the promise is broken.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import pyarrow as pa

from palate.data.duels import duels
from palate.data.schemas import CHOICES

COUNT = 1_000_000
LIMIT = 1.0


def make_choices(count: int) -> pa.Table:
    """Make choices between two images, with distinct keys and one answer in ten a tie."""
    rng = np.random.default_rng(0)
    offsets = pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32))
    images = pa.array([f"images/{number:08d}.png" for number in range(2 * count)])
    ranks = np.ones((count, 2), np.int16)
    ranks[np.arange(count), rng.integers(0, 2, count)] = np.where(rng.random(count) < 0.1, 1, 2)
    item = [field.type.value_field for field in (CHOICES.field("images"), CHOICES.field("ranks"))]
    columns = {
        "choice": pa.array([f"c{number}" for number in range(count)]),
        "prompt": pa.array(["a red fox in snow"] * count),
        "images": pa.ListArray.from_arrays(offsets, images, type=pa.list_(item[0])),
        "ranks": pa.ListArray.from_arrays(offsets, pa.array(ranks.ravel()), type=pa.list_(item[1])),
        "dimension": pa.array(["overall"] * count),
        "annotator": pa.nulls(count, pa.string()),
        "source": pa.array(["benchmark"] * count),
        "details": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=CHOICES)


def main() -> int:
    """Time five runs and print the fastest and the median."""
    choices = make_choices(COUNT)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        found = duels(choices)
        seconds.append(time.perf_counter() - start)
    assert len(found) == COUNT
    median = statistics.median(seconds)
    print(
        f"{COUNT:,} choices between two images: {min(seconds):.2f} s at best, "
        f"{median:.2f} s in the median of {len(seconds)} (limit {LIMIT:g} s)"
    )
    return int(median > LIMIT)


if __name__ == "__main__":
    sys.exit(main())

"""An audit of many choices takes seconds: nothing goes row by row that need not."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from palate.data.audit.audit import audit_dataset
from palate.data.schemas import CHOICES
from palate.data.tables import Dataset, to_table


def many(count: int) -> pa.Table:
    rng = np.random.default_rng(0)
    question = rng.integers(0, count // 3, count)
    shown = pa.array((question[:, None] * 4 + np.arange(4)).ravel()).cast(pa.string())
    ranks = np.full((count, 4), 2, np.int16)
    ranks[np.arange(count), rng.integers(0, 4, count)] = 1
    edges = pa.array(np.arange(0, 4 * count + 1, 4, dtype=np.int32))
    return pa.table(
        {
            "choice": pa.array(np.arange(count)).cast(pa.string()),
            "prompt": pa.array(question).cast(pa.string()),
            "images": pa.ListArray.from_arrays(edges, shown),
            "ranks": pa.ListArray.from_arrays(edges, pa.array(ranks.ravel())),
            "dimension": ["overall"] * count,
            "annotator": pa.array(rng.integers(0, 500, count)).cast(pa.string()),
            "source": ["made"] * count,
            "details": [f'{{"seconds":{x:.2f}}}' for x in rng.lognormal(2, 0.5, count)],
        },
        schema=CHOICES,
    )


@pytest.mark.slow
def test_a_hundred_thousand_choices_take_seconds() -> None:
    data = Dataset(to_table([], "images"), many(100_000), Path("nowhere"))
    begin = time.process_time()
    audit = audit_dataset(data)
    assert time.process_time() - begin < 20
    (agreement,) = audit.facts.agreement
    # they guess
    assert agreement.best == pytest.approx(0.25, abs=0.01)
    assert agreement.pairs == pytest.approx(0.5, abs=0.01)
    assert audit.facts.speed is not None

"""Kendall's tau-b per choice equals SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from palate.errors import DataError
from palate.stats.correlation import kendall
from palate.stats.intervals import Bootstrap

QUICK = Bootstrap(resamples=100)
group = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=2, max_size=6)


@given(st.lists(group, min_size=1, max_size=8))
def test_tau_is_scipys(rows) -> None:
    scores = [float(score) for row in rows for score, _ in row]
    ranks = np.array([rank for row in rows for _, rank in row], np.int16)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    taus = []
    for row in rows:
        own_scores, own_ranks = zip(*row, strict=True)
        if len(set(own_scores)) > 1 and len(set(own_ranks)) > 1:
            taus.append(stats.kendalltau(own_scores, [-rank for rank in own_ranks]).statistic)
    if not taus:
        with pytest.raises(DataError, match="has an order to correlate with"):
            kendall(scores, ranks, offsets, bootstrap=QUICK)
        return
    found = kendall(scores, ranks, offsets, bootstrap=QUICK)
    assert found.estimate.value == pytest.approx(np.mean(taus))
    assert found.left_out == len(rows) - len(taus)


def test_higher_scores_and_lower_ranks_are_better() -> None:
    assert kendall([3, 2, 1], [1, 2, 3], [0, 3]).estimate.value == 1
    assert kendall([1, 2, 3], [1, 2, 3], [0, 3]).to_dict()["value"] == -1


def test_bad_columns_are_refused() -> None:
    with pytest.raises(DataError, match="do not match"):
        kendall([1.0], [1, 2], [0, 2])
    with pytest.raises(DataError, match="not a number"):
        kendall([1.0, np.nan], [1, 2], [0, 2])

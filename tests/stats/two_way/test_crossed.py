"""The table of prompts and people is that of sorting all rows by all that tells them apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.stats.two_way.crossed import Sample, crossed

ROW = st.tuples(
    st.sampled_from([0.0, 1 / 3, 0.5, 0.1, 1.0]),
    st.sampled_from("abc"),
    st.sampled_from(["x", "y", "", None]),
)
ROWS = st.lists(ROW, min_size=1, max_size=30)


def slow(samples):
    """Cells with the rows of each, in the order of all columns; every unknown row is a cell of its own."""
    rows = [
        (prompt, person or None, which, value)
        for which, triples in enumerate(samples)
        for value, prompt, person in triples
    ]
    rows.sort(key=lambda row: (row[0], row[1] is None, row[1] or "", row[2], row[3]))
    cells, strangers = {}, 0
    for prompt, person, which, value in rows:
        strangers += person is None
        key = (prompt, strangers if person is None else person)
        cells.setdefault(key, []).append((which, value))
    return cells


@given(st.lists(ROWS, min_size=1, max_size=2), st.randoms(use_true_random=False))
def test_cells_are_those_of_a_plain_sort_in_any_order_of_the_rows(samples, random):
    mixed = [random.sample(rows, len(rows)) for rows in samples]
    columns = [Sample(*(list(column) for column in zip(*rows, strict=True))) for rows in mixed]
    found = crossed(columns, [1.0, -1.0][: len(samples)], "micro")
    cells = slow(samples)
    assert len(found.prompt) == len(cells)
    names = sorted({prompt for prompt, _ in cells})
    assert [names[k] for k in found.prompt] == [prompt for prompt, _ in cells]
    for which in range(len(samples)):
        # added one after the other, so that the sums are equal to the last bit
        sums = [sum(value for own, value in rows if own == which) for rows in cells.values()]
        counts = [sum(own == which for own, _ in rows) for rows in cells.values()]
        assert found.sums[which].tolist() == sums
        assert found.counts[which].tolist() == counts
    known = {person for _, person in cells if isinstance(person, str)}
    unknown = len({person for _, person in cells}) - len(known)
    assert (found.known, found.unknown) == (len(known), unknown)
    assert np.array_equal(np.unique(found.person), np.arange(found.people))

"""Texts as numbers, and numbers in order: the quick versions equal the obvious ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.codes import (
    all_among,
    annotator_codes,
    dense_codes,
    key_codes,
    mixed,
    order_of,
    repeats,
    rows_of,
    text_codes,
    text_hashes,
)

# few letters, so that texts share beginnings of every length; zero bytes; letters of several bytes
LETTERS = st.text("ab\0é☃", max_size=20)
TEXTS = st.lists(
    st.one_of(LETTERS, st.sampled_from(["", "same", "12345678", "123456789", "a" * 40])),
    max_size=30,
)
PREFIXES = st.sampled_from(["", "prompt 1", "a prefix that is longer than a word/"])
WIDE = st.integers(0, 2**64 - 1)


def column(texts, start: int = 0):
    """An Arrow column in two chunks that begins within its buffers."""
    half = len(texts) // 2
    padded = [["x" * start], texts[:half], texts[half:]]
    return pa.chunked_array([pa.array(part, pa.string()) for part in padded]).slice(1)


def places(texts) -> list[int]:
    order = sorted(set(texts), key=lambda text: text.encode())
    return [order.index(text) for text in texts]


@given(TEXTS, PREFIXES, st.integers(0, 9))
def test_texts_are_numbered_in_sorted_order(texts, prefix, start):
    told = [prefix + text for text in texts]
    assert key_codes(column(told, start)).tolist() == places(told)
    assert text_codes(column(told, start)).tolist() == places(told)


def test_no_text_is_no_number():
    assert text_codes(column(["b", None, "a"])).tolist() == [1, -1, 0]
    people = pa.table({"annotator": ["v", None, "", "u"]})
    assert annotator_codes(people).tolist() == [1, -1, -1, 0]
    for numbers in (key_codes(column([])), text_codes(column([])), text_hashes(column([]))):
        assert len(numbers) == 0


@given(TEXTS, st.integers(0, 9))
def test_equal_texts_have_equal_hashes_and_others_do_not(texts, start):
    found = text_hashes(column(texts, start)).tolist()
    assert len(set(zip(texts, found, strict=True))) == len(set(texts)) == len(set(found))
    assert found == [int(text_hashes(pa.array([text]))[0]) for text in texts]


@given(st.lists(st.tuples(LETTERS, st.integers(0, 2)), max_size=30))
def test_a_seed_keeps_equal_texts_apart(pairs):
    texts, seeds = [text for text, _ in pairs], np.array([seed for _, seed in pairs], np.uint64)
    found = text_hashes(column(texts), seeds).tolist()
    assert len(set(found)) == len(set(pairs))


def test_a_hash_spreads_over_all_bits():
    hashes = text_hashes(pa.array([str(number) for number in range(20_000)]))
    bits = (hashes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02
    assert mixed(np.arange(3)).tolist() == mixed(np.arange(3, dtype=np.uint64)).tolist()


@given(st.one_of(
    st.lists(st.integers(0, 5), max_size=40),
    st.lists(WIDE, max_size=40),
    # hashes that differ in the bits which the rows take
    st.lists(st.builds(lambda high, low: high << 40 | low, st.integers(2**22, 2**22 + 3), st.integers(0, 3)), max_size=40),
))  # fmt: skip
def test_the_order_is_that_of_a_stable_sort(numbers):
    given_ = np.array(numbers, np.uint64)
    assert order_of(given_).tolist() == np.argsort(given_, kind="stable").tolist()


@given(st.lists(WIDE, max_size=12), st.lists(WIDE, max_size=12), st.data())
def test_rows_are_looked_up_and_the_first_of_several_counts(given_, others, data):
    pool = given_ + others
    wanted = data.draw(st.lists(st.sampled_from(pool), max_size=20)) if pool else []
    found = rows_of(np.array(wanted, np.uint64), np.array(given_, np.uint64)).tolist()
    assert found == [given_.index(one) if one in given_ else -1 for one in wanted]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint64, bool])
@given(data=st.data())
def test_whole_numbers_are_numbered_as_by_numpy(dtype, data):
    limits = (0, 1) if dtype is bool else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    near = st.integers(max(limits[0], -3), min(limits[1], 9))
    numbers = np.array(
        data.draw(st.lists(st.one_of(near, st.integers(*map(int, limits))), max_size=30)), dtype
    )
    assert dense_codes(numbers).tolist() == np.unique(numbers, return_inverse=True)[1].tolist()


@given(TEXTS, TEXTS, TEXTS)
def test_membership_is_that_of_sets(texts, more, others):
    assert all_among(column(texts), column(others)) == (set(texts) <= set(others))
    assert all_among(column(texts), column(texts + more))
    numbers = text_hashes(column(texts))
    assert repeats(numbers) == (len(set(texts)) < len(texts))

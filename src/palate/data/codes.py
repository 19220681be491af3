"""Columns of texts as numbers, and numbers in order.

A million texts in a hash table miss the processor's cache a million times, and so does sorting rows by them. Numbers of
64 bits are sorted by value in a tenth of that time, so texts become such numbers first.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_WORD: Final = 8
_NARROW: Final = 8
_SIGN: Final = np.uint64(1 << 63)
"""What turned makes numbers with a sign sort as numbers without."""

_FIRST_BYTES: Final = np.array([0] + [(1 << 8 * k) - 1 for k in range(1, _WORD + 1)], np.uint64)
"""Masks of the first bytes of a little-endian word, by their number."""


def text_codes(column: Any) -> Numbers:
    """Number the texts of an Arrow column in sorted order, whatever the order of the rows; null is -1."""
    encoded = pc.dictionary_encode(_array(column))
    order = pc.sort_indices(encoded.dictionary).to_numpy().astype(np.int64)
    place = np.full(len(order) + 1, -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    codes: Numbers = place[pc.fill_null(encoded.indices, -1).to_numpy()]
    return codes


def annotator_codes(choices: Any) -> Numbers:
    """Number the people of choices in sorted order; those that are not known by name are -1."""
    column = choices.column("annotator")
    return text_codes(pc.if_else(pc.equal(column, ""), None, column))


def key_codes(column: Any) -> Numbers:
    """Number texts as `text_codes` does, where most of them differ and none is null: keys of images or choices.

    Rows are sorted by eight bytes of their texts at a time, after what all begin with, and only those that
    are still level with a different text are sorted again.
    """
    texts = _array(column)
    words = _Words(texts, skip=_in_common(texts))
    if words.holds_zeros:
        # a zero byte at the end would be taken for the end
        return text_codes(column)
    place = np.zeros(len(texts), np.int64)
    level = np.arange(len(texts), dtype=np.int64)
    for number in range(words.count):
        word = words.of(level, number).byteswap()
        order = np.lexsort((word, place[level])) if number else np.argsort(word)
        level, word = level[order], word[order]
        before = place[level]
        fresh = np.flatnonzero(_changes(before) | _changes(word))
        sizes = np.diff(fresh, append=len(level))
        # a run of level rows stands behind the runs that it was level with
        whole = np.maximum.accumulate(np.where(_changes(before)[fresh], fresh, 0))
        place[level] = before + np.repeat(fresh - whole, sizes)
        if number + 1 < words.count:
            level = _still_level(texts, level, fresh, sizes)
        if not len(level):
            break
    return dense_codes(place)


def _still_level(texts: Any, level: Numbers, fresh: Numbers, sizes: Numbers) -> Numbers:
    """The rows of those runs in which not all texts are equal."""
    run = np.repeat(np.arange(len(sizes)), sizes)
    behind = np.flatnonzero(run[1:] == run[:-1]) + 1
    if not len(behind):
        return level[:0]
    alike = pc.equal(texts.take(pa.array(level[behind - 1])), texts.take(pa.array(level[behind])))
    differs = np.zeros(len(fresh), bool)
    differs[run[behind[~alike.to_numpy(zero_copy_only=False)]]] = True
    return level[differs[run]]


def _in_common(texts: Any) -> int:
    """With how many equal bytes all texts begin: those that the first and the last have in common."""
    ends = pc.min_max(texts)
    low, high = ((ends[name].as_py() or "").encode() for name in ("min", "max"))
    shared = enumerate(zip(low, high, strict=False))
    return next((at for at, (one, other) in shared if one != other), min(len(low), len(high)))


def text_hashes(column: Any, seed: Hashes | None = None) -> Hashes:
    """Spread the texts of an Arrow column over 64 bits: equal ones alike, and different ones nearly always apart.

    Two of a million different texts have a hash in common with a probability of 3 in 100 million. `seed`, a
    number per row, makes texts alike only where it is alike too. None may be null.
    """
    words = _Words(_array(column))
    start = words.lengths.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    found = mixed(start if seed is None else start + seed)
    for number in range(words.count):
        rows = np.flatnonzero(words.lengths > _WORD * number)
        if len(rows) == len(found):
            found = mixed(found ^ words.of(rows, number))
        else:
            found[rows] = mixed(found[rows] ^ words.of(rows, number))
    return found


class _Words:
    """The bytes of texts as words of eight, zero where a text has ended; the first `skip` bytes are left out."""

    def __init__(self, texts: Any, skip: int = 0) -> None:
        _, offsets, data = texts.buffers()
        ends = np.zeros(1, np.int32)
        if len(texts):
            ends = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
        self.starts = ends[:-1].astype(np.int64) + skip
        self.lengths = np.diff(ends).astype(np.int64) - skip
        self.count = -(-int(self.lengths.max(initial=0)) // _WORD)
        stop = int(ends[-1])
        self._bytes = np.zeros(stop + _WORD, np.uint8)
        if stop:
            self._bytes[:stop] = np.frombuffer(data, np.uint8, stop)

    @property
    def holds_zeros(self) -> bool:
        """Whether some byte of the texts is zero."""
        return bool((self._bytes[: len(self._bytes) - _WORD] == 0).any())

    def of(self, rows: Numbers, number: int) -> Hashes:
        """A word of each of these rows."""
        # one word begins at every byte
        shape = (len(self._bytes) - _WORD + 1,)
        every = np.ndarray(shape, "<u8", self._bytes, strides=(1,))
        left = np.clip(self.lengths[rows] - _WORD * number, 0, _WORD)
        place = np.minimum(self.starts[rows] + _WORD * number, shape[0] - 1)
        return every[place] & _FIRST_BYTES[left]


def mixed(numbers: NDArray[Any]) -> Hashes:
    """Spread numbers over 64 bits (splitmix64), so that sums of them tell sets apart."""
    spread = numbers.astype(np.uint64)
    spread += np.uint64(0x9E3779B97F4A7C15)
    spread ^= spread >> np.uint64(30)
    spread *= np.uint64(0xBF58476D1CE4E5B9)
    spread ^= spread >> np.uint64(27)
    spread *= np.uint64(0x94D049BB133111EB)
    spread ^= spread >> np.uint64(31)
    return spread


def repeats(numbers: NDArray[Any]) -> bool:
    """Whether a number stands there twice."""
    values = np.sort(numbers)
    return bool((values[1:] == values[:-1]).any())


def all_among(wanted: Any, given: Any) -> bool:
    """Whether every text of a column stands in another one; by hashes, which one wrong text in 10¹² passes."""
    hashes = text_hashes(given)
    every = np.concatenate([hashes, text_hashes(wanted)])
    return _different(every) == _different(hashes)


def _different(numbers: NDArray[Any]) -> int:
    """How many different numbers there are."""
    return int(_changes(np.sort(numbers)).sum())


def order_of(numbers: NDArray[Any]) -> Numbers:
    """Rows in the order of their numbers, 0 or more, and as they stand where these are equal.

    What `np.argsort(numbers, kind="stable")` gives, in a third of the time: number and row share 64 bits, and sorting
    values is quick where sorting rows is not. Of hashes the row takes the lowest bits, and the few that then
    seem equal are sorted apart.
    """
    values = numbers.astype(np.uint64)
    bits = np.uint64(max(len(values) - 1, 1).bit_length())
    fits = int(values.max(initial=0)) >> (64 - int(bits)) == 0
    packed = values << bits if fits else values >> bits << bits
    packed |= np.arange(len(values), dtype=np.uint64)
    packed.sort()
    order = (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    if fits:
        return order
    packed >>= bits
    own = values[order]
    apart = (packed[1:] == packed[:-1]) & (own[1:] != own[:-1])
    if apart.any():
        seem = np.flatnonzero(np.isin(packed, packed[1:][apart]))
        order[seem] = order[seem][np.lexsort((order[seem], own[seem]))]
    return order


def dense_codes(numbers: NDArray[Any]) -> Numbers:
    """Number whole numbers from 0 in sorted order: the inverse of `np.unique`, in a third of its time."""
    if not len(numbers):
        return np.zeros(0, np.int64)
    low, high = int(numbers.min()), int(numbers.max())
    values = numbers.astype(np.uint64)
    if high - low < _NARROW * len(values):
        values -= np.uint64(low % (1 << 64))
        there = np.zeros(high - low + 1, bool)
        there[values] = True
        codes: Numbers = (np.cumsum(there) - 1)[values]
        return codes
    order = order_of(values ^ _SIGN if low < 0 else values)
    found = np.empty(len(values), np.int64)
    found[order] = np.cumsum(_changes(values[order])) - 1
    return found


def rows_of(wanted: Hashes, given: Hashes) -> Numbers:
    """The row of every hash among others, the first of several; -1 where it is not there."""
    every = np.concatenate([given, wanted])
    order = order_of(every)
    fresh = np.flatnonzero(_changes(every[order]))
    first = order[fresh]
    first[first >= len(given)] = -1
    found = np.empty(len(every), np.int64)
    found[order] = np.repeat(first, np.diff(fresh, append=len(every)))
    return found[len(given) :]


def _changes(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a number is not the one before it; the first always."""
    found = np.ones(len(numbers), bool)
    found[1:] = numbers[1:] != numbers[:-1]
    return found


def _array(column: Any) -> Any:
    """A column as one Arrow array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column

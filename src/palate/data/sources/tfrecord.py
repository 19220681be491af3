"""Read TFRecord files and the `tf.train.Example` messages inside, without TensorFlow.

A record is its length (8 bytes, little endian), the masked CRC-32C of these 8 bytes, the data, and the
masked CRC-32C of the data. The data is a protocol buffer: `Example` holds `Features`, a map from
names to lists of bytes, 32-bit floats or 64-bit integers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from palate.data.sources.common import Faults
from palate.data.sources.texts import require_file
from palate.errors import DataError

_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli, bits reversed
_BLOCK: Final = 1024
_AT_ONCE: Final = 1024 * _BLOCK
_LIMIT: Final = 1 << 30

Feature: TypeAlias = list[bytes] | NDArray[np.float32] | list[int]
"""The values of one feature: texts and images are bytes."""


@cache
def _tables() -> NDArray[np.uint32]:
    """Return what each byte value adds to the CRC at each place of a block, shape [1024, 256].

    The CRC is linear: that of a block is the exclusive or of what its bytes add.
    """
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = (last >> np.uint32(1)) ^ (np.uint32(_POLYNOMIAL) * (last & np.uint32(1)))
    tables = np.empty((_BLOCK, 256), dtype=np.uint32)
    tables[-1] = last
    for place in range(_BLOCK - 2, -1, -1):
        after = tables[place + 1]
        tables[place] = (after >> np.uint32(8)) ^ last[after & np.uint32(255)]
    return tables


@cache
def _first_four() -> tuple[list[int], list[int], list[int], list[int]]:
    one, two, three, four = (_tables()[place].tolist() for place in range(4))
    return one, two, three, four


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of bytes; that of ``b"123456789"`` is 0xE3069283."""
    tables, (one, two, three, four) = _tables(), _first_four()
    state, whole = 0xFFFFFFFF, len(data) - len(data) % _BLOCK
    places = np.arange(_BLOCK)
    for start in range(0, whole, _AT_ONCE):
        stop = min(whole, start + _AT_ONCE)
        blocks = np.frombuffer(data, np.uint8, stop - start, start).reshape(-1, _BLOCK)
        for added in np.bitwise_xor.reduce(tables[places, blocks], axis=1).tolist():
            # what came before acts like four bytes more at the start of the block
            state = (
                added
                ^ one[state & 255]
                ^ two[(state >> 8) & 255]
                ^ three[(state >> 16) & 255]
                ^ four[state >> 24]
            )
    return _tail(data[whole:], state) ^ 0xFFFFFFFF


def _tail(rest: bytes, state: int) -> int:
    """Go on with fewer bytes than a block."""
    tables, last = _tables(), _tables()[-1]
    if len(rest) < 4:
        for byte in rest:
            state = (state >> 8) ^ int(last[(state ^ byte) & 255])
        return state
    values = np.frombuffer(rest, np.uint8).copy()
    values[:4] ^= np.frombuffer(struct.pack("<I", state), np.uint8)
    places = np.arange(_BLOCK - len(rest), _BLOCK)
    return int(np.bitwise_xor.reduce(tables[places, values]))


def masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C as TFRecord stores it: rotated and moved, as the data may hold CRCs itself."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecords(path: Path, faults: Faults | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield number (from 0) and data of every record of a TFRecord file, one at a time.

    Raises `DataError` with the record and its first byte (from 0) where the file breaks off or a
    checksum is wrong. With `faults` a record whose data alone is damaged is added there and left out.
    """
    require_file(path)
    size, place, number = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while place < size:
            where = f"record {number}, byte {place:,}"
            length = _length(file.read(12), size - place, f"{path}: {where}")
            data, mark = file.read(length), file.read(4)
            if int.from_bytes(mark, "little") == masked_crc32c(data):
                yield number, data
            elif faults is None:
                raise DataError(f"{path}: {where}: the checksum of its {length:,} bytes is wrong")
            else:
                faults.rows += 1
                faults.add(
                    f"{path.name}, {where}", f"the checksum of its {length:,} bytes is wrong"
                )
            place += 16 + length
            number += 1


def _length(head: bytes, left: int, where: str) -> int:
    """Return the length of a record's data by its first 12 bytes, if that much is left in the file."""
    if len(head) < 12:
        raise DataError(f"{where}: the file breaks off; it is incomplete")
    if int.from_bytes(head[8:], "little") != masked_crc32c(head[:8]):
        raise DataError(f"{where}: the checksum of its length is wrong; is it a TFRecord file?")
    length = int.from_bytes(head[:8], "little")
    if length > _LIMIT:
        raise DataError(f"{where}: holds {length:,} bytes, expected at most {_LIMIT:,}")
    if 16 + length > left:
        raise DataError(
            f"{where}: {16 + length:,} bytes expected, {left:,} left; the file is incomplete"
        )
    return length


def parse_example(data: bytes) -> dict[str, Feature]:
    """Return the features of a `tf.train.Example` by name; a feature without values is an empty list.

    Raises `DataError` with the byte where the message is broken. Unknown fields are skipped, as
    protocol buffers have it; a name that comes twice keeps the last.
    """
    found: dict[str, Feature] = {}
    for start, stop in _messages(data, 0, len(data), 1):
        for entry in _messages(data, start, stop, 1):
            name, values = "", []  # type: tuple[str, Feature]
            for number, wire, value in _fields(data, *entry):
                if wire == 2 and number == 1:
                    name = _text(data, *value)
                elif wire == 2 and number == 2:
                    values = _feature(data, *value)
            found[name] = values
    return found


def _feature(data: bytes, start: int, stop: int) -> Feature:
    """Return the values of a feature: field 1 are bytes, 2 floats, 3 integers; the last kind counts."""
    kind, parts = 0, []  # type: tuple[int, list[tuple[int, Any]]]
    for number, wire, inner in _fields(data, start, stop):
        if wire != 2 or number not in {1, 2, 3}:
            continue
        if number != kind:
            kind, parts = number, []
        parts += [(w, value) for n, w, value in _fields(data, *inner) if n == 1]
    if kind == 1:
        return [data[begin:end] for wire, (begin, end) in parts if wire == 2]
    if kind == 2:
        spans = [value for wire, value in parts if wire in {2, 5}]
        raw = b"".join(data[begin:end] for begin, end in spans)
        if len(raw) % 4:
            raise DataError(f"byte {start:,}: {len(raw)} bytes of floats, expected a multiple of 4")
        return np.frombuffer(raw, "<f4").astype(np.float32)
    integers: list[int] = []
    for wire, value in parts:
        if wire == 0:
            integers.append(_signed(value))
        elif wire == 2:
            integers += _packed(data, *value)
    return integers


def _packed(data: bytes, place: int, stop: int) -> Iterator[int]:
    while place < stop:
        value, place = _varint(data, place, stop)
        yield _signed(value)


def _messages(data: bytes, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
    for number, wire, value in _fields(data, start, stop):
        if number == wanted and wire == 2:
            yield value


def _fields(data: bytes, place: int, stop: int) -> Iterator[tuple[int, int, Any]]:
    """Yield number, wire type and value of every field; all but a varint is where it begins and ends."""
    while place < stop:
        begin = place
        tag, place = _varint(data, place, stop)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = _varint(data, place, stop)
            yield number, wire, value
            continue
        if wire == 2:
            length, place = _varint(data, place, stop)
        elif wire in {1, 5}:
            length = 8 if wire == 1 else 4
        else:
            raise DataError(f"byte {begin:,}: wire type {wire}, which is no tf.train.Example")
        if not number or length > stop - place:
            raise DataError(f"byte {begin:,}: a field goes on after the end of its message")
        yield number, wire, (place, place + length)
        place += length


def _varint(data: bytes, place: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= stop:
            raise DataError(f"byte {place:,}: the message breaks off in a number")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, place
    raise DataError(f"byte {place:,}: a number of more than 10 bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(data: bytes, start: int, stop: int) -> str:
    try:
        return data[start:stop].decode()
    except UnicodeDecodeError:
        raise DataError(f"byte {start:,}: the name of a feature is no UTF-8 text") from None

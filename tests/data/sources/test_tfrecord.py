"""TFRecords: what is written comes back, and no damaged byte goes unseen."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.sources.common import Faults
from palate.data.sources.tfrecord import crc32c, masked_crc32c, parse_example, tfrecords
from palate.errors import DataError


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(value: object, *, packed: bool = True) -> bytes:
    """One feature by the kind of its values: bytes, floats or whole numbers."""
    values = list(value)  # type: ignore[call-overload]
    if all(isinstance(one, bytes) for one in values):
        return field(1, b"".join(field(1, one) for one in values))
    if all(isinstance(one, float) for one in values):
        raw = [struct.pack("<f", one) for one in values]
        inner = field(1, b"".join(raw)) if packed else b"".join(b"\x0d" + one for one in raw)
        return field(2, inner)
    numbers = [varint(one) for one in values]
    inner = field(1, b"".join(numbers)) if packed else b"".join(b"\x08" + one for one in numbers)
    return field(3, inner)


def example(features: dict[str, object], *, packed: bool = True) -> bytes:
    entries = [
        field(1, field(1, name.encode()) + field(2, feature(value, packed=packed)))
        for name, value in features.items()
    ]
    return field(1, b"".join(entries))


def record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    marks = [struct.pack("<I", masked_crc32c(part)) for part in (head, data)]
    return head + marks[0] + data + marks[1]


def plain_crc32c(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"123456789", 0xE3069283),
        (b"", 0),
        # RFC 3720, B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_the_checksum_is_the_published_one(data: bytes, crc: int):
    assert crc32c(data) == crc


@pytest.mark.parametrize("length", [1, 3, 4, 5, 1023, 1024, 1025, 1027, 4096, 5000])
def test_the_checksum_in_blocks_is_the_plain_one(length: int):
    data = np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes()
    assert crc32c(data) == plain_crc32c(data)


def test_a_long_text_is_the_plain_one():
    data = np.random.default_rng(0).integers(0, 256, 1 << 12, dtype=np.uint8).tobytes()
    once = crc32c(data * 600)
    assert once == crc32c(bytes(bytearray(data) * 600))
    assert once != crc32c(data * 599)


def test_the_mask_is_that_of_tensorflow():
    # files of TensorBoard begin with a record of 24 bytes, and this is its head
    head = bytes.fromhex("1800000000000000 a37f4b22")
    assert masked_crc32c(head[:8]).to_bytes(4, "little") == head[8:]


@given(st.lists(st.binary(max_size=3000), max_size=5))
def test_records_come_back(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]):
    path = tmp_path_factory.mktemp("t") / "a.tfrecord"
    path.write_bytes(b"".join(map(record, parts)))
    assert list(tfrecords(path)) == list(enumerate(parts))


@pytest.mark.parametrize("byte", range(16 + 5))
def test_no_damaged_byte_goes_unseen(tmp_path: Path, byte: int):
    path = tmp_path / "a.tfrecord"
    whole = bytearray(record(b"first") + record(b"other"))
    whole[21 + byte] ^= 4
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"a\.tfrecord: record 1, byte 21: "):
        list(tfrecords(path))


@pytest.mark.parametrize("left", range(1, 21))
def test_a_file_that_breaks_off_is_named(tmp_path: Path, left: int):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(record(b"first") + record(b"other")[:left])
    with pytest.raises(DataError, match=r"record 1, byte 21: .*incomplete"):
        list(tfrecords(path))


def test_a_record_of_damaged_data_can_be_left_out(tmp_path: Path):
    path = tmp_path / "a.tfrecord"
    whole = bytearray(record(b"first") + record(b"other") + record(b"third"))
    whole[21 + 12] ^= 1
    path.write_bytes(whole)
    faults = Faults("a", allowed=True)
    assert [data for _, data in tfrecords(path, faults)] == [b"first", b"third"]
    assert faults.examples == [
        "a.tfrecord, record 1, byte 21: the checksum of its 5 bytes is wrong"
    ]


def test_another_file_is_no_tfrecord(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\nthis goes on\n")
    with pytest.raises(DataError, match="is it a TFRecord file"):
        list(tfrecords(path))


@pytest.mark.parametrize("packed", [True, False])
def test_features_of_all_kinds_come_back(packed: bool):
    told = {
        "image": [b"\x89PNG", b""],
        "score": [0.5, -1.25],
        "number": [3, -1, 1 << 40],
        "größe": [b"x"],
    }
    found = parse_example(example(told, packed=packed))
    assert found["image"] == [b"\x89PNG", b""]
    assert isinstance(found["score"], np.ndarray)
    assert found["score"].tolist() == [0.5, -1.25]
    assert found["number"] == [3, -1, 1 << 40]
    assert found["größe"] == [b"x"]


def test_unknown_fields_are_skipped_and_empty_features_are_lists():
    entry = field(1, b"empty") + field(2, b"")
    floats = field(1, b"none") + field(2, field(2, b""))
    unknown = (
        varint(9 << 3 | 5) + b"abcd" + varint(10 << 3 | 1) + bytes(8) + varint(11 << 3) + b"\x07"
    )
    found = parse_example(unknown + field(1, field(1, entry) + field(1, floats) + unknown))
    assert found["empty"] == []
    assert len(found["none"]) == 0


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x0a\x05abc", "goes on after the end of its message"),
        (b"\x0b", "wire type 3"),
        (b"\x0a", "breaks off in a number"),
        (b"\xff" * 11, "more than 10 bytes"),
        (field(1, field(1, field(2, field(2, field(1, b"abc"))))), "expected a multiple of 4"),
        (field(1, field(1, field(1, b"\xff"))), "no UTF-8 text"),
    ],
)
def test_a_broken_message_is_named_by_its_byte(data: bytes, told: str):
    with pytest.raises(DataError, match=rf"^byte \d+: .*{told}"):
        parse_example(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes):
    with contextlib.suppress(DataError):
        assert isinstance(parse_example(data), dict)

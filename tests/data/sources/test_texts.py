"""JSON is read as it comes, and equals what the standard library reads at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.sources import texts
from palate.data.sources.texts import json_records
from palate.errors import DataError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.json"


@settings(max_examples=150, deadline=None)
@given(
    records=st.lists(VALUES, max_size=6),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 2]),
    escaped=st.booleans(),
)
def test_records_are_those_of_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory, records, chunk, indent, escaped
) -> None:
    path = tmp_path_factory.getbasetemp() / "stream.json"
    text = json.dumps(records, indent=indent, ensure_ascii=escaped)
    path.write_bytes(text.encode("utf-8", "surrogatepass") if escaped else _encoded(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "_CHUNK", chunk)
        found = list(json_records(path))
    assert [number for number, _ in found] == list(range(len(records)))
    assert [value for _, value in found] == json.loads(path.read_text("utf-8"))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is an empty file"),
        ("{}", "expected a JSON list"),
        ('[{"a": 1}, {"a"', "breaks off in record 1"),
        ('[{"a": 1}, {"a": "x', "breaks off in record 1"),
        ('[{"a": 1}', "breaks off after record 0"),
        ('[{"a": 1} {"a": 2}]', "instead of a comma after record 0"),
        ('[{"a": 1}, {"a": nope}, {"a": 3}, {"a": 4}, {"a": 5}]', "record 1 is no valid JSON"),
        ('[{"a": 1}] and more', "goes on after the end"),
        ('[{"a": NaN}]', "NaN is no JSON"),
        ('[\n{"a": 1},\n{"b" 2},\n{"c": "a long one that follows"}]', "line 3"),
    ],
)
def test_a_broken_file_is_named_by_record(
    path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, text: str, told: str
) -> None:
    monkeypatch.setattr(texts, "_CHUNK", chunk)
    path.write_text(text)
    with pytest.raises(DataError, match=told) as caught:
        list(json_records(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_mixed_encodings_are_named_by_byte(path: Path, monkeypatch, chunk: int) -> None:
    monkeypatch.setattr(texts, "_CHUNK", chunk)
    path.write_bytes('["é", "'.encode() + "é".encode("latin-1") + b'"]')
    with pytest.raises(DataError, match=r"no UTF-8 text \(byte 8\)"):
        list(json_records(path))


def test_a_byte_order_mark_is_dropped(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert list(json_records(path)) == [(0, 1)]

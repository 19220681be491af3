"""Check a whole table at once, and name the first row at fault.

The promises are those of the records in `palate.data.records`, tested column by column so that
a million rows take about a second. Rows are counted from 0, as Arrow and pandas count them.
"""

from __future__ import annotations

import difflib
import json
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.codes import repeats, text_hashes
from palate.data.records import INT16_MAX, ROLES, choice_fault
from palate.data.schemas import KEYS, SCHEMAS, Kind
from palate.errors import DataError

_NOT_EMPTY: Final[dict[Kind, tuple[str, ...]]] = {
    "images": ("image",),
    "choices": ("choice", "dimension"),
    "scores": ("image", "scorer", "dimension"),
    "labels": ("image",),
}


def fit_schema(table: Any, kind: Kind, name: str) -> Any:
    """Return the table with the exact columns and types of its schema.

    Only lossless conversions of the same family are made (int64 that fits into int16,
    large_string, dictionary, float32 → float64). Raises `DataError` that names the column.
    """
    schema = SCHEMAS[kind]
    for column in table.schema.names:
        if column not in schema.names:
            hint = difflib.get_close_matches(column, schema.names, n=1)
            ask = f"; did you mean {hint[0]!r}?" if hint else f" in a table of {kind}"
            raise DataError(f"{name}: unknown column {column!r}{ask}")
    missing = [column for column in schema.names if column not in table.schema.names]
    if missing:
        raise DataError(f"{name}: column {missing[0]!r} is missing from a table of {kind}")
    if len(table.schema.names) != len(schema.names):
        raise DataError(f"{name}: a column stands there twice: {', '.join(table.schema.names)}")
    columns = [_fit_column(table.column(field.name), field, name) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _fit_column(column: Any, field: Any, name: str) -> Any:
    wanted, found = field.type, column.type
    if not _same_family(found, wanted):
        raise DataError(f"{name}: column {field.name!r} holds {found}, expected {_plain(wanted)}")
    try:
        fitted = column if found.equals(wanted) else column.cast(wanted)
    except pa.ArrowException:
        raise DataError(
            f"{name}: column {field.name!r} holds {found} values that do not fit {_plain(wanted)}"
        ) from None
    if fitted.null_count and not field.nullable:
        row = _first(pc.is_null(fitted))
        raise DataError(f"{name}, row {row}: column {field.name!r} is empty")
    return fitted


def _same_family(found: Any, wanted: Any) -> bool:
    types = pa.types
    if types.is_null(found):
        return True
    if types.is_dictionary(found):
        return _same_family(found.value_type, wanted)
    if types.is_list(wanted):
        listed = types.is_list(found) or types.is_large_list(found)
        return listed and _same_family(found.value_type, wanted.value_type)
    if types.is_string(wanted):
        return bool(types.is_string(found) or types.is_large_string(found))
    if types.is_integer(wanted):
        return bool(types.is_integer(found))
    return bool(types.is_floating(found) or types.is_integer(found))


def _plain(kind: Any) -> str:
    return f"a list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)


def check_table(table: Any, kind: Kind, name: str, *, unique: bool = True) -> None:
    """Raise `DataError` at the first row that a record of this kind would refuse.

    `table` has the exact schema (see `fit_schema`). With `unique`, keys must not repeat.
    """
    try:
        table.validate(full=True)
    except pa.ArrowException:
        raise DataError(f"{name}: a column is damaged or holds text that is not UTF-8") from None
    for column in _NOT_EMPTY[kind]:
        _refuse(pc.equal(table.column(column), ""), name, f"the {column} is an empty text")
    _CHECKS[kind](table, name)
    if unique:
        _check_unique(table, kind, name)


def list_lengths(column: Any) -> Any:
    """Length of every list of a list column, as int64."""
    return pc.list_value_length(column).to_numpy().astype(np.int64)


def _check_images(table: Any, name: str) -> None:
    for column in ("width", "height"):
        bad = pc.less(table.column(column), 1)
        _refuse(bad, name, f"the {column} is below 1")
    told = table.column("sha256")
    if told.null_count < len(told):
        hashes = pc.match_substring_regex(told, "^[0-9a-f]{64}$")
        _refuse(pc.invert(hashes), name, "the sha256 is not 64 lower-case hex digits")
    for column in ("settings", "details"):
        _check_json(table.column(column), column, name)


def _check_choices(table: Any, name: str) -> None:
    images, ranks = table.column("images"), table.column("ranks")
    shown, ranked = list_lengths(images), list_lengths(ranks)
    flat, flat_ranks = pc.list_flatten(images), pc.list_flatten(ranks)
    if flat.null_count or flat_ranks.null_count:
        raise DataError(f"{name}: a list of images or ranks has an empty place")
    bad = (shown != ranked) | (shown < 2)
    if not bad.any():
        owner = np.repeat(np.arange(len(shown)), shown)
        values = flat_ranks.to_numpy()
        bad[owner[(values < 1) | (values > INT16_MAX)]] = True
        if repeats(text_hashes(flat, owner.astype(np.uint64))):
            bad[_repeating(flat, owner)] = True
    if bad.any():
        row = int(np.argmax(bad))
        fault = choice_fault(tuple(images[row].as_py()), tuple(ranks[row].as_py()))
        raise DataError(f"{name}, row {row}: {fault}")
    _refuse_any(pc.equal(flat, ""), name, "an image key is an empty text")
    _check_json(table.column("details"), "details", name)


def _repeating(flat: Any, owner: Any) -> Any:
    """Owners (choices) that list one image key more than once."""
    codes = pc.dictionary_encode(flat.combine_chunks()).indices.to_numpy().astype(np.int64)
    pairs = owner * (int(codes.max(initial=0)) + 1) + codes
    pairs.sort()
    again = pairs[1:][pairs[1:] == pairs[:-1]]
    return again // (int(codes.max(initial=0)) + 1)


def _check_scores(table: Any, name: str) -> None:
    value = table.column("value")
    _refuse(pc.invert(pc.is_finite(value)), name, "the value is not a finite number")
    either = pc.equal(pc.is_null(value), pc.is_null(table.column("error")))
    _refuse(either, name, "needs either a value or an error, and not both")
    for column in ("tokens_given", "tokens_kept"):
        _refuse(pc.less(table.column(column), 0), name, f"{column} is below 0")
    area = table.column("area_kept")
    share = pc.and_(pc.greater_equal(area, 0), pc.less_equal(area, 1))
    _refuse(pc.invert(share), name, "area_kept is not between 0 and 1")


def _check_labels(table: Any, name: str) -> None:
    known = pc.is_in(table.column("role"), value_set=pa.array(ROLES))
    _refuse(pc.invert(known), name, f"the role is not one of {', '.join(ROLES)}")
    _refuse(pc.invert(pc.is_finite(table.column("score"))), name, "the score is not finite")
    weight = table.column("weight")
    _refuse(pc.invert(pc.is_finite(weight)), name, "the weight is not finite")
    _refuse(pc.less(weight, 0), name, "the weight is below 0")


_CHECKS: Final = {
    "images": _check_images,
    "choices": _check_choices,
    "scores": _check_scores,
    "labels": _check_labels,
}


def _check_unique(table: Any, kind: Kind, name: str) -> None:
    keys = list(KEYS[kind])
    hashes = np.zeros(len(table), np.uint64)
    for key in keys:
        hashes = text_hashes(table.column(key), hashes)
        # rows that differ in the first columns of the key differ in the whole key
        if not repeats(hashes):
            return
    seen: set[tuple[object, ...]] = set()
    columns = (table.column(key).to_pylist() for key in keys)
    for row, values in enumerate(zip(*columns, strict=True)):
        if values in seen:
            shown = ", ".join(f"{key} {value!r}" for key, value in zip(keys, values, strict=True))
            raise DataError(f"{name}, row {row}: {shown} stands in the table twice")
        seen.add(values)


def _check_json(column: Any, field: str, name: str) -> None:
    for value in column.unique().to_pylist():
        if value is None:
            continue
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            _refuse(pc.equal(column, value), name, f"{field} {value[:40]!r} is not a JSON object")


def _refuse(mask: Any, name: str, fault: str) -> None:
    """Raise for the first row where the mask is true; null counts as false."""
    if pc.any(mask).as_py():
        raise DataError(f"{name}, row {_first(mask)}: {fault}")


def _refuse_any(mask: Any, name: str, fault: str) -> None:
    if pc.any(mask).as_py():
        raise DataError(f"{name}: {fault}")


def _first(mask: Any) -> int:
    return int(pc.index(mask, value=True).as_py())

"""Settings: one strict TOML file in, one frozen dataclass out.

A recipe is a TOML file with one table per verb. A name that does not exist is refused with the
nearest name that does, and a value of another type is refused rather than converted.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from palate.errors import PalateError, SettingsError

T = TypeVar("T")

_NOTHING: Mapping[str, object] = {}
_GIVEN = "settings given"
# pydantic speaks of JSON, the user writes TOML
_WORDS = [
    ("Value error, ", ""),
    ("Input ", ""),
    ("a valid integer", "an integer"),
    ("a valid array", "a list"),
    ("an object", "a table"),
    ("a valid ", "a "),
]


def read_settings(
    cls: type[T],
    path: Path | None,
    overrides: Mapping[str, object] = _NOTHING,
    *,
    section: str | None = None,
) -> T:
    """Read the settings of one verb from a TOML file, and put the given ones on top.

    Args:
        cls: a dataclass; its fields are the settings, their defaults the defaults, and a field that
            is a dataclass is a table.
        path: the TOML file, or None for the defaults.
        overrides: settings by name, ``{"steps": 10, "optimizer.warmup_steps": 2}``. They win over
            the file. None means "not given", as for an option left out at the command line.
        section: the table of the file to read (``"train"`` reads ``[train]``); None reads all of it.

    Returns:
        An instance of ``cls``.

    Raises:
        SettingsError: the file is missing or no TOML, it has no such section, a name is unknown, a
            setting is missing, or a value has another type or is refused by the dataclass.
    """
    label = _GIVEN if path is None else str(path)
    values = {} if path is None else _read_toml(path, section)
    _refuse_unknown(cls, values, label if section is None else f"{label}: {section}")
    given = _nest(overrides)
    _refuse_unknown(cls, given, _GIVEN)
    origin = _Origin(label, section, given)
    return _build(cls, _merge(values, given), origin)


def settings_dict(settings: object) -> dict[str, Any]:
    """Turn settings into a dictionary that JSON can hold.

    Paths become text, tuples become lists and nested settings become dictionaries.
    """
    from pydantic_core import to_jsonable_python

    plain: dict[str, Any] = to_jsonable_python(settings)
    return plain


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Where each value came from, so that an error can say it."""

    label: str
    section: str | None
    given: Mapping[str, object]

    def where(self, location: tuple[int | str, ...]) -> str:
        """Name the file or the given settings, and the table inside."""
        tables = [str(part) for part in location[:-1]]
        if location and _reaches(self.given, location):
            return ": ".join(filter(None, [_GIVEN, ".".join(tables)]))
        tables = [self.section, *tables] if self.section else tables
        return ": ".join(filter(None, [self.label, ".".join(tables)]))


def _reaches(tree: object, location: tuple[int | str, ...]) -> bool:
    for part in location:
        if not isinstance(tree, Mapping):
            return True
        if part not in tree:
            return False
        tree = tree[part]
    return True


def _read_toml(path: Path, section: str | None) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; expected a TOML file of settings") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not a TOML file: it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise SettingsError(f"{path}: could not be read: {error.strerror}") from None
    if section is None:
        return document
    if section not in document:
        tables = ", ".join(f"[{name}]" for name in document) or "no table at all"
        hint = _suggestion(section, list(document))
        raise SettingsError(f"{path}: no table [{section}]; it has {tables}{hint}")
    table = document[section]
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: '{section}' should be a table, [{section}], not a value")
    return table


def _suggestion(name: str, known: list[str]) -> str:
    """Say which known name is near; nothing where none is."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _refuse_unknown(hint: Any, value: object, where: str) -> None:
    """Refuse every name in a table that its dataclass does not have, at any depth."""
    cls = _dataclass_in(hint)
    if cls is None or not isinstance(value, Mapping):
        for part, key, inner in _inside(hint, value):
            _refuse_unknown(part, inner, f"{where}.{key}")
        return
    hints = typing.get_type_hints(cls, include_extras=True)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for name, inner in value.items():
        if name not in known:
            near = _suggestion(name, known)
            has = "" if near else f"; the settings are {', '.join(known) or 'none'}"
            raise SettingsError(f"{where}: unknown setting '{name}'{near}{has}")
        joint = "." if where.count(": ") else ": "
        _refuse_unknown(hints[name], inner, f"{where}{joint}{name}")


def _dataclass_in(hint: Any) -> Any | None:
    """Find the dataclass in a type such as ``Optimizer``, ``Optimizer | None`` or ``Annotated``."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    if typing.get_origin(hint) in (list, tuple, dict, set, frozenset):
        return None
    found = [_dataclass_in(part) for part in typing.get_args(hint)]
    return next((cls for cls in found if cls is not None), None)


def _inside(hint: Any, value: object) -> Iterator[tuple[Any, object, object]]:
    """Walk into lists, tuples and dictionaries of settings."""
    arguments = [part for part in typing.get_args(hint) if part is not Ellipsis]
    if not arguments:
        return
    if isinstance(value, Mapping):
        yield from ((arguments[-1], key, inner) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((arguments[0], index, inner) for index, inner in enumerate(value))


def _nest(overrides: Mapping[str, object]) -> dict[str, Any]:
    """Turn dotted names into tables, and leave out what was not given."""
    tree: dict[str, Any] = {}
    for name, value in overrides.items():
        if value is None:
            continue
        *tables, last = name.split(".")
        branch = tree
        for table in tables:
            branch = branch.setdefault(table, {})
        if dataclasses.is_dataclass(value):
            value = settings_dict(value)  # noqa: PLW2901 - the same value as a table
        branch[last] = _nest(value) if isinstance(value, Mapping) else value
    return tree


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _build(cls: type[T], values: Mapping[str, Any], origin: _Origin) -> T:
    """Make the dataclass; pydantic checks the types and reports the first fault."""
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import to_jsonable_python

    # By way of JSON, because only there a strict check takes a list for a tuple and text for a path.
    text = json.dumps(to_jsonable_python(values))
    try:
        return TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        raise SettingsError(_sentence(error.errors()[0], origin)) from None
    except PalateError as error:  # the dataclass itself refused
        raise SettingsError(f"{origin.where(())}: {error}") from None


def _sentence(fault: Any, origin: _Origin) -> str:
    location: tuple[int | str, ...] = fault["loc"]
    if not location:
        return f"{origin.where(())}: {_reason(fault)}"
    where, name = origin.where(location), location[-1]
    if fault["type"] == "missing" and isinstance(name, int):
        return f"{where}: too few values: number {name + 1} is missing"
    if fault["type"] == "missing":
        return f"{where}: setting '{name}' is missing"
    if fault["type"] == "value_error":
        return f"{where}: '{name}': {_reason(fault)}"
    return f"{where}: '{name}' {_reason(fault)}, not {json.dumps(fault['input'])}"


def _reason(fault: Any) -> str:
    text: str = fault["msg"]
    for pydantic, toml in _WORDS:
        text = text.replace(pydantic, toml)
    return text

"""Prompts from a file: one per line, or the ``prompt`` of each row of JSON Lines, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from palate.errors import DataError


def read_prompts(path: Path) -> list[str]:
    """Read the prompts of a file, in its order, each distinct prompt once.

    ``.txt`` has one prompt per line; ``.jsonl``, ``.json``, ``.csv`` and ``.parquet`` have rows with a ``prompt``
    (JSON may also be plain strings). Empty lines are left out.

    Raises:
        DataError: no such file, an unknown ending, no prompt in a row, or no prompt at all.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of prompts")
    readers = {
        ".txt": _lines,
        ".jsonl": _json_lines,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: expected prompts as one of {', '.join(sorted(readers))}")
    try:
        prompts = list(dict.fromkeys(prompt for prompt in reader(path) if prompt.strip()))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8: {error}") from error
    if not prompts:
        raise DataError(f"{path}: no prompts in it")
    return prompts


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8-sig").splitlines()


def _json_lines(path: Path) -> Iterable[str]:
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            yield _prompt(_parse(line, f"{path}, line {number}"), f"{path}, line {number}")


def _json(path: Path) -> Iterable[str]:
    rows = _parse(path.read_text(encoding="utf-8-sig"), str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON list of prompts")
    return [_prompt(row, f"{path}, entry {number}") for number, row in enumerate(rows)]


def _csv(path: Path) -> Iterable[str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [
            _prompt(row, f"{path}, row {number}")
            for number, row in enumerate(csv.DictReader(file), start=1)
        ]


def _parquet(path: Path) -> Iterable[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        column = pq.read_table(path, columns=["prompt"]).column("prompt")
    except (pa.ArrowInvalid, KeyError) as error:
        raise DataError(
            f"{path}: expected a Parquet file with a column 'prompt': {error}"
        ) from error
    return [
        _prompt(value, f"{path}, row {number}") for number, value in enumerate(column.to_pylist())
    ]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error}") from error


def _prompt(row: object, where: str) -> str:
    value = row.get("prompt") if isinstance(row, dict) else row
    if not isinstance(value, str):
        raise DataError(f"{where}: expected a prompt (text, or a row with 'prompt')")
    return value

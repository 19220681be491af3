"""Prompts from a file: one per line, or the ``prompt`` of each row of JSON Lines, JSON, CSV or Parquet.

The folder of a data set gives the prompts of its images.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from palate.errors import DataError

_TABLES = ("images.parquet", "choices.parquet")


def read_prompts(path: Path) -> list[str]:
    """Read the prompts of a file, in its order, each distinct prompt once.

    ``.txt`` has one prompt per line; ``.jsonl``, ``.json``, ``.csv`` and ``.parquet`` have rows with a ``prompt``
    (JSON may also be plain strings), as every table of `palate data import` has. The folder of a data set gives the
    prompts of its images, or of its choices if it has no images. Empty lines are left out.

    Raises:
        DataError: no such file, an unknown ending, no prompt in a row, or no prompt at all.
    """
    if path.is_dir():
        tables = [path / name for name in _TABLES]
        path = next((table for table in tables if table.is_file()), path)
    if path.is_dir():
        raise DataError(
            f"{path}: is a folder without {' or '.join(_TABLES)}, expected a file of prompts or a data set"
        )
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
        rows = csv.DictReader(file)
        _need_column(rows.fieldnames or [], f"{path}: expected a CSV file")
        return [_prompt(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _parquet(path: Path) -> Iterable[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _need_column(file.schema_arrow.names, f"{path}: expected a Parquet file")
            column = file.read(columns=["prompt"]).column("prompt")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected a Parquet file with a column 'prompt'") from error
    return [
        _prompt(value, f"{path}, row {number}") for number, value in enumerate(column.to_pylist())
    ]


def _need_column(names: Sequence[str], expected: str) -> None:
    if "prompt" not in names:
        found = ", ".join(names) or "none"
        raise DataError(
            f"{expected} with a column 'prompt', found {found}; `palate data import prompts` reads the lists "
            "that have their own columns"
        )


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

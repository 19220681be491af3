"""Tables of scores as files: Parquet for machines, CSV and JSON Lines for everything else."""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from palate.data.records import Score
from palate.data.sources.texts import csv_rows, json_lines
from palate.data.tables import SCORES, read_table, to_table
from palate.errors import DataError
from palate.runs import atomic_path
from palate.scoring.pieces import hash_text
from palate.scoring.standing import Standing, factor_of, stand, standing

ENDINGS = (".parquet", ".csv", ".jsonl")
Tables: TypeAlias = Callable[[], Iterable[Any]]
"""Gives the parts of a table of scores in their order, as often as it is asked."""

_NUMBERS = {"value": float, "tokens_given": int, "tokens_kept": int, "area_kept": float}
_ROW_GROUP = 65_536
_AT_ONCE = 1024


@dataclass(slots=True)
class Counts:
    """What tables of scores hold: rows, errors and the first of them, cut prompts and cropped images."""

    rows: int = 0
    errors: int = 0
    first_error: str | None = None
    cut_prompts: int = 0
    cropped_images: int = 0

    def add(self, table: Any) -> None:
        """Count the rows of a part."""
        failed = error_rows(table)
        if self.first_error is None and len(failed):
            self.first_error = failed["error"][0].as_py()
        self.rows += len(table)
        self.errors += len(failed)
        self.cut_prompts += len(cut_rows(table))
        self.cropped_images += len(table.filter(pc.less(table["area_kept"], 1.0)))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.rows + other.rows,
            self.errors + other.errors,
            self.first_error or other.first_error,
            self.cut_prompts + other.cut_prompts,
            self.cropped_images + other.cropped_images,
        )


def error_rows(scores: Any) -> Any:
    """Give the rows of a table of scores that hold an error instead of a value."""
    return scores.filter(pc.is_valid(scores["error"]))


def cut_rows(scores: Any) -> Any:
    """Give the rows whose prompt was longer than the scorer reads."""
    return scores.filter(pc.less(scores["tokens_kept"], scores["tokens_given"]))


def is_score_file(path: Path) -> bool:
    """Tell a file of scores from a folder for them; the name of some other kind of file is refused."""
    if path.suffix.lower() in ENDINGS:
        return True
    if re.fullmatch(r"\.[A-Za-z]{2,5}", path.suffix) and not path.is_dir():
        raise DataError(f"{path}: scores are written as {', '.join(ENDINGS)}, or into a folder")
    return False


def write_scores(scores: Any, path: Path) -> None:
    """Write a table of scores by the ending of the name, whole or not at all.

    ``.parquet`` holds the table alone. ``.csv`` and ``.jsonl`` also say where each image stands among those of its
    prompt: ``rank`` (1 is best), ``percentile`` and ``share`` (softmax).
    """
    write_parts(lambda: [scores], path)


def write_parts(parts: Tables, path: Path) -> None:
    """Write a table of scores that comes in parts, whole or not at all, as :func:`write_scores` does.

    One part is in memory at a time, and for ``.csv`` and ``.jsonl`` about a hundred bytes of each row.
    """
    writers = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_lines}
    if path.suffix.lower() not in writers:
        raise DataError(f"{path}: scores are written as .parquet, .csv or .jsonl")
    with atomic_path(path) as temporary:
        writers[path.suffix.lower()](parts, temporary)


def _write_parquet(parts: Tables, path: Path) -> None:
    """Write row groups of one size, whatever the size of the parts."""
    held: list[Any] = []
    with pq.ParquetWriter(path, SCORES, compression="zstd") as writer:
        for table in parts():
            held.append(table.cast(SCORES))
            while sum(map(len, held)) >= _ROW_GROUP:
                whole = pa.concat_tables(held)
                writer.write_table(whole.slice(0, _ROW_GROUP), _ROW_GROUP)
                held = [whole.slice(_ROW_GROUP)]
        writer.write_table(pa.concat_tables([SCORES.empty_table(), *held]), _ROW_GROUP)


def _write_csv(parts: Tables, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        names = [*SCORES.names, "rank", "percentile", "share"]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_placed(parts(), _stand(parts)))


def _write_lines(parts: Tables, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for row in _placed(parts(), _stand(parts)):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _stand(parts: Tables) -> Standing:
    """Compare the rows of all parts; of a row only its value and a hash of its prompt and scorer are held."""
    groups, values, codes = array("Q"), array("d"), array("B")
    units: dict[str, int] = {}
    for table in parts():
        for row in _group_hashes(table):
            groups.append(row)
        values.extend(table["value"].to_numpy(zero_copy_only=False).astype(np.float64))
        codes.extend(units.setdefault(unit, len(units)) for unit in table["unit"].to_pylist())
    return stand(
        np.frombuffer(groups, np.uint64),
        np.frombuffer(values, np.float64),
        np.frombuffer(codes, np.uint8),
        [factor_of(unit) for unit in units],
    )


def _group_hashes(table: Any) -> Iterator[int]:
    names = ("prompt", "scorer", "dimension", "fingerprint")
    known: dict[tuple[str, ...], int] = {}
    for key in zip(*(table[name].to_pylist() for name in names), strict=True):
        if key not in known:
            known[key] = hash_text("\0".join(key))
        yield known[key]


def _placed(parts: Iterable[Any], stand: Standing) -> Iterator[dict[str, Any]]:
    """Give rows with rank, percentile and softmax share; None where there is none."""
    place = 0
    for part in parts:
        for first in range(0, len(part), _AT_ONCE):
            for row in part.slice(first, _AT_ONCE).to_pylist():
                row["rank"] = int(stand.rank[place]) or None
                row["percentile"] = _rounded(stand.percentile[place], 2)
                row["share"] = _rounded(stand.share[place], 6)
                place += 1
                yield row


def read_scores(path: Path) -> Any:
    """Read a table of scores that :func:`write_scores` wrote."""
    if path.suffix.lower() == ".parquet":
        return read_table(path, "scores")
    if path.suffix.lower() not in {".csv", ".jsonl"}:
        raise DataError(f"{path}: scores are read from .parquet, .csv or .jsonl")
    lines: Any = csv_rows(path) if path.suffix.lower() == ".csv" else json_lines(path)
    rows = []
    for number, found in lines:
        facts = {name: found.get(name) for name in SCORES.names}
        try:
            rows.append(Score(**{name: _read(name, value) for name, value in facts.items()}))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}, line {number}: no row of scores ({error})") from error
    return to_table(rows, "scores")


def read_first(path: Path, most: int) -> list[dict[str, Any]]:
    """Read the first rows of a file of scores as they stand there, without reading the rest."""
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            return next((batch.to_pylist() for batch in file.iter_batches(most)), [])
    lines: Any = csv_rows(path) if path.suffix.lower() == ".csv" else json_lines(path)
    return [row for _, row in islice(lines, most)]


def rows_with_standing(scores: Any, most: int | None = None) -> list[dict[str, Any]]:
    """Give rows of a table with rank, percentile and softmax share; None where there is none.

    With ``most`` only the first rows are given; their standing is among all.
    """
    return list(_placed([scores.slice(0, most)], standing(scores)))


def _rounded(value: np.float64, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def _read(name: str, value: Any) -> Any:
    """Turn a cell back into a value; an empty one is none, except in the texts that may be empty."""
    if value == "" and name not in {"prompt", "unit", "fingerprint"}:
        return None
    return _NUMBERS[name](value) if name in _NUMBERS and value is not None else value

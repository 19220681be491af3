"""Tables of scores as files: Parquet for machines, CSV and JSON Lines for everything else."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.records import Score
from palate.data.sources.common import csv_rows, json_lines
from palate.data.tables import SCORES, read_table, to_table, write_table
from palate.errors import DataError
from palate.runs import write_atomic
from palate.scoring.standing import standing

ENDINGS = (".parquet", ".csv", ".jsonl")
_NUMBERS = {"value": float, "tokens_given": int, "tokens_kept": int, "area_kept": float}


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
    if path.suffix.lower() == ".csv":
        sink = io.StringIO()
        rows = rows_with_standing(scores)
        names = [*SCORES.names, "rank", "percentile", "share"]
        writer = csv.DictWriter(sink, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, sink.getvalue())
    elif path.suffix.lower() == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows_with_standing(scores)]
        write_atomic(path, "".join(f"{line}\n" for line in lines))
    elif path.suffix.lower() == ".parquet":
        write_table(scores, path)
    else:
        raise DataError(f"{path}: scores are written as .parquet, .csv or .jsonl")


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


def rows_with_standing(scores: Any, most: int | None = None) -> list[dict[str, Any]]:
    """Give rows of a table with rank, percentile and softmax share; None where there is none.

    With ``most`` only the first rows are given; their standing is among all.
    """
    stand = standing(scores)
    rows: list[dict[str, Any]] = scores.slice(0, most).to_pylist()
    for place, row in enumerate(rows):
        row["rank"] = int(stand.rank[place]) or None
        row["percentile"] = _rounded(stand.percentile[place], 2)
        row["share"] = _rounded(stand.share[place], 6)
    return rows


def _rounded(value: np.float64, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def _read(name: str, value: Any) -> Any:
    """Turn a cell back into a value; an empty one is none, except in the texts that may be empty."""
    if value == "" and name not in {"prompt", "unit", "fingerprint"}:
        return None
    return _NUMBERS[name](value) if name in _NUMBERS and value is not None else value

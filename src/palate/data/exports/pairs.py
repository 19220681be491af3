"""Write pairs of a better and a worse image, as trainers of rewards and of direct preferences take them.

Every choice is taken apart into its pairs (`palate.data.duels`). A row says which image was chosen
and which rejected; `label` is the probability that the chosen one is better: 1, or 0.5 for a tie,
where the image shown first stands as chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palate.data.duels import Duels, duels
from palate.data.exports.common import (
    Anonymous,
    ExportSettings,
    Places,
    file_suffix,
    key_mark,
    locate,
    of_dimension,
    place_images,
    safe_name,
    write_export,
)
from palate.data.records import Choice
from palate.data.tables import Dataset, to_rows
from palate.errors import DataError

Format = Literal["jsonl", "csv", "parquet"]
Annotators = Literal["keep", "hash", "drop"]
_AT_ONCE: Final = 20_000
_OF_CHOICE: Final = ("prompt", "dimension", "source", "choice")


def _field(name: str, kind: Any, doc: str) -> Any:
    return pa.field(name, kind, nullable=doc.endswith("or null."), metadata={"doc": doc})


PAIRS: Final = pa.schema(
    [
        _field("chosen", pa.string(), "Key of the better image; of a tie, the one shown first."),
        _field("rejected", pa.string(), "Key of the worse image."),
        _field("chosen_file", pa.string(), "File of the better image in this folder, or null."),
        _field("rejected_file", pa.string(), "File of the worse image in this folder, or null."),
        _field("prompt", pa.string(), "The text shown with the images."),
        _field("label", pa.float64(), "Probability that the chosen image is better: 1, or 0.5."),
        _field("dimension", pa.string(), "What was judged."),
        _field("annotator", pa.string(), "Who answered, or null."),
        _field("source", pa.string(), "Where the answer came from."),
        _field("choice", pa.string(), "Key of the answer that the pair is part of."),
        _field("chosen_place", pa.int32(), "Place of the better image as shown, from 0."),
        _field("rejected_place", pa.int32(), "Place of the worse image as shown, from 0."),
    ]
)
"""The columns of a table of pairs."""


@dataclass(frozen=True)
class PairsSettings(ExportSettings):
    """How pairs are written.

    `ties` keeps pairs of equal rank, with label 0.5; else they are left out and counted. `annotators`
    are kept as they are, hashed with `annotator_key` (None takes the content of the table of choices),
    or dropped.
    """

    format: Format = "jsonl"
    ties: bool = False
    annotators: Annotators = "keep"
    annotator_key: str | None = None


def export_pairs(
    dataset: Dataset, out: Path, settings: PairsSettings | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the pairs of all choices, or of one dimension, as one table; return the counts.

    Image files come along in `images/`. Raises `DataError` for missing image files, unless images
    are left out, and where all pairs are ties that are not kept.
    """
    settings = settings or PairsSettings()
    choices = of_dimension(dataset, settings.dimension, "a table of pairs", several=True)
    found = duels(choices)
    tied = found.outcome == 0.5
    if tied.all() and not settings.ties:
        raise DataError(f"{dataset.folder}: all {len(found):,} pairs are ties; --ties keeps them")
    rows = np.arange(len(found)) if settings.ties else np.flatnonzero(~tied)
    shown = [keys.take(pa.array(rows)) for keys in (found.first_image, found.second_image)]
    keys = pc.unique(pa.chunked_array(shown)).to_pylist()
    files = locate(dataset, keys, settings.images)
    names = {
        key: f"images/{safe_name(key, number)}{file_suffix(file)}"
        for number, (key, file) in enumerate(files.items())
    }
    people = _people(dataset, choices, settings)

    def write(places: Places) -> dict[str, Any]:
        path = places.path(f"pairs.{settings.format}")
        with _writer(path, settings.format) as add:
            for start in range(0, len(rows), _AT_ONCE):
                add(_table(choices, found, rows[start : start + _AT_ONCE], names, people))
        named = [(names[key], file) for key, file in files.items()]
        images = place_images(named, places, settings.images) if named else 0
        ties = {"ties" if settings.ties else "ties_left_out": int(tied.sum())}
        return {"pairs": len(rows), "choices": len(choices), "images": images, **ties}

    kept = replace(settings, annotator_key=key_mark(settings.annotator_key))
    return write_export("pairs", dataset, out, kept, write, overwrite=overwrite)


def _people(dataset: Dataset, choices: Any, settings: PairsSettings) -> Any:
    """The column of annotators as it is written, one per choice."""
    column = choices.column("annotator")
    if settings.annotators == "keep":
        return column
    if settings.annotators == "drop":
        return pa.nulls(len(column), pa.string())
    hashed = Anonymous.of(dataset, settings.annotator_key)
    return pa.array(
        [
            None if choice.annotator is None else hashed.name(choice)
            for choice in to_rows(choices, Choice)
        ],
        pa.string(),
    )


def _table(
    choices: Any, found: Duels, rows: NDArray[np.int64], names: dict[str, str], people: Any
) -> Any:
    """The rows of some duels, by their numbers."""
    first = found.outcome[rows] >= 0.5
    mask, answers = pa.array(first), pa.array(found.choice[rows])
    left, right = (keys.take(pa.array(rows)) for keys in (found.first_image, found.second_image))
    chosen, rejected = pc.if_else(mask, left, right), pc.if_else(mask, right, left)
    places = found.first[rows], found.second[rows]
    columns = {
        "chosen": chosen,
        "rejected": rejected,
        "chosen_file": pa.array([names.get(key) for key in chosen.to_pylist()], pa.string()),
        "rejected_file": pa.array([names.get(key) for key in rejected.to_pylist()], pa.string()),
        "label": np.where(found.outcome[rows] == 0.5, 0.5, 1.0),
        "annotator": people.take(answers),
        "chosen_place": np.where(first, *places).astype(np.int32),
        "rejected_place": np.where(first, *places[::-1]).astype(np.int32),
    } | {name: choices.column(name).take(answers) for name in _OF_CHOICE}
    return pa.table({name: columns[name] for name in PAIRS.names}, schema=PAIRS)


@contextmanager
def _writer(path: Path, kind: Format) -> Iterator[Callable[[Any], None]]:
    """Give what adds a table to a new file of this format."""
    if kind == "jsonl":
        with path.open("w", encoding="utf-8", newline="\n") as file:

            def add(table: Any) -> None:
                lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
                file.writelines(f"{line}\n" for line in lines)

            yield add
    else:
        opened = (
            pa_csv.CSVWriter(path, PAIRS)
            if kind == "csv"
            else pq.ParquetWriter(path, PAIRS, compression="zstd")
        )
        with opened as writer:
            yield writer.write_table

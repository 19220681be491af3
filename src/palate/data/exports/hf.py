"""Write pairs as Parquet in Pick-a-Pic's shape, which the `datasets` library of Hugging Face reads.

The folder holds `data/CONFIG/SPLIT-00000-of-00001.parquet` for every dimension and a data card,
`README.md`. A row is a pair of images (Kirstain et al., NeurIPS 2023): `caption`, the two images with
their bytes, and `label_0` and `label_1`, which are 1 and 0, 0 and 1, or 0.5 each for a tie. A choice
between more than two images becomes all its pairs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from palate.data.duels import Duels, duels
from palate.data.exports.card import Config, card, pair_schema
from palate.data.exports.common import (
    ExportSettings,
    Places,
    checked_bytes,
    flat_keys,
    locate,
    of_dimension,
    write_export,
)
from palate.data.tables import Dataset
from palate.errors import SettingsError
from palate.runs import track

Columns = Literal["image", "bytes"]
_ROWS_PER_GROUP: Final = 100
_BYTES_PER_GROUP: Final = 100_000_000
_KEPT: Final = 64
_SPLIT: Final = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class HfSettings(ExportSettings):
    """How the folder is written.

    `columns` "image" makes `jpg_0` and `jpg_1` columns that decode to images; "bytes" makes them plain
    bytes, as trainers for Pick-a-Pic open themselves. A new file begins after `megabytes_per_file`.
    Images lie inside the Parquet files, so `images` only says whether they come along.
    """

    split: str = "train"
    columns: Columns = "image"
    megabytes_per_file: int = 500

    def __post_init__(self) -> None:
        """Refuse a name of a split that the library does not take, and files that can hold nothing."""
        if not _SPLIT.fullmatch(self.split):
            raise SettingsError(
                f"the split {self.split!r} is no name of letters, digits, _ and single dots"
            )
        if self.megabytes_per_file < 1:
            raise SettingsError(
                f"megabytes_per_file is {self.megabytes_per_file}, expected at least 1"
            )


@dataclass(frozen=True)
class _Images:
    """What pairs need of the images: content, hash and generator by key."""

    files: dict[str, Path]
    hashes: dict[str, str | None]
    generators: dict[str, str | None]

    @classmethod
    def of(cls, dataset: Dataset, files: dict[str, Path]) -> _Images:
        """Read the columns of the table of images."""
        keys, hashes, generators = (
            dataset.images.column(name).to_pylist() for name in ("image", "sha256", "generator")
        )
        return cls(
            files,
            dict(zip(keys, hashes, strict=True)),
            dict(zip(keys, generators, strict=True)),
        )

    def same(self, one: str, other: str) -> bool:
        """Whether two images are known to be the same file."""
        content = self.hashes.get(one)
        return content is not None and content == self.hashes.get(other)


def export_hf(
    dataset: Dataset, out: Path, settings: HfSettings | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the pairs of all choices, or of one dimension, with a data card; return the counts.

    Every dimension is a configuration of its own. People are numbered, not named. Raises `DataError`
    for image files that are missing (unless images are left out), that do not open or that have
    changed since they were imported.
    """
    settings = settings or HfSettings()
    shape = "a data set of Hugging Face"
    choices = of_dimension(dataset, settings.dimension, shape, several=True)
    files = locate(dataset, flat_keys(choices), settings.images)
    images = _Images.of(dataset, files)
    people = (who for who in choices.column("annotator").to_pylist() if who is not None)
    numbers = {who: number for number, who in enumerate(dict.fromkeys(people))}

    def write(places: Places) -> dict[str, Any]:
        page, data = places.path("README.md"), places.path("data")
        configs = []
        for name, dimension in _config_names(choices).items():
            mask = pc.equal(choices.column("dimension"), dimension)
            folder = data / name
            folder.mkdir(parents=True)
            rows = _Rows(choices, mask, images, numbers, settings)
            size, parts = _write_files(rows, folder, settings)
            configs.append(Config(name, dimension, len(rows.duels), rows.choices, size, parts))
        page.write_text(card(configs, settings.split, settings.columns, choices), "utf-8")
        return {
            "pairs": sum(config.pairs for config in configs),
            "choices": len(choices),
            "images": len(files),
            "files": sum(config.files for config in configs),
            "configurations": {config.name: config.pairs for config in configs},
        }

    return write_export("hf", dataset, out, settings, write, overwrite=overwrite)


def _config_names(choices: Any) -> dict[str, str]:
    """The dimension of every configuration; names are plain, and no two are equal."""
    names: dict[str, str] = {}
    for dimension in sorted(pc.unique(choices.column("dimension")).to_pylist()):
        plain = name = _NOT_IN_NAMES.sub("-", dimension).strip("-.") or "dimension"
        number = 2
        while name.lower() in {known.lower() for known in names}:
            name, number = f"{plain}-{number}", number + 1
        names[name] = dimension
    return names


class _Rows:
    """The pairs of one dimension, as rows in Pick-a-Pic's shape."""

    def __init__(
        self,
        choices: Any,
        mask: Any,
        images: _Images,
        people: dict[str, int],
        settings: HfSettings,
    ) -> None:
        self._choices = choices.filter(mask)
        self.choices = len(self._choices)
        self.duels: Duels = duels(self._choices)
        self._images = images
        self._people = people
        # numbers count over all configurations, so that no two answers share one
        self._numbers = np.flatnonzero(mask.to_numpy()).tolist()
        self._bare = settings.columns == "bytes"
        self._read = lru_cache(maxsize=_KEPT)(self._content)
        prompts = self._choices.column("prompt").take(pa.array(self.duels.choice)).to_pylist()
        self._per_prompt = Counter(prompts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Make one row after the other."""
        columns = ("choice", "prompt", "dimension", "annotator", "source")
        told = [self._choices.column(name).to_pylist() for name in columns]
        found = self.duels
        for place, (number, outcome) in enumerate(
            zip(found.choice.tolist(), found.outcome.tolist(), strict=True)
        ):
            pair = (found.first_image[place].as_py(), found.second_image[place].as_py())
            facts = dict(zip(columns, (column[number] for column in told), strict=True))
            yield self._row(pair, outcome, number, facts)

    def _row(
        self, pair: tuple[str, str], outcome: float, number: int, facts: dict[str, Any]
    ) -> dict[str, Any]:
        first, second = pair
        return {
            "caption": facts["prompt"],
            "jpg_0": self._read(first),
            "jpg_1": self._read(second),
            "label_0": outcome,
            "label_1": 1 - outcome,
            "are_different": not self._images.same(first, second),
            "has_label": True,
            "best_image_uid": None if outcome == 0.5 else pair[int(outcome == 0)],
            "image_0_uid": first,
            "image_1_uid": second,
            "image_0_url": None,
            "image_1_url": None,
            "model_0": self._images.generators.get(first),
            "model_1": self._images.generators.get(second),
            "created_at": None,
            "ranking_id": self._numbers[number],
            "user_id": self._people.get(facts["annotator"]),
            "num_example_per_prompt": self._per_prompt[facts["prompt"]],
            "choice": facts["choice"],
            "dimension": facts["dimension"],
            "source": facts["source"],
        }

    def _content(self, key: str) -> Any:
        file = self._images.files.get(key)
        if file is None:
            return None
        data = checked_bytes(key, file, self._images.hashes.get(key))
        return data if self._bare else {"bytes": data, "path": file.name}


def _write_files(rows: _Rows, folder: Path, settings: HfSettings) -> tuple[int, int]:
    """Write rows to Parquet files of about one size; return the size in memory and the number of files."""
    schema = pair_schema(settings.columns)
    limit = settings.megabytes_per_file * 1_000_000
    written: list[Path] = []
    writer: Any = None
    total = held = 0
    try:
        for table in _batches(rows, schema, min(limit, _BYTES_PER_GROUP)):
            if writer is None or held + table.nbytes > limit:
                if writer is not None:
                    writer.close()
                written.append(folder / f"{len(written)}")
                writer = pq.ParquetWriter(written[-1], schema, compression="zstd")
                held = 0
            writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
            held += table.nbytes
            total += table.nbytes
    finally:
        if writer is not None:
            writer.close()
    for number, path in enumerate(written):
        name = f"{settings.split}-{number:05}-of-{len(written):05}.parquet"
        path.rename(folder / name)
    return total, len(written)


def _batches(rows: _Rows, schema: Any, limit: int) -> Iterator[Any]:
    """Tables of a hundred rows at most, or of so many bytes of images."""
    waiting: list[dict[str, Any]] = []
    size = 0
    for row in track(rows, "packing pairs", len(rows.duels)):
        waiting.append(row)
        size += sum(_size(row[name]) for name in ("jpg_0", "jpg_1"))
        if len(waiting) >= _ROWS_PER_GROUP or size >= limit:
            yield pa.Table.from_pylist(waiting, schema=schema)
            waiting, size = [], 0
    if waiting:
        yield pa.Table.from_pylist(waiting, schema=schema)


def _size(content: Any) -> int:
    if content is None:
        return 0
    return len(content["bytes"] if isinstance(content, dict) else content)

"""A manifest: a list of images with their prompts, read as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palate.data.sources.texts import csv_rows, json_lines
from palate.data.urls import told_by
from palate.errors import DataError
from palate.scoring.pieces import Row, Source, Survey, Surveyor, file_below, occurrences, repeated
from palate.scoring.prompts import GivenPrompts, prompt_of

MANIFESTS = frozenset({".csv", ".jsonl", ".parquet"})
_IMAGE = ("image", "path", "file_name")
_PROMPT = ("prompt", "caption")
_AT_ONCE = 256


@final
@dataclass(frozen=True, slots=True)
class Manifest(Source):
    """Images with their prompts in the lines of a file; each line is one pair to be scored.

    The columns are ``image`` (or ``path``, ``file_name``) and ``prompt`` (or ``caption``); images lie relative to the
    file. ``prompt`` or ``given`` stands for its prompts. ``counts`` says how often the image of each line has come so
    far: the second time its key is ``name#2``; None where each comes once. If ``path`` is a copy of what lies behind a
    ``url``, the images lie relative to that.
    """

    path: Path
    prompt: str | None = None
    given: GivenPrompts | None = None
    need_prompts: bool = True
    counts: NDArray[np.uint32] | None = None
    url: str | None = None

    def rows(self) -> Iterator[Row]:
        """Give the rows, reading the file anew."""
        if self.counts is None:
            yield from self.pairs()
            return
        numbers = chain(self.counts.flat, repeat(1))
        for row, number in zip(self.pairs(), numbers, strict=False):
            key = row.image if number == 1 else f"{row.image}#{number}"
            yield Row(key, row.prompt, row.file)

    def pairs(self) -> Iterator[Row]:
        """Give the rows with the plain name of the image as key, which may come again."""
        folder = self.url.rpartition("/")[0] if self.url else str(self.path.parent.resolve())
        with told_by(self.url, self.path):
            for _, name, text in self.lines():
                yield Row(name, text, file_below(folder, name))

    def lines(self) -> Iterator[tuple[int, str, str]]:
        """Give number, image and prompt of every line, checked each on its own."""
        own = self.prompt is None and self.given is None
        for line, facts in _facts(self.path):
            where = f"{self.path}, line {line}"
            name = _cell(facts, _IMAGE, where)
            if not name:
                raise DataError(f"{where}: the image has no name")
            if not own:
                names = [name, name.rpartition("/")[2]]
                text = prompt_of(names, self.prompt, self.given)
            elif self.need_prompts or any(column in facts for column in _PROMPT):
                text = _cell(facts, _PROMPT, where)
            else:
                text = ""
            if not (name.isascii() and text.isascii()):
                _refuse_half(name + text, where)
            yield line, name, text


def survey_manifest(manifest: Manifest) -> tuple[Manifest, Survey]:
    """Go over a manifest once and check every line; give it with the counts of its images, and what it holds.

    Memory grows by 24 bytes a line. Raises DataError for a line that is not what it should be, and for a pair that is
    there twice.
    """
    surveyor = Surveyor(manifest.pairs())
    with told_by(manifest.url, manifest.path):
        if not len(surveyor):
            raise DataError(f"{manifest.path}: holds no image")
        _refuse_twice(manifest, repeated(surveyor.hashes("row")))
    return replace(manifest, counts=occurrences(surveyor.hashes("image"))), surveyor.settle()


def _refuse_twice(manifest: Manifest, places: NDArray[np.int64]) -> None:
    """Name the first pair that is there twice, by a second look at the lines whose hashes are."""
    if not len(places):
        return
    wanted, seen = set(places.tolist()), set()
    for place, (line, name, text) in zip(count(), manifest.lines(), strict=False):
        if place not in wanted:
            continue
        if (name, text) in seen:
            raise DataError(
                f"{manifest.path}, line {line}: image '{name}' stands there twice with the same prompt"
            )
        seen.add((name, text))


def _facts(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Give line number and cells by name."""
    if path.suffix.lower() == ".csv":
        return csv_rows(path)
    if path.suffix.lower() == ".jsonl":
        return json_lines(path)
    return _parquet_rows(path)


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    line = 0
    try:
        with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            names = file.schema_arrow.names
            known = all(any(name in names for name in of) for of in (_IMAGE, _PROMPT))
            wanted = [name for name in names if not known or name in {*_IMAGE, *_PROMPT}]
            for batch in file.iter_batches(_AT_ONCE, columns=wanted):
                for row in batch.to_pylist():
                    line += 1
                    yield line, row
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _cell(facts: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    found = next((name for name in names if name in facts), None)
    if found is None:
        raise DataError(f"{where}: has no column '{names[0]}'; there are {', '.join(facts)}")
    value = facts[found]
    if not isinstance(value, str):
        raise DataError(f"{where}: {found} is {value!r}, expected a text")
    return value


def _refuse_half(text: str, where: str) -> None:
    """JSON can spell half a character, which no table holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: holds half a character and is no UTF-8 text") from None

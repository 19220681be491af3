"""Import choices on four dimensions between two images, as MPS collected them (Zhang et al. 2024, 2405.14705).

The data of that paper, MHP, was never released and has no public format. This reader defines one that
holds what the paper describes: pairs of images of one prompt, each judged on aesthetics, detail quality,
semantic alignment and overall. A line of the JSON Lines file is one pair::

    {"prompt": "a red fox", "images": ["a.png", "b.png"], "choices": {"overall": 0, "detail": "tie"}}

0 and 1 name the better image by its place. Optional: `generators`, `annotator`, `category`, `id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from palate.data.records import Choice, Image, json_text
from palate.data.sources.common import (
    Found,
    Report,
    Row,
    Seen,
    Source,
    SourceSettings,
    image_folder,
    inside,
    require_keys,
    require_texts,
)
from palate.data.sources.texts import json_lines
from palate.errors import DataError

DIMENSIONS: Final = ("overall", "aesthetics", "detail", "alignment")
"""The dimensions of MPS; `detail` is detail quality and `alignment` is semantic alignment."""

_NEEDED: Final[dict[str, type]] = {"prompt": str, "images": list, "choices": dict}
_OPTIONAL: Final[dict[str, type]] = {
    "generators": list,
    "annotator": str,
    "category": str,
    "id": str,
}


def mhp(path: Path, images: Path | None = None, settings: SourceSettings | None = None) -> Source:
    """Open a JSON Lines file of pairs; images are named relative to `images`, or to the file's folder.

    A pair gives one choice for every dimension that was answered; dimensions without an answer are
    counted. Faults name the line, from 1.
    """
    folder = image_folder(images, path)
    rows = partial(_rows, path, folder)
    return Source("mhp", settings or SourceSettings(), {"pairs": path}, rows, folder)


def _rows(path: Path, folder: Path, report: Report) -> Iterator[Row]:
    seen, ids = Seen(report), set[str]()
    generators: dict[str, str | None] = {}
    for line, record in json_lines(path):
        report.faults.rows += 1
        try:
            require_keys(record, _NEEDED, optional=_OPTIONAL)
            pair = _pair(record)
            files = {image.image: inside(folder, image.image) for image in pair}
            key = _key(record, line, ids)
            choices = _choices(record, f"mhp/{path.stem}/{key}", f"mhp/{path.name}")
        except DataError as fault:
            report.faults.add(f"line {line}", str(fault))
            continue
        # the id of a line that was refused stays free
        if record.get("id") is not None:
            ids.add(key)
        for image in pair:
            if generators.setdefault(image.image, image.generator) != image.generator:
                report.count("images_under_another_generator")
        for image in seen.new(pair):
            yield Found(image, files[image.image])
        for dimension in DIMENSIONS:
            if record["choices"].get(dimension) is None:
                report.count(f"without_{dimension}")
        yield from choices


def _pair(record: Mapping[str, Any]) -> list[Image]:
    shown = record["images"]
    require_texts("images", shown)
    if len(shown) != 2:
        raise DataError(f"images has {len(shown)} names, expected 2")
    given = record.get("generators")
    generators = [None, None] if given is None else given
    require_texts("generators", [name for name in generators if name is not None])
    if len(generators) != 2:
        raise DataError(f"generators has {len(generators)} names, expected 2")
    return [
        Image(key, record["prompt"], generator=name)
        for key, name in zip(shown, generators, strict=True)
    ]


def _key(record: Mapping[str, Any], line: int, ids: set[str]) -> str:
    """Return what tells this pair from the others: its id, or its line."""
    given = record.get("id")
    if given is None:
        return f"line-{line}"
    key = f"id-{given}"
    if key in ids:
        raise DataError(f"id {given!r} was there before")
    return key


def _choices(record: Mapping[str, Any], key: str, source: str) -> list[Choice]:
    answers: dict[str, Any] = record["choices"]
    strangers = sorted(answers.keys() - set(DIMENSIONS))
    if strangers:
        raise DataError(
            f"choices has the unknown dimension {strangers[0]!r}; there are {', '.join(DIMENSIONS)}"
        )
    given = {dimension: answers.get(dimension) for dimension in DIMENSIONS}
    if all(answer is None for answer in given.values()):
        raise DataError("choices has no answer; leave pairs out that nobody judged")
    category = record.get("category")
    facts: dict[str, object] = {} if category is None else {"category": category}
    return [
        Choice(
            choice=f"{key}/{dimension}",
            prompt=record["prompt"],
            images=tuple(record["images"]),
            ranks=_ranks(dimension, answer),
            dimension=dimension,
            annotator=record.get("annotator"),
            source=source,
            details=json_text(facts),
        )
        for dimension, answer in given.items()
        if answer is not None
    ]


def _ranks(dimension: str, answer: Any) -> tuple[int, int]:
    if answer == "tie":
        return 1, 1
    if isinstance(answer, bool) or not isinstance(answer, int) or answer not in {0, 1}:
        raise DataError(f'{dimension} is {answer!r}, expected 0, 1 or "tie"')
    return (1, 2) if answer == 0 else (2, 1)

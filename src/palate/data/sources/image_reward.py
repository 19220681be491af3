"""Import the rankings of ImageReward (Xu et al. 2023, 2304.05977): its `test.json`, and ImageRewardDB.

`test.json` is a JSON list of rankings: `id`, `prompt`, the names of the images under `generations` and
their ranks under `ranking`; 1 is best, equal ranks tie, and a rank may be unused. ImageRewardDB has one
image per row, as JSON or Parquet: `image_path`, `prompt_id`, `prompt`, `classification`,
`image_amount_in_total`, the `rank` among the images of the prompt, and three ratings from 1 to 7 (7 is
best). The rows of a prompt are one ranking. Its variants with groups (a row holds the lists of a
prompt) and pairs (`img_better`, `img_worse`) are read too.

A prompt of ImageRewardDB gives four choices: "overall" by the rank, and "rating", "alignment" and
"fidelity" by the ratings. Who ranked and rated is not in the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

from palate.data.records import INT16_MAX, Choice, Image, json_text
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
    require_numbers,
    require_texts,
)
from palate.data.sources.parquet import parquet_rows, picture_bytes
from palate.data.sources.texts import json_lines, json_records, require_file
from palate.errors import DataError

RATINGS: Final = {
    "rating": "overall_rating",
    "alignment": "image_text_alignment_rating",
    "fidelity": "fidelity_rating",
}
"""The dimensions of the ratings, and what the release calls them."""

_COLUMNS: Final = ("rank", *RATINGS.values())
_PROMPT: Final[dict[str, type]] = {"prompt_id": str, "prompt": str}
_OWN_PLACE: Final = frozenset({"prompt", "image", "image_path", "image_amount_in_total", "rank"})


def image_reward(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open `test.json`, or JSON, JSON Lines or Parquet of ImageRewardDB, or a folder with such files.

    What a file holds is found by looking into it. Images are looked for below `images`, or beside the
    file, under their path or the end of it, as the release packs them in zips. In a folder the Parquet
    files are read, or the JSON files if there are none. Faults name the record, from 0.
    """
    files = _files(path)
    folder = image_folder(images, path / "x" if path.is_dir() else path)
    inputs: dict[str, Path | str] = {
        f"records {one.relative_to(path).as_posix()}" if path.is_dir() else "records": one
        for one in files
    }
    rows = partial(_rows, path, files, folder)
    return Source("image-reward", settings or SourceSettings(), inputs, rows, folder)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        require_file(path)
        return [path]
    for suffix in (".parquet", ".json", ".jsonl"):
        found = [
            one
            for one in path.rglob(f"*{suffix}")
            if one.is_file() and not any(part[0] == "." for part in one.relative_to(path).parts)
        ]
        if found:
            return sorted(found)
    raise DataError(f"{path}: holds no Parquet or JSON file")


@dataclass(frozen=True)
class _Picture:
    """An image as a row names it, with its bytes if the row has them, and what else is said of it."""

    name: str
    data: bytes | None
    numbers: Mapping[str, int]
    facts: Mapping[str, object]


@dataclass
class _Group:
    """The images of one prompt that came so far, and whether one of them cannot be used."""

    prompt: str
    amount: int
    where: str
    pictures: list[_Picture] = field(default_factory=list)
    bad: bool = False
    rows: int = 0


@dataclass
class _Reading:
    """What is known so far: images, keys, and the prompts whose images are not all there yet."""

    folder: Path
    report: Report
    seen: Seen
    keys: set[str] = field(default_factory=set)
    waiting: dict[str, _Group] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[Path]] = field(default_factory=dict)


def _rows(path: Path, files: list[Path], folder: Path, report: Report) -> Iterator[Row]:
    report.faults.source = str(path)
    reading = _Reading(folder, report, Seen(report))
    for file in files:
        prefix = f"{file.relative_to(path).as_posix()}, " if path.is_dir() else ""
        try:
            for name, record in _records(file):
                report.faults.rows += 1
                try:
                    yield from _read(record, prefix + name, file, reading)
                except DataError as fault:
                    report.faults.add(prefix + name, str(fault))
        except DataError as fault:
            if not prefix:
                raise
            report.faults.rows += 1
            report.faults.add(prefix[:-2], str(fault))
    for key, group in reading.waiting.items():
        report.faults.add(
            f"{group.where} and on",
            f"prompt_id {key!r} has {group.rows} images, but image_amount_in_total is {group.amount}",
        )


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield name and content of the records of a file, which is told by how it begins."""
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"PAR1"):
        yield from ((f"row {number}", row) for number, row in parquet_rows(path))
    elif start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        yield from ((f"line {number}", record) for number, record in json_lines(path))
    else:
        yield from ((f"record {number}", record) for number, record in json_records(path))


def _read(record: Any, where: str, file: Path, reading: _Reading) -> list[Row]:
    """What one record gives: all of a ranking, or nothing until the images of its prompt are there."""
    source = f"image-reward/{file.name}"
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {str(record)[:40]!r}")
    if "generations" in record:
        return _ranking(record, source, reading)
    if "img_better" in record or "img_worse" in record:
        return _pair(record, source, reading)
    if isinstance(record.get("rank"), list):
        return _whole_group(record, source, reading)
    if "image_path" not in record and "image" not in record:
        there = ", ".join(map(str, record)) or "nothing"
        raise DataError(f"has no 'generations', 'image_path' or 'img_better'; there are {there}")
    return _one_image(record, where, source, reading)


def _ranking(record: dict[str, Any], source: str, reading: _Reading) -> list[Row]:
    """A record of `test.json`."""
    require_keys(record, {"id": str, "prompt": str, "generations": list, "ranking": list})
    names, ranks, key = record["generations"], record["ranking"], record["id"]
    require_texts("generations", names)
    require_numbers("ranking", ranks)
    if len(ranks) != len(names):
        raise DataError(f"ranking has {len(ranks)} places for {len(names)} images: {ranks}")
    if f"id {key}" in reading.keys:
        raise DataError(f"id {key!r} was there before")
    pictures = [_Picture(name, None, {}, {}) for name in names]
    choice = Choice(
        choice=f"image-reward/{key}",
        prompt=record["prompt"],
        images=tuple(names),
        ranks=tuple(ranks),
        source=source,
    )
    rows = _given(record["prompt"], pictures, [choice], reading)
    reading.keys.add(f"id {key}")
    return rows


def _one_image(record: dict[str, Any], where: str, source: str, reading: _Reading) -> list[Row]:
    """A row of ImageRewardDB; with the last image of its prompt comes the ranking."""
    require_keys({name: record.get(name) for name in _PROMPT}, _PROMPT)
    amount = _number("image_amount_in_total", record.get("image_amount_in_total"), INT16_MAX)
    key = record["prompt_id"]
    if key in reading.keys:
        raise DataError(f"prompt_id {key!r} has more images than image_amount_in_total says")
    group = reading.waiting.setdefault(key, _Group(record["prompt"], amount, where))
    group.rows += 1
    whole = group.rows == group.amount
    if whole:
        del reading.waiting[key]
        reading.keys.add(key)
    try:
        _require_same(record, amount, group)
        group.pictures.append(_picture(record))
    except DataError:
        # without it the others of its prompt are no whole ranking: they go too, with no fault each
        if not group.bad:
            reading.report.count("rankings_left_out")
        group.bad = True
        raise
    if not whole or group.bad:
        return []
    return _rated(key, record, group.pictures, source, reading)


def _require_same(record: Mapping[str, Any], amount: int, group: _Group) -> None:
    for what, found, before in (
        ("prompt", record["prompt"], group.prompt),
        ("image_amount_in_total", amount, group.amount),
    ):
        if found != before:
            raise DataError(
                f"{what} is {found!r}, but {before!r} in the rows before of the same prompt_id"
            )


def _whole_group(record: dict[str, Any], source: str, reading: _Reading) -> list[Row]:
    """A row with the lists of one prompt, each as long as the list of images."""
    require_keys({name: record.get(name) for name in _PROMPT}, _PROMPT)
    key = record["prompt_id"]
    if key in reading.keys:
        raise DataError(f"prompt_id {key!r} was there before")
    there = [name for name in ("image_path", "image") if isinstance(record.get(name), list)]
    if not there:
        raise DataError("has no list 'image'")
    amount = len(record[there[0]])
    for name in (*there, *_COLUMNS):
        values = record.get(name)
        if not isinstance(values, list) or len(values) != amount:
            found = f"has {len(values)} places" if isinstance(values, list) else "is no list"
            raise DataError(f"{name} {found} for {amount} images")
    lists = [name for name, value in record.items() if isinstance(value, list)]
    pictures = []
    for place in range(amount):
        of_one = {name: record[name][place] for name in lists if len(record[name]) == amount}
        pictures.append(_picture({**record, **of_one}))
    reading.keys.add(key)
    return _rated(key, record, pictures, source, reading)


def _pair(record: dict[str, Any], source: str, reading: _Reading) -> list[Row]:
    """A row with the better and the worse of two images, taken from a ranking by the release."""
    require_keys({name: record.get(name) for name in _PROMPT}, _PROMPT)
    key, prompt = record["prompt_id"], record["prompt"]
    facts = _facts({name: record.get(name) for name in ("prompt_id", "classification")})
    pictures = []
    for rank, name in enumerate(("img_better", "img_worse"), start=1):
        place, data = _named(name, record.get(name))
        pictures.append(_Picture(place, data, {"rank": rank}, facts))
    # the better one always comes first here, so the order by name stands in for the order shown
    pictures.sort(key=lambda picture: picture.name)
    number = reading.pairs.get(key, 0)
    choice = Choice(
        choice=f"image-reward-db/{key}/pair-{number}",
        prompt=prompt,
        images=tuple(picture.name for picture in pictures),
        ranks=tuple(picture.numbers["rank"] for picture in pictures),
        source=source,
        details=json_text({"derived_from": "ranking", "prompt_id": key}),
    )
    reading.pairs[key] = number + 1
    reading.report.count("pairs")
    return _given(prompt, pictures, [choice], reading)


def _rated(
    key: str,
    record: Mapping[str, Any],
    pictures: list[_Picture],
    source: str,
    reading: _Reading,
) -> list[Row]:
    """The images of one prompt, and a choice by rank and by each rating."""
    given: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {}
    given["overall"] = tuple(picture.numbers["rank"] for picture in pictures), {}
    for dimension, name in RATINGS.items():
        ratings = [picture.numbers[name] for picture in pictures]
        best = sorted(set(ratings), reverse=True)
        given[dimension] = tuple(best.index(one) + 1 for one in ratings), {"ratings": ratings}
    if len(pictures) < 2:
        reading.report.count("single")
        return _given(record["prompt"], pictures, [], reading)
    choices = [
        Choice(
            choice=f"image-reward-db/{key}/{dimension}",
            prompt=record["prompt"],
            images=tuple(picture.name for picture in pictures),
            ranks=ranks,
            dimension=dimension,
            source=source,
            details=json_text({"prompt_id": key, **facts}),
        )
        for dimension, (ranks, facts) in given.items()
    ]
    return _given(record["prompt"], pictures, choices, reading)


def _given(
    prompt: str, pictures: list[_Picture], choices: list[Choice], reading: _Reading
) -> list[Row]:
    """The images that did not come before, each with its bytes or its file, and the choices."""
    given = {
        picture.name: Found(
            Image(picture.name, prompt, details=json_text(dict(picture.facts))),
            None if picture.data else _file(picture.name, reading),
            picture.data,
        )
        for picture in pictures
    }
    fresh = reading.seen.new(found.image for found in given.values())
    for choice in choices:
        if len(set(choice.ranks)) == 1:
            reading.report.count("all_tied")
    return [*(given[image.image] for image in fresh), *choices]


def _picture(record: Mapping[str, Any]) -> _Picture:
    """One image by the values of its row."""
    name, data = _named("image", record.get("image"), record.get("image_path"))
    numbers = {"rank": _number("rank", record.get("rank"), INT16_MAX)}
    for rating in RATINGS.values():
        numbers[rating] = _number(rating, record.get(rating), 7)
    return _Picture(name, data, numbers, _facts({**record, **numbers}))


def _facts(values: Mapping[str, Any]) -> dict[str, object]:
    """What a row says of an image beside what has its own place; a broken number is kept as text."""
    return {
        name: value if isinstance(value, (str, int)) else str(value)
        for name, value in values.items()
        if value is not None and name not in _OWN_PLACE and not isinstance(value, (list, dict))
    }


def _named(what: str, value: Any, path: Any = None) -> tuple[str, bytes | None]:
    """The name of an image and its bytes, if the row has them: the path, or the hash of the bytes."""
    data = picture_bytes(value)
    if isinstance(path, str) and path:
        return path, data
    if isinstance(value, str) and value:
        return value, None
    path = value.get("path") if isinstance(value, dict) else None
    if isinstance(path, str) and path:
        # such a path is that of a cache: only the name in the end is of the release
        return path.replace("\\", "/").rsplit("/", 1)[-1], data
    if data is None:
        raise DataError(f"{what} has neither a path nor bytes")
    return hashlib.sha256(data).hexdigest(), data


def _number(name: str, value: Any, most: int) -> int:
    """A whole number from 1, also where a column with gaps made it 3.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise DataError(f"{name} is {value!r}, expected a whole number from 1 to {most:,}")


def _file(name: str, reading: _Reading) -> Path:
    """Where the file of an image is, or should be.

    The zips of the release hold names without folders, so the path may lack its beginning, the name
    of the zip, or both.
    """
    whole = inside(reading.folder, name)
    for place in _places(name.replace("\\", "/").rpartition("/")[0], reading):
        if (found := place / whole.name).is_file():
            return found
    return whole


def _places(above: str, reading: _Reading) -> list[Path]:
    """The folders that are there, among those where an image of this folder may be."""
    if above not in reading.places:
        folders = PurePosixPath(above).parts
        starts = range(len(folders) + 1)
        ways = [rest for start in starts for rest in (folders[start:], folders[start:-1])]
        wanted = dict.fromkeys(reading.folder.joinpath(*rest) for rest in ways)
        reading.places[above] = [place for place in wanted if place.is_dir()]
    return reading.places[above]

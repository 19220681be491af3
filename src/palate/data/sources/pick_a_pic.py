"""Import the pairs of Pick-a-Pic v1 and v2 (Kirstain et al. 2023, 2305.01569), official Parquet files.

A row is one pair: `caption`, `image_0_uid` and `image_1_uid`, and what its user preferred, as `label_0`
and `label_1`: 1 and 0, 0 and 1, or 0.5 and 0.5 for a tie. `jpg_0` and `jpg_1` are the images themselves;
the variants without images lack them. Rows whose `has_label` is false hold no answer: their images come,
a choice does not. An image stands in several rows under the same uid, as the user's next pair shows it
again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from palate.data.records import Choice, Image, json_text
from palate.data.sources.common import (
    Found,
    Report,
    Row,
    Source,
    SourceSettings,
    image_folder,
    inside,
)
from palate.data.sources.parquet import (
    PICTURES,
    parquet_files,
    parquet_inputs,
    parquet_rows,
    picture_bytes,
)
from palate.errors import DataError

_NEEDED: Final = (
    *("best_image_uid", "caption", "has_label", "image_0_uid", "image_1_uid"),
    *("label_0", "label_1", "model_0", "model_1", "ranking_id", "user_id"),
)
_NAMES: Final = ("image_0_uid", "image_1_uid")
_MUST: Final = ("caption", *_NAMES)
_TEXTS: Final = (*_MUST, "model_0", "model_1", "best_image_uid")
_TELLING: Final = ("image_0_uid", "image_1_uid", "label_0", "caption")
_OF_THE_IMAGES: Final = ("image_0_url", "image_1_url", *PICTURES)
_WITH_A_PLACE: Final = frozenset(_NEEDED + _OF_THE_IMAGES) - {"ranking_id"}
_RANKS: Final = {(1, 0): (1, 2), (0, 1): (2, 1), (0.5, 0.5): (1, 1)}
_SUFFIXES: Final = (".jpg", ".png", ".jpeg", ".webp")
_HALF: Final = 2**32 - 1


def pick_a_pic(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open a Parquet file of Pick-a-Pic, or a folder of them; at most a group of rows is in memory.

    The uid is the key of an image. Images come from `jpg_0` and `jpg_1`; where there are none, a file
    named after the uid is looked for in `images`, if given. Faults name the file and the row, from 0.
    """
    # the 500 pairs of validation_unique and test_unique stand in the larger part too: they come first, so
    # that the source of an answer says so
    files = sorted(parquet_files(path), key=lambda one: "_unique" not in one.name)
    folder = None if images is None else image_folder(images, path)
    rows = partial(_rows, path, files, folder)
    rules = settings or SourceSettings()
    return Source("pick-a-pic", rules, parquet_inputs(path, files), rows, folder)


@dataclass
class _Reading:
    """What is known so far: images, answers by their ranking, and where files may be."""

    folder: Path | None
    report: Report
    images: dict[str, int] = field(default_factory=dict)
    rankings: dict[int, int] = field(default_factory=dict)
    others: set[int] = field(default_factory=set)


def _rows(path: Path, files: list[Path], folder: Path | None, report: Report) -> Iterator[Row]:
    report.faults.source = str(path)
    reading = _Reading(folder, report)
    for file in files:
        name = file.relative_to(path) if path.is_dir() else Path(file.name)
        prefix = f"{name.as_posix()}, " if path.is_dir() else ""
        source, stem = f"pick-a-pic/{name.as_posix()}", name.with_suffix("").as_posix()
        try:
            for number, row in parquet_rows(file, _NEEDED, report):
                report.faults.rows += 1
                try:
                    yield from _read(row, f"{stem}/{number}", source, reading)
                except DataError as fault:
                    report.faults.add(f"{prefix}row {number}", str(fault))
        except DataError as fault:
            if not prefix:
                raise
            # what came before stands, and so do the other files
            report.faults.rows += 1
            report.faults.add(name.as_posix(), str(fault))


def _read(row: Mapping[str, Any], place: str, source: str, reading: _Reading) -> list[Row]:
    """The images of a row that did not come before, and its answer if there is one."""
    report = reading.report
    for name in _TEXTS:
        if not isinstance(row[name], str) and (row[name] is not None or name in _MUST):
            raise DataError(f"{name} is {row[name]!r}, expected a text")
    for name in _NAMES:
        if not row[name]:
            raise DataError(f"{name} is empty")
        if reading.folder is not None:
            inside(reading.folder, row[name])
    if not isinstance(row["has_label"], bool):
        raise DataError(f"has_label is {row['has_label']!r}, expected true or false")
    choice = _choice(row, place, source, reading) if row["has_label"] else None
    found: list[Row] = [one for side in (0, 1) if (one := _found(row, side, reading)) is not None]
    if choice is None and not row["has_label"]:
        report.count("unlabelled")
    if row.get("are_different") is False:
        report.count("pairs_that_are_not_different")
    return found if choice is None else [*found, choice]


def _found(row: Mapping[str, Any], side: int, reading: _Reading) -> Found | None:
    """An image of a row, or None if its uid came before: then it is the same image."""
    uid, url = row[f"image_{side}_uid"], _json(row.get(f"image_{side}_url"))
    # one number per image is all that is kept of it: half of it is the prompt, half the rest
    prompt, rest = hash(row["caption"]) & _HALF, hash((row[f"model_{side}"], url)) & _HALF
    before = reading.images.get(uid)
    if before is not None:
        if before >> 32 != prompt:
            reading.report.count("images_under_another_prompt")
        if before & _HALF != rest:
            reading.report.count("images_under_another_generator_or_url")
        return None
    reading.images[uid] = prompt << 32 | rest
    image = Image(
        uid,
        row["caption"],
        generator=row[f"model_{side}"] or None,
        details=json_text({} if url is None else {"url": url}),
    )
    data = picture_bytes(row.get(PICTURES[side]))
    file = None if data else _file(reading.folder, uid)
    if data is None and file is None and PICTURES[side] in row:
        reading.report.miss(uid)
    return Found(image, file, data)


def _file(folder: Path | None, uid: str) -> Path | None:
    """Where the file of an image is, or should be; None without a folder."""
    if folder is None:
        return None
    places = [inside(folder, uid + suffix) for suffix in _SUFFIXES]
    return next((place for place in places if place.exists()), places[0])


def _choice(row: Mapping[str, Any], place: str, source: str, reading: _Reading) -> Choice | None:
    """The answer of a row; None, and a count, if the same row came before."""
    ranks, user, ranking = _ranks(row), _user(row["user_id"]), _ranking(row["ranking_id"])
    told = hash((ranking, user, *(row[name] for name in _TELLING)))
    key = _key(ranking, told, place, reading)
    if key is None:
        reading.report.count("repeated_rows")
        return None
    facts = {
        name: value
        for name, value in row.items()
        if value is not None and name not in _WITH_A_PLACE
    }
    if ranks == (1, 1) and row["best_image_uid"] is not None:
        facts["best_image_uid"] = row["best_image_uid"]
    choice = Choice(
        choice=key,
        prompt=row["caption"],
        images=(row["image_0_uid"], row["image_1_uid"]),
        ranks=ranks,
        annotator=user,
        source=source,
        details=json_text({name: _json(value) for name, value in facts.items()}),
    )
    # only now: a row that is refused leaves its ranking to others
    _remember(ranking, told, reading)
    _count(choice, row["best_image_uid"], reading.report)
    return choice


def _count(choice: Choice, best: str | None, report: Report) -> None:
    if choice.annotator is None:
        report.count("without_user")
    if choice.ranks != (1, 1):
        if not best:
            report.count("without_best_image_uid")
        return
    report.count("ties")
    if best == "none":
        report.count("ties_marked_none")


def _ranks(row: Mapping[str, Any]) -> tuple[int, int]:
    """Ranks by the labels; `best_image_uid` must not say otherwise, but may say nothing."""
    labels, best = (row["label_0"], row["label_1"]), row["best_image_uid"]
    plain = all(isinstance(label, (int, float)) for label in labels)
    ranks = _RANKS.get(labels) if plain else None
    if ranks is None:
        raise DataError(
            f"label_0 and label_1 are {labels[0]!r} and {labels[1]!r}, "
            "expected 1 and 0, 0 and 1, or 0.5 and 0.5"
        )
    uids = (row["image_0_uid"], row["image_1_uid"])
    if ranks == (1, 1):
        if best in uids:
            raise DataError(f"best_image_uid is {best!r}, but the labels are a tie")
        return ranks
    winner = uids[ranks.index(1)]
    if best and best != winner:
        raise DataError(f"best_image_uid is {best!r}, but the labels prefer {winner!r}")
    return ranks


def _ranking(value: Any) -> int | None:
    ranking = _whole(value)
    if ranking is None and value is not None:
        raise DataError(f"ranking_id is {value!r}, expected a whole number")
    return ranking


def _key(ranking: int | None, told: int, place: str, reading: _Reading) -> str | None:
    """The key of an answer: its ranking, with file and row where another answer has the same one.

    None if the same answer came before: parts of the release overlap.
    """
    if ranking is None:
        return f"pick-a-pic/{place}"
    if ranking not in reading.rankings:
        return f"pick-a-pic/{ranking}"
    if told == reading.rankings[ranking] or told in reading.others:
        return None
    return f"pick-a-pic/{ranking}/{place}"


def _remember(ranking: int | None, told: int, reading: _Reading) -> None:
    if ranking is None:
        reading.report.count("without_ranking_id")
    elif ranking not in reading.rankings:
        reading.rankings[ranking] = told
    else:
        reading.others.add(told)
        reading.report.count("rankings_with_another_answer")


def _whole(value: Any) -> int | None:
    """A whole number, also where a column with gaps made it 7.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _user(value: Any) -> str | None:
    number = _whole(value)
    if number is not None:
        return str(number)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        raise DataError(f"user_id is {value!r}, expected a whole number or a text")
    return value or None


def _json(value: Any) -> object:
    """A value as JSON has it, or as text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)

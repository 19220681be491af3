"""Import the choices of HPD v2, the data of the Human Preference Score v2 (Wu et al. 2023, 2306.09341).

`train.json` is a JSON list of pairs: `human_preference` marks the preferred image with 1, `prompt`, and
the two names under `file_path` (some copies say `image_path`). `test.json` is a JSON list of rankings:
`prompt`, `image_path`, `rank` (the agreed one; lower is better) and, for every annotator,
`raw_annotations` with `rank` and `user_hash`. Each annotator's ranking is one choice; the agreed rank
stays in its details. A test record without raw annotations gives one choice by an unknown person.

Names count from the folder `train/` or `test/`. The same image stands in several records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

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
    require_numbers,
    require_texts,
)
from palate.data.sources.texts import json_records
from palate.errors import DataError

CORRUPTED: Final = frozenset({"00006811.jpg", "00168743.jpg", "00331911.jpg", "00310087.jpg"})
"""Training images that do not open in the release; their choices stand, without the file."""

Part = Literal["train", "test"]
_TEST: Final = re.compile(r"(^|[^a-z])test([^a-z]|$)")
_PATH_KEYS: Final = ("file_path", "image_path")


def hpd_v2(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open `train.json` or `test.json` of HPD v2; image files are looked for below `images`.

    `images` is the folder `train` or `test` beside the JSON file unless given, or the file's own folder
    if there is none. Image keys are that folder's name and the name of the release (the two parts count
    from 0 both), so both parts fit into one data set. Faults name the record, by number from 0.
    """
    part = part_of(path.name)
    if images is None and (path.parent / part).is_dir():
        images = path.parent / part
    folder = image_folder(images, path)
    rows = partial(_rows, path, folder, part)
    return Source("hpd-v2", settings or SourceSettings(), {"records": path}, rows, folder)


def part_of(name: str) -> Part:
    """Return the part that a file holds: "test" where its name has that word, else "train".

    >>> part_of("new_test.json"), part_of("train_latest.json")
    ('test', 'train')
    """
    return "test" if _TEST.search(Path(name).stem) else "train"


def _rows(path: Path, folder: Path, part: str, report: Report) -> Iterator[Row]:
    seen = Seen(report)
    source = f"hpd-v2/{path.name}"
    for number, record in json_records(path):
        report.faults.rows += 1
        name = f"hpd-v2/{part}/{number}"
        try:
            pair = isinstance(record, dict) and "human_preference" in record
            read = _pair if pair else _ranking
            paths, choices = read(record, name, part, source)
            files = {f"{part}/{key}": inside(folder, key) for key in paths}
            fresh = seen.new(Image(key, record["prompt"]) for key in files)
        except DataError as fault:
            report.faults.add(f"record {number}", str(fault))
            continue
        for image in fresh:
            if part == "train" and files[image.image].name in CORRUPTED:
                report.count("known_corrupted")
                yield Found(image)
            else:
                yield Found(image, files[image.image])
        if len(choices) > 1 or not pair:
            report.count("rankings", len(choices))
        yield from choices


def _paths(record: Mapping[str, Any]) -> list[str]:
    paths: list[str] = record["file_path" if "file_path" in record else "image_path"]
    require_texts("file_path", paths)
    return paths


def _optional_paths(record: Any) -> dict[str, type]:
    """Either name of the paths is right, but not both."""
    there = [key for key in _PATH_KEYS if isinstance(record, dict) and key in record]
    if len(there) == 2:
        raise DataError("has both 'file_path' and 'image_path'")
    return {there[0] if there else "file_path": list}


def _pair(record: Any, name: str, part: str, source: str) -> tuple[list[str], list[Choice]]:
    require_keys(record, {"human_preference": list, "prompt": str, **_optional_paths(record)})
    paths, marks = _paths(record), record["human_preference"]
    require_numbers("human_preference", marks)
    if len(marks) != len(paths):
        raise DataError(f"human_preference has {len(marks)} marks for {len(paths)} images: {marks}")
    if any(mark not in {0, 1} for mark in marks) or sum(marks) != 1:
        raise DataError(f"human_preference is {marks}, expected one 1 among zeros")
    choice = Choice(
        choice=name,
        prompt=record["prompt"],
        images=tuple(f"{part}/{key}" for key in paths),
        ranks=tuple(2 - mark for mark in marks),
        source=source,
    )
    return paths, [choice]


def _ranking(record: Any, name: str, part: str, source: str) -> tuple[list[str], list[Choice]]:
    keys = {"prompt": str, **_optional_paths(record), "rank": list}
    require_keys(record, keys, optional={"raw_annotations": list})
    paths = _paths(record)
    agreed = record["rank"]
    _require_ranks("rank", agreed, len(paths))
    people = record.get("raw_annotations") or []
    choices = []
    for number, person in enumerate(people):
        require_keys(person, {"rank": list, "user_hash": str})
        _require_ranks(f"rank of annotator {number}", person["rank"], len(paths))
        choices.append((f"{name}/{number}", person["rank"], person["user_hash"]))
    if not people:
        choices.append((name, agreed, None))
    zero = min(agreed) == 0 or any(min(ranks) == 0 for _, ranks, _ in choices)
    facts: dict[str, object] = {"agreed": not people, "rank": agreed}
    if zero:
        facts["from_zero"] = True
    if not people and "raw_annotations" in record:
        facts["raw_annotations"] = record["raw_annotations"]
    return paths, [
        Choice(
            choice=key,
            prompt=record["prompt"],
            images=tuple(f"{part}/{path}" for path in paths),
            ranks=tuple(rank + zero for rank in ranks),
            annotator=annotator,
            source=source,
            details=json_text(facts),
        )
        for key, ranks, annotator in choices
    ]


def _require_ranks(what: str, ranks: list[Any], images: int) -> None:
    require_numbers(what, ranks)
    if len(ranks) != images:
        raise DataError(f"{what} has {len(ranks)} places for {images} images: {ranks}")

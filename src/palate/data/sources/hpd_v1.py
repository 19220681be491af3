"""Import the choices of HPD v1, the data of the Human Preference Score (Wu et al., ICCV 2023).

`preference_train.json` and `preference_test.json` are JSON lists of records with six keys:
`human_preference` (the 0-based place of the chosen image), `prompt`, `id`, `file_path` (two to
four names), `user_hash` and `contain_name`. The hash is unique per record in the release, so it
tells no two people apart; it is kept in the details and the annotator stays unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from palate.data.records import Choice, Image, json_text, pick_ranks
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
from palate.data.sources.texts import json_records
from palate.errors import DataError

_KEYS: Final[dict[str, type]] = {
    "human_preference": int,
    "prompt": str,
    "id": int,
    "file_path": list,
    "user_hash": str,
    "contain_name": bool,
}


def hpd_v1(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open the records of HPD v1; image files are looked for below `images`.

    `images` is the folder of the JSON file unless given. Image keys are the file names of the
    release. Faults name the record, by number from 0 and by id.
    """
    folder = image_folder(images, path)
    rows = partial(_rows, path, folder)
    return Source("hpd-v1", settings or SourceSettings(), {"records": path}, rows, folder)


def _rows(path: Path, folder: Path, report: Report) -> Iterator[Row]:
    seen, ids = Seen(report), set[int]()
    for number, record in json_records(path):
        report.faults.rows += 1
        known = isinstance(record, dict) and isinstance(record.get("id"), int)
        where = f"record {number} (id {record['id']})" if known else f"record {number}"
        try:
            require_keys(record, _KEYS)
            require_texts("file_path", record["file_path"])
            choice = _choice(record, path.name)
            files = [inside(folder, key) for key in choice.images]
            _require_new(record["id"], choice.images, ids, seen)
        except DataError as fault:
            report.faults.add(where, str(fault))
            continue
        ids.add(record["id"])
        fresh = seen.new(Image(key, choice.prompt) for key in choice.images)
        yield from map(Found, fresh, files)
        yield choice


def _require_new(number: int, images: tuple[str, ...], ids: set[int], seen: Seen) -> None:
    if number in ids:
        raise DataError("another record has the same id")
    shared = [key for key in images if key in seen]
    if shared:
        raise DataError(f"the image {shared[0]!r} belongs to another record")


def _choice(record: Mapping[str, Any], name: str) -> Choice:
    paths, best = record["file_path"], record["human_preference"]
    if not 0 <= best < len(paths):
        raise DataError(
            f"human_preference is {best}, but there are {len(paths)} images"
            + (f" (0 to {len(paths) - 1})" if paths else "")
        )
    return Choice(
        choice=f"hpd-v1/{record['id']}",
        prompt=record["prompt"],
        images=tuple(paths),
        ranks=pick_ranks(len(paths), best),
        source=f"hpd-v1/{name}",
        details=json_text(
            {"user_hash": record["user_hash"], "contain_name": record["contain_name"]}
        ),
    )

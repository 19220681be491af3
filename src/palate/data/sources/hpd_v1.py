"""Import the choices of HPD v1, the data of the Human Preference Score (Wu et al., ICCV 2023).

`preference_train.json` and `preference_test.json` are JSON lists of records with six keys:
`human_preference` (the 0-based place of the chosen image), `prompt`, `id`, `file_path` (two to
four names), `user_hash` and `contain_name`. The hash is unique per record in the release, so it
tells no two people apart; it is kept in the details and the annotator stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from palate.data.images import MAX_PIXELS
from palate.data.records import Choice, Image, json_text, pick_ranks
from palate.data.sources.common import Faults, Imported, describe_image, json_records
from palate.data.tables import to_table
from palate.errors import DataError

_KEYS: Final[dict[str, type]] = {
    "human_preference": int,
    "prompt": str,
    "id": int,
    "file_path": list,
    "user_hash": str,
    "contain_name": bool,
}


@dataclass(frozen=True)
class HpdV1Settings:
    """How HPD v1 is read.

    `missing_images`: "keep" leaves the path of an absent file empty and counts it, "fail" refuses.
    `decode` opens every image that is there in full; without it only headers are read.
    """

    missing_images: Literal["keep", "fail"] = "keep"
    allow_errors: bool = False
    decode: bool = True
    max_pixels: int = MAX_PIXELS


def read_hpd_v1(
    path: Path, images: Path | None = None, settings: HpdV1Settings | None = None
) -> Imported:
    """Read the records of HPD v1; image files are looked for below `images`.

    `images` is the folder of the JSON file unless given. Image keys are the file names of the
    release. Raises `DataError` that names the record, by number from 0 and by id.
    """
    settings = settings or HpdV1Settings()
    folder = path.parent if images is None else images
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder of images")
    faults = Faults(str(path), settings.allow_errors)
    found: dict[str, Image] = {}
    choices: dict[str, Choice] = {}
    for number, record in json_records(path):
        faults.rows += 1
        known = isinstance(record, dict) and isinstance(record.get("id"), int)
        where = f"record {number} (id {record['id']})" if known else f"record {number}"
        try:
            _require(record)
            _take(_choice(record, path.name), found, choices)
        except DataError as fault:
            faults.add(where, str(fault))
    faults.settle()
    if not choices:
        raise DataError(f"{path}: holds no record that can be used")
    missing = _find_files(found, folder, settings, faults)
    faults.settle()
    return Imported(
        images=to_table(found.values(), "images"),
        choices=to_table(choices.values(), "choices"),
        report={"records": faults.rows, "missing_images": missing, "faults": faults.to_dict()},
    )


def _take(choice: Choice, found: dict[str, Image], choices: dict[str, Choice]) -> None:
    if choice.choice in choices:
        raise DataError("another record has the same id")
    shared = [key for key in choice.images if key in found]
    if shared:
        raise DataError(f"the image {shared[0]!r} belongs to another record")
    choices[choice.choice] = choice
    found |= {key: Image(key, choice.prompt) for key in choice.images}


def _require(record: Any) -> None:
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {str(record)[:40]!r}")
    for key, kind in _KEYS.items():
        if key not in record:
            raise DataError(f"has no {key!r}")
        value = record[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise DataError(f"{key} is {str(value)[:40]!r}, expected {_PLAIN[kind]}")
    strangers = sorted(record.keys() - _KEYS.keys())
    if strangers:
        raise DataError(f"has the unknown key {strangers[0]!r}")
    if not all(isinstance(name, str) for name in record["file_path"]):
        raise DataError("file_path holds something that is no text")


_PLAIN: Final[dict[type, str]] = {
    int: "a whole number",
    str: "a text",
    list: "a list",
    bool: "true or false",
}


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


def _find_files(
    found: dict[str, Image], folder: Path, settings: HpdV1Settings, faults: Faults
) -> int:
    """Fill in path, hash and size of the files that are there; return how many are not."""
    missing = []
    for key, row in found.items():
        file = folder / key
        if not file.exists():
            missing.append(key)
            continue
        described = describe_image(
            row, file, max_pixels=settings.max_pixels, decode=settings.decode, faults=faults
        )
        # allowed faults leave the row without its file: the person's answer stays true
        found[key] = described or row
    if missing and settings.missing_images == "fail":
        raise DataError(
            f"{folder}: {len(missing)} of {len(found)} images are not there, first {missing[0]!r}"
        )
    return len(missing)

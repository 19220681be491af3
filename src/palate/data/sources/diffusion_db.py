"""Import the images of DiffusionDB (Wang et al. 2022, 2210.14896), which were made with Stable Diffusion.

Images lie in folders `part-000001`, each with `part-000001.json`: an object of image names, with prompt
`p`, seed `se`, guidance `c`, steps `st` and sampler `sa`. `metadata.parquet` (2 million rows) and
`metadata-large.parquet` (14 million) tell the same of all images, and who made an image, when, and how
likely image and prompt are unsafe (0 to 1). An image with the mark 2 was blurred by the filter of the
host. There are no choices.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from palate.data.images import SUFFIXES
from palate.data.records import Image, json_text
from palate.data.sources.common import (
    Found,
    Report,
    Row,
    Source,
    SourceSettings,
    inside,
    require_keys,
)
from palate.data.sources.parquet import require_once
from palate.data.sources.texts import read_text, require_columns, require_file
from palate.errors import DataError
from palate.runs import hash_text

GENERATOR: Final = "stable-diffusion"
"""The set does not say which version of the model made an image."""

SAMPLERS: Final = {
    1: "ddim",
    2: "plms",
    3: "k_euler",
    4: "k_euler_ancestral",
    5: "k_heun",
    6: "k_dpm_2",
    7: "k_dpm_2_ancestral",
    8: "k_lms",
    9: "others",
}
"""What the numbers of the metadata stand for."""

BLURRED: Final = 2.0
"""The mark of an image that the filter of the host blurred."""

_TABLES: Final = ("metadata.parquet", "metadata-large.parquet")
_PART: Final = re.compile(r"part-\d{6}")
_RELEASE: Final = ("", "images", "diffusiondb-large-part-1", "diffusiondb-large-part-2")
_COLUMNS: Final = (
    *("image_name", "prompt", "part_id", "seed", "step", "cfg", "sampler", "width", "height"),
    *("user_name", "timestamp", "image_nsfw", "prompt_nsfw"),
)
_MARKS: Final = ("image_nsfw", "prompt_nsfw")
_OWN_PLACE: Final = frozenset(_COLUMNS) - {"part_id", "user_name", "timestamp", *_MARKS}
_ROWS_AT_ONCE: Final = 20_000
_UINT16: Final = 2**16 - 1
_UINT32: Final = 2**32 - 1


@dataclass(frozen=True)
class DiffusionDbSettings(SourceSettings):
    """How DiffusionDB is read; what is left out is counted. All but the first need the metadata.

    `only_parts_there` leaves out images of parts that are not there; else they come without file.
    `drop_blurred` leaves out images that were blurred. `nsfw_below` leaves out images whose image or
    prompt has that mark or a higher one (0 to 1), and those without a mark.
    """

    only_parts_there: bool = False
    drop_blurred: bool = False
    nsfw_below: float | None = None

    def __post_init__(self) -> None:
        """Refuse a limit that is no likelihood."""
        if self.nsfw_below is not None and not 0 < self.nsfw_below <= 1:
            raise DataError(f"nsfw_below is {self.nsfw_below}, expected more than 0 and at most 1")


def diffusion_db(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open a part, a folder of parts, or the metadata of DiffusionDB; the names of images are the keys.

    In a folder with metadata that table is read, and the JSON of the parts is not. Parts are looked for
    below `images` (the folder itself unless given) and in the folders that the release has there.
    """
    rules = _settings(settings)
    table = _table(path)
    if table is not None:
        parts = _Parts(images or table.parent)
        inputs: dict[str, Path | str] = {"metadata": table, "images": parts.listing()}
        rows = partial(_metadata_rows, table, parts, rules)
        return Source("diffusion-db", rules, inputs, rows, parts.base)
    if rules.drop_blurred or rules.nsfw_below is not None:
        raise DataError(f"{path}: the JSON of parts has no NSFW marks; give the metadata")
    if images is not None:
        raise DataError(f"{path}: the images of a part lie beside its JSON; give no other folder")
    own = _PART.fullmatch(path.resolve().name) is not None
    folders = [path] if own else list(_Parts(path).folders())
    if not folders:
        raise DataError(f"{path}: holds no folder such as part-000001 and no {_TABLES[0]}")
    told = hash_text(*(f"{one.name} {_listing(one)}" for one in folders))
    inputs = {"parts": f"{len(folders):,} parts with the listing {told}"}
    inputs["images"] = inputs["parts"]
    return Source("diffusion-db", rules, inputs, partial(_part_rows, path, folders), path)


def _settings(settings: SourceSettings | None) -> DiffusionDbSettings:
    if isinstance(settings, DiffusionDbSettings):
        return settings
    given = settings or SourceSettings()
    shared = {one.name: getattr(given, one.name) for one in fields(SourceSettings)}
    return DiffusionDbSettings(**shared)


def _table(path: Path) -> Path | None:
    """The table that is to be read: the file itself, or the one of the folder, if there is one."""
    if not path.is_dir():
        require_file(path)
        if path.suffix != ".parquet":
            raise DataError(f"{path}: expected a folder or {' or '.join(_TABLES)}")
        return path
    there = [path / name for name in _TABLES if (path / name).is_file()]
    if len(there) > 1:
        raise DataError(f"{path}: holds {' and '.join(_TABLES)}; give the path of one of them")
    return there[0] if there else None


class _Parts:
    """Where the folders of parts are."""

    def __init__(self, base: Path) -> None:
        if not base.is_dir():
            what = "is a file, expected a folder" if base.exists() else "does not exist"
            raise DataError(f"{base}: {what}")
        self._places = [base / name for name in _RELEASE if (base / name).is_dir()]
        self._known: dict[int, Path | None] = {}
        self.base = base

    def of(self, number: int) -> Path | None:
        """The folder of a part, or None where it is not there."""
        if number not in self._known:
            places = (place / f"part-{number:06}" for place in self._places)
            self._known[number] = next((place for place in places if place.is_dir()), None)
        return self._known[number]

    def folders(self) -> Iterator[Path]:
        """All parts, in the order of their numbers within each folder of the release."""
        for place in self._places:
            found = (one for one in place.iterdir() if _PART.fullmatch(one.name) and one.is_dir())
            yield from sorted(found)

    def listing(self) -> str:
        """Tell one state of the image files from another, a part at a time."""
        told = [f"{one.name} {_listing(one)}" for one in self.folders()]
        return f"{len(told):,} parts with the listing {hash_text(*told)}"


def _listing(part: Path) -> str:
    """Hash the names, sizes and times of the files of a part."""
    with os.scandir(part) as found:
        facts = [(one.name, one.stat()) for one in found]
    return hash_text(*sorted(f"{name} {one.st_size} {one.st_mtime_ns}" for name, one in facts))


def _part_rows(path: Path, folders: list[Path], report: Report) -> Iterator[Row]:
    report.faults.source = str(path)
    for folder in folders:
        name = f"{folder.resolve().name}.json"
        try:
            records = _part(folder / name)
        except DataError as fault:
            # a broken part is one fault, so that the others can be used
            report.faults.rows += 1
            report.faults.add(name, str(fault).removeprefix(f"{folder / name}: "))
            continue
        for key, record in records:
            report.faults.rows += 1
            try:
                row = _part_image(key, record, int(name[5:11]))
                file = inside(folder, key)
            except DataError as fault:
                report.faults.add(f"{name}, image {key!r}", str(fault))
                continue
            yield Found(row, file)
        told = {key for key, _ in records}
        strangers = sum(
            one.suffix.lower() in SUFFIXES and one.name not in told for one in folder.iterdir()
        )
        if strangers:
            report.count("images_not_in_the_json", strangers)


def _part(path: Path) -> list[tuple[str, Any]]:
    """The names and records of a part: a thousand. A name that comes twice stays there twice."""
    text = read_text(path)
    try:
        found = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as fault:
        reason = getattr(fault, "msg", str(fault))
        if getattr(fault, "pos", 0) >= len(text.rstrip()) or "Unterminated" in reason:
            raise DataError(f"{path}: the JSON breaks off; the file is incomplete") from None
        raise DataError(f"{path}: is no valid JSON ({reason})") from None
    if not isinstance(found, tuple):
        raise DataError(f"{path}: begins with {text[:20]!r}, expected an object of image names")
    return list(found)


def _part_image(key: str, pairs: Any, part: int) -> Image:
    # JSON lists are lists, and objects are tuples of pairs
    record = dict(pairs) if isinstance(pairs, tuple) else pairs
    if isinstance(pairs, tuple) and len(record) != len(pairs):
        raise DataError("has a key twice")
    require_keys(record, {"p": str, "se": int, "c": float, "st": int, "sa": str})
    return _image(
        key,
        record["p"],
        seed=_whole("se", record["se"], _UINT32),
        settings={
            "guidance": _finite("c", record["c"]),
            "steps": _whole("st", record["st"], _UINT16),
            "sampler": record["sa"],
        },
        details={"part_id": part},
    )


def _image(
    key: str,
    prompt: str,
    *,
    seed: int,
    settings: dict[str, object],
    details: dict[str, object],
) -> Image:
    return Image(
        image=key,
        prompt=prompt,
        generator=GENERATOR,
        seed=seed,
        settings=json_text(settings),
        details=json_text(details),
    )


def _metadata_rows(
    path: Path, parts: _Parts, rules: DiffusionDbSettings, report: Report
) -> Iterator[Row]:
    for number, facts in enumerate(_facts(path)):
        report.faults.rows += 1
        try:
            row = _metadata_image(facts)
            folder = parts.of(facts["part_id"])
            file = inside(folder or parts.base, row.image)
        except DataError as fault:
            name = facts.get("image_name")
            report.faults.add(f"row {number} (image {name!r})", str(fault))
            continue
        why = _left_out(facts, folder, rules)
        if why is not None:
            report.count(why)
            continue
        if facts["image_nsfw"] == BLURRED:
            report.count("blurred")
        if folder is not None:
            yield Found(row, file)
        elif rules.missing_images == "keep":
            report.count("images_of_parts_not_there")
            yield Found(row)
        else:
            yield Found(row, inside(parts.base / f"part-{facts['part_id']:06}", row.image))


def _left_out(
    facts: Mapping[str, Any], folder: Path | None, rules: DiffusionDbSettings
) -> str | None:
    """The name of the count of what is left out by the settings, or None."""
    if rules.only_parts_there and folder is None:
        return "left_out_as_part_not_there"
    marks = (facts["image_nsfw"], facts["prompt_nsfw"])
    if rules.drop_blurred and marks[0] == BLURRED:
        return "left_out_as_blurred"
    if rules.nsfw_below is None:
        return None
    if any(mark is None for mark in marks):
        return "left_out_without_nsfw_mark"
    return "left_out_as_nsfw" if max(marks) >= rules.nsfw_below else None


def _facts(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the metadata as plain values, a few thousand at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            require_once(path, file.schema_arrow.names)
            require_columns(path, dict.fromkeys(file.schema_arrow.names), list(_COLUMNS))
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                columns = {name: _plain(batch.column(name)) for name in batch.schema.names}
                for values in zip(*columns.values(), strict=True):
                    yield dict(zip(columns, values, strict=True))
                number += len(batch)
    except UnicodeDecodeError:
        raise DataError(f"{path}: holds a text after row {number:,} that is no UTF-8") from None
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"{path}: is no whole Parquet file ({fault})") from None


def _plain(column: Any) -> list[Any]:
    """Values as Python has them: times as text in UTC, 32-bit numbers in their shortest decimal form."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind):
        # without its zone the value is UTC, and no table of zones is needed
        times = column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.timestamp("us"))
        return [None if time is None else f"{time.isoformat()}Z" for time in times.to_pylist()]
    values: list[Any] = column.to_pylist()
    if pa.types.is_float32(kind):
        # 7.1 is kept as 7.099999904632568 otherwise
        return [None if value is None else float(str(np.float32(value))) for value in values]
    return values


def _metadata_image(facts: dict[str, Any]) -> Image:
    """One image by its row; a mark that is no number counts as absent in `facts` too."""
    for name in ("image_name", "prompt"):
        if not isinstance(facts[name], str):
            raise DataError(f"{name} is {facts[name]!r}, expected a text")
    sampler = facts["sampler"]
    if type(sampler) is not int or sampler not in SAMPLERS:
        raise DataError(f"sampler is {sampler!r}, expected a number from 1 to {len(SAMPLERS)}")
    for name in _MARKS:
        facts[name] = _mark(name, facts[name])
    _whole("part_id", facts["part_id"], _UINT16)
    rest = {name: value for name, value in facts.items() if name not in _OWN_PLACE}
    # columns that the release does not have are kept too, as text if JSON has nothing like them
    details: dict[str, object] = {
        name: value if isinstance(value, (str, int)) or name in _MARKS else str(value)
        for name, value in rest.items()
        if value is not None
    }
    if facts["image_nsfw"] == BLURRED:
        details["blurred"] = True
    return _image(
        facts["image_name"],
        facts["prompt"],
        seed=_whole("seed", facts["seed"], _UINT32),
        settings={
            "guidance": _finite("cfg", facts["cfg"]),
            "steps": _whole("step", facts["step"], _UINT16),
            "sampler": SAMPLERS[sampler],
            "width": _whole("width", facts["width"], _UINT16),
            "height": _whole("height", facts["height"], _UINT16),
        },
        details=details,
    )


def _mark(name: str, value: Any) -> float | None:
    """An NSFW mark, None where there is none: 0 to 1, or 2 for a blurred image."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (int, float)) and (
        0 <= value <= 1 or (name == "image_nsfw" and value == BLURRED)
    ):
        return float(value)
    blurred = ", or 2 for a blurred image" if name == "image_nsfw" else ""
    raise DataError(f"{name} is {value!r}, expected 0 to 1{blurred}")


def _whole(name: str, value: Any, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high:
        return value
    raise DataError(f"{name} is {value!r}, expected a whole number from 0 to {high:,}")


def _finite(name: str, value: Any) -> float:
    if isinstance(value, (int, float)) and abs(value) <= sys.float_info.max:
        return float(value)
    raise DataError(f"{name} is {value!r}, expected a finite number")

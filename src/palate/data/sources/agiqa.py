"""Import AGIQA-3K and AGIQA-1K: mean opinions of generated images, as choices between images of one prompt.

Both sets print one mean opinion score for an image (higher is better) and no person's own answer. A
choice made of them says so: its annotator is unknown, and its details hold what it was derived from.

AGIQA-3K (Li et al. 2023) is `data.csv` with the columns `name, prompt, adj1, adj2, style, mos_quality,
std_quality, mos_align, std_align`. Its column `prompt` holds the whole text already, with the two
adjectives and the style, so images of one prompt are rows with the same `prompt`.

AGIQA-1K (Zhang et al. 2023, 2303.12618) is `AIGC_MOS_Zscore.xlsx` (Image, Prompt, MOS) and
`AIGC_all.csv` (Image, Score). Names are `{generator}_{object}_{action}_{place}_{style}.jpg`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import partial
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import Any, Final, Literal

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
from palate.data.sources.sheets import sheet_rows
from palate.data.sources.texts import csv_rows, require_columns, require_file
from palate.errors import DataError

_COLUMNS: Final = (
    *("name", "prompt", "adj1", "adj2", "style"),
    *("mos_quality", "std_quality", "mos_align", "std_align"),
)
_NAME: Final = re.compile(r"(?P<generator>[^_]+)_(?P<setting>.+)_(?P<number>\d+)\.\w+")
_DIMENSIONS: Final = {"quality": "quality", "align": "alignment"}

_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "object": (
        *("bird", "cat", "dog", "batman", "snoppy", "teddy bear"),
        *("kid", "man", "woman", "alien", "demon", "witch"),
    ),
    "action": (
        *("driving aircraft", "driving bike", "driving car"),
        *("having hamburger", "having icecream", "having pizza"),
        *("playing baseball", "playing football", "playing yoga"),
        *("using CD", "using laptop", "using phone"),
        *("wearing coat", "wearing hat", "wearing shirt"),
    ),
    "place": ("city", "wild"),
    "style": ("anime style", "realistic style"),
}
"""What a number in a name of AGIQA-1K stands for, by the page of the set."""


@dataclass(frozen=True)
class OpinionSettings(SourceSettings):
    """How mean opinions become choices.

    `form` "groups" gives one choice per prompt and dimension with all its images ranked; "pairs" gives
    one per pair of images and leaves out pairs whose means differ, but by less than `minimum_gap` (in
    the unit of the score). Equal means are ties in both.
    """

    form: Literal["groups", "pairs"] = "groups"
    minimum_gap: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a gap that no ranking can hold."""
        if self.minimum_gap < 0 or not isfinite(self.minimum_gap):
            raise DataError(f"a minimum gap of {self.minimum_gap}, expected 0 or more")
        if self.minimum_gap and self.form == "groups":
            raise DataError(
                "a minimum gap needs form 'pairs': a is not clearly above b, nor b above c, "
                "but a is above c"
            )


@dataclass(frozen=True, slots=True)
class Opinion:
    """The published mean of one image on one dimension, and its standard deviation where it is told."""

    image: str
    mean: float
    std: float | None = None


def opinion_settings(settings: SourceSettings | None) -> OpinionSettings:
    """Return the settings, with the defaults of `OpinionSettings` where they have no form yet."""
    if isinstance(settings, OpinionSettings):
        return settings
    given = settings or SourceSettings()
    return OpinionSettings(**{one.name: getattr(given, one.name) for one in fields(SourceSettings)})


def opinion_choices(
    key: str,
    prompt: str,
    dimension: str,
    opinions: Sequence[Opinion],
    settings: OpinionSettings,
    report: Report,
    derived_from: str = "mean opinion score",
) -> Iterator[Choice]:
    """Yield the choices that the means of one prompt's images stand for; higher is better.

    The images stand in the order given. One image alone is no choice and is counted, as are pairs
    that are too close and choices that tie all their images.
    """
    if len(opinions) < 2:
        report.count("single")
        return
    pairs = settings.form == "pairs"
    shown = combinations(range(len(opinions)), 2) if pairs else [tuple(range(len(opinions)))]
    for places in shown:
        own = [opinions[place] for place in places]
        means = [one.mean for one in own]
        # as written: 0.3 is 0.2 more than 0.1, which it is not in binary
        gap = Decimal(str(max(means))) - Decimal(str(min(means)))
        if 0 < gap < Decimal(str(settings.minimum_gap)):
            report.count("too_close")
            continue
        if gap == 0:
            report.count("all_tied")
        levels = sorted(set(means), reverse=True)
        facts: dict[str, object] = {"derived_from": derived_from, "means": means}
        if any(one.std is not None for one in own):
            facts["stds"] = [one.std for one in own]
        yield Choice(
            choice=f"{key}/{dimension}" + ("/" + "~".join(map(str, places)) if pairs else ""),
            prompt=prompt,
            images=tuple(one.image for one in own),
            ranks=tuple(levels.index(mean) + 1 for mean in means),
            dimension=dimension,
            source=f"{key.partition('/')[0]}, {derived_from}",
            details=json_text(facts),
        )


def agiqa_3k(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open `data.csv` of AGIQA-3K; image files are looked for below `images`, or beside the table.

    Every prompt gives one choice on `quality` and one on `alignment` between its images (ten, with few
    exceptions), in the order of the table. Means are about 0 to 4.5. Faults name the line.
    """
    folder = image_folder(images, path)
    rules = opinion_settings(settings)
    rows = partial(_rows_3k, path, folder, rules)
    return Source("agiqa-3k", rules, {"scores": path}, rows, folder)


def _rows_3k(path: Path, folder: Path, settings: OpinionSettings, report: Report) -> Iterator[Row]:
    prompts: dict[str, dict[str, list[Opinion]]] = {}
    seen: set[str] = set()
    for line, cells in csv_rows(path):
        require_columns(path, cells, list(_COLUMNS))
        report.faults.rows += 1
        try:
            image, opinions = _image_3k(cells)
            file = inside(folder, image.image)
            _refuse_known(image.image, seen)
        except DataError as fault:
            report.faults.add(f"line {line}", str(fault))
            continue
        own = prompts.setdefault(image.prompt, {})
        for dimension, opinion in opinions.items():
            own.setdefault(dimension, []).append(opinion)
        yield Found(image, file)
    for number, (prompt, by_dimension) in enumerate(prompts.items()):
        for dimension, told in by_dimension.items():
            yield from opinion_choices(
                f"agiqa-3k/{number}", prompt, dimension, told, settings, report
            )


def _image_3k(cells: Mapping[str, str]) -> tuple[Image, dict[str, Opinion]]:
    """Return the row of an image and its opinions by dimension."""
    name = cells["name"]
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"name is {name!r}, expected generator_setting_number.jpg")
    if not cells["prompt"].strip():
        raise DataError("prompt is empty")
    opinions = {
        dimension: Opinion(name, _number(cells, f"mos_{key}"), _number(cells, f"std_{key}"))
        for key, dimension in _DIMENSIONS.items()
    }
    adjectives = [cells["adj1"], cells["adj2"]]
    while adjectives and not adjectives[-1]:
        adjectives.pop()
    facts: dict[str, object] = {
        "mean": {dimension: one.mean for dimension, one in opinions.items()},
        "std": {dimension: one.std for dimension, one in opinions.items()},
        "setting": match["setting"],
    }
    facts |= {"adjectives": adjectives} if adjectives else {}
    facts |= {"style": cells["style"]} if cells["style"] else {}
    facts |= {key: cell for key, cell in cells.items() if key not in _COLUMNS and cell}
    row = Image(name, cells["prompt"], generator=match["generator"], details=json_text(facts))
    return row, opinions


def agiqa_1k(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open AGIQA-1K: `AIGC_MOS_Zscore.xlsx`, `AIGC_all.csv`, or the folder that holds them.

    With the workbook its prompts and its MOS count, and `Score` of the CSV table goes to the image's
    details. With the CSV table alone `Score` counts, and the prompt is made of the name. One choice on
    `quality` per prompt. A workbook needs the extra "sheets".
    """
    book, table = _files_1k(path)
    first = book or table
    if first is None:
        raise DataError(f"{path}: holds neither AIGC_MOS_Zscore.xlsx nor AIGC_all.csv")
    require_file(first)
    folder = image_folder(images, first)
    rules = opinion_settings(settings)
    inputs = {"scores": book, "raw scores": table} if book else {"scores": table}
    given: dict[str, Path | str] = {name: one for name, one in inputs.items() if one is not None}
    return Source("agiqa-1k", rules, given, partial(_rows_1k, book, table, folder, rules), folder)


def _files_1k(path: Path) -> tuple[Path | None, Path | None]:
    if path.is_dir():
        book, table = path / "AIGC_MOS_Zscore.xlsx", path / "AIGC_all.csv"
        return book if book.is_file() else None, table if table.is_file() else None
    return (path, None) if path.suffix.lower() == ".xlsx" else (None, path)


def _rows_1k(
    book: Path | None, table: Path | None, folder: Path, settings: OpinionSettings, report: Report
) -> Iterator[Row]:
    raw = _raw_scores(table, report) if book is not None and table is not None else {}
    main = book or table
    if main is None:
        return
    value = "Score" if book is None else "MOS"
    prompts: dict[str, list[Opinion]] = {}
    seen: set[str] = set()
    for line, cells in csv_rows(main) if book is None else sheet_rows(main):
        require_columns(main, cells, ["Image", value] + ([] if book is None else ["Prompt"]))
        report.faults.rows += 1
        try:
            image, opinion = _image_1k(cells, value, raw)
            file = inside(folder, image.image)
            _refuse_known(image.image, seen)
        except DataError as fault:
            report.faults.add(f"line {line}", str(fault))
            continue
        prompts.setdefault(image.prompt, []).append(opinion)
        yield Found(image, file)
    for name in raw:
        report.faults.add(f"raw score of {name!r}", f"the image is not in {main.name}")
    for number, (prompt, told) in enumerate(prompts.items()):
        yield from opinion_choices(f"agiqa-1k/{number}", prompt, "quality", told, settings, report)


def _raw_scores(table: Path, report: Report) -> dict[str, float]:
    found: dict[str, float] = {}
    for line, cells in csv_rows(table):
        require_columns(table, cells, ["Image", "Score"])
        try:
            _refuse_known(cells["Image"], found)
            found[cells["Image"]] = _number(cells, "Score")
        except DataError as fault:
            report.faults.add(f"{table.name}, line {line}", str(fault))
    return found


def _image_1k(cells: Mapping[str, Any], value: str, raw: dict[str, float]) -> tuple[Image, Opinion]:
    name = str(cells["Image"])
    parts = name.rpartition(".")[0].split("_")
    if len(parts) != 5 or not all(parts):
        raise DataError(
            f"Image is {name!r}, expected {{generator}}_{{object}}_{{action}}_{{place}}_{{style}}.jpg"
        )
    told = {what: _meaning(what, part) for what, part in zip(_PARTS, parts[1:], strict=True)}
    facts: dict[str, object] = {**told, "mean": {"quality": _number(cells, value)}}
    if name in raw:
        facts["score"] = raw.pop(name)
    prompt = f"{told['object']} {told['action']}, {told['place']}, {told['style']}"
    if "Prompt" in cells:
        prompt = str(cells["Prompt"] or "").strip()
        if not prompt:
            raise DataError("Prompt is empty")
    facts |= {k: c for k, c in cells.items() if k not in {"Image", "Prompt", value} and c}
    row = Image(name, prompt, generator=parts[0], details=json_text(facts))
    return row, Opinion(name, _number(cells, value))


def _meaning(what: str, part: str) -> str:
    """Say what one part of a name stands for: a number looks it up, anything else is the word."""
    if not (part.isascii() and part.isdigit()):
        return part.replace("-", " ")
    words = _PARTS[what]
    if int(part) >= len(words):
        raise DataError(f"{what} is number {part}, expected 0 to {len(words) - 1}")
    return words[int(part)]


def _number(cells: Mapping[str, Any], name: str) -> float:
    cell = cells[name]
    try:
        value = float("nan") if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        value = float("nan")
    if not isfinite(value):
        raise DataError(f"{name} is {cell!r}, expected a number")
    if name.startswith("std_") and value < 0:
        raise DataError(f"{name} is {cell!r}, expected 0 or more")
    return value


def _refuse_known(name: str, seen: set[str] | dict[str, float]) -> None:
    if name in seen:
        raise DataError(f"image {name!r} was there before")
    if isinstance(seen, set):
        seen.add(name)

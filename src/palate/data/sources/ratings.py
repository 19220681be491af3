r"""Turn ratings into choices: what one person thinks of several images of one prompt.

The ratings are a table in long form (CSV, TSV, JSON Lines, Parquet, .xlsx), one rating per line: who,
which image, on which dimension, how much. The rule: ratings by the same person, of the same prompt, on
the same dimension are one answer. Equal ratings are ties. The order shown is the order in which the
person rated.

Form "groups" gives one choice per person, prompt and dimension, with all images ranked. Form
"pairs" gives one choice per pair of images, and leaves out the pairs whose ratings differ by
something, but by less than the minimum gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import Any, Final, Literal

from palate.data.images import MAX_PIXELS, SUFFIXES
from palate.data.records import Choice, Image, json_text
from palate.data.sources.common import (
    Faults,
    Imported,
    MissingImages,
    describe_image,
    inside,
)
from palate.data.sources.folder import compile_pattern
from palate.data.sources.sheets import table_rows
from palate.data.sources.texts import require_columns
from palate.data.tables import to_table
from palate.errors import DataError
from palate.runs import hash_text

_FIRST: Final = 10


@dataclass(frozen=True)
class RatingsSettings:
    """How a table of ratings is read and turned into choices.

    The first five name columns; `dimension=None` means one dimension, "overall". The prompt is a
    column, or it follows from the image by `image_pattern`: a regular expression that matches the
    whole cell, with the group `prompt` or `prompt_id` (looked up in the prompts file, columns
    `prompt_id` and `prompt_text`), and if wanted `generator` and `file` (the path below the folder
    of images). `repeats` says which of several ratings of one image by one person counts.
    `missing_images`: "fail", "keep" the ratings, or "drop" them; both are counted. Raters of less
    than `minimum_share` of all images are left out and counted.
    """

    rater: str = "rater"
    image: str = "image"
    value: str = "value"
    dimension: str | None = "dimension"
    prompt: str | None = None
    image_pattern: str | None = None
    prompt_id: str = "id"
    prompt_text: str = "prompt"
    dimension_names: dict[str, str] = field(default_factory=dict)
    higher_is_better: bool = True
    form: Literal["groups", "pairs"] = "groups"
    minimum_gap: float = 0.0
    repeats: Literal["fail", "first", "last"] = "fail"
    missing_images: MissingImages = "fail"
    minimum_share: float = 0.0
    allow_errors: bool = False
    decode: bool = True
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Refuse a gap that no ranking can hold, and a share that is none."""
        if not 0 <= self.minimum_share <= 1:
            raise DataError(f"a minimum share of {self.minimum_share}, expected 0 to 1")
        if self.minimum_gap < 0 or not isfinite(self.minimum_gap):
            raise DataError(f"a minimum gap of {self.minimum_gap}, expected 0 or more")
        if self.minimum_gap and self.form == "groups":
            raise DataError(
                "a minimum gap needs form 'pairs': a is not clearly above b, nor b above c, "
                "but a is above c"
            )
        if (self.prompt is None) == (self.image_pattern is None):
            raise DataError("the prompt comes from a column or from a pattern; give one of them")


AVT: Final = RatingsSettings(
    rater="user_ID",
    image="stimuli_file",
    value="rating",
    dimension="rating_type",
    image_pattern=r"(?:\./stimuli/)?(?P<file>(?P<generator>[^/]+)/(?P<prompt_id>p\d+)\.\w+)",
    prompt_id="ID",
    prompt_text="prompts",
    dimension_names={"range_image_appeal": "appeal", "range_image_quality": "quality"},
    repeats="last",
    missing_images="drop",
)
"""The AVT AI image study (Göring et al. 2023): `ratings_study2.csv` and `prompts.csv`."""


@dataclass(frozen=True, slots=True)
class _Rating:
    """One rating: its line, who, what and how much, exactly as written: 0.3 is 0.2 more than 0.1."""

    line: int
    rater: str
    image: str
    dimension: str
    value: Decimal


def read_ratings(
    path: Path, images: Path, prompts: Path | None = None, settings: RatingsSettings | None = None
) -> Imported:
    """Read ratings and give images and choices.

    `images` is the folder of the image files; a file may have another image suffix than the table
    says. Raises `DataError` with the line of the first bad rating, and names images without file
    and people who rated an image twice, unless the settings say what happens to them.
    """
    settings = settings or RatingsSettings(prompt="prompt")
    if not images.is_dir():
        raise DataError(f"{images}: is no folder of images")
    faults = Faults(str(path), settings.allow_errors)
    found: dict[str, tuple[Image, Path]] = {}
    cells = _Cells(images, settings, prompts)
    ratings = list(_ratings(path, cells, found, settings, faults))
    faults.settle()
    if not ratings:
        raise DataError(f"{path}: holds no rating that can be used")
    report: dict[str, Any] = {"ratings": faults.rows, "raters": len({r.rater for r in ratings})}
    rows, report["missing_images"] = _files(path, found, images, settings, faults)
    faults.settle()
    ratings = [rating for rating in ratings if rating.image in rows]
    ratings, report["repeats"] = _once(path, ratings, settings.repeats)
    ratings, report["unfinished_raters"] = _finished(ratings, len(rows), settings.minimum_share)
    choices, counts = _all_choices(path.stem, ratings, rows, settings)
    if not choices:
        raise DataError(f"{path}: nobody rated two images of one prompt")
    report |= counts | {"faults": faults.to_dict()}
    return Imported(to_table(rows.values(), "images"), to_table(choices, "choices"), report)


class _Cells:
    """What an image's cell says of its prompt, its generator and its file."""

    def __init__(self, folder: Path, settings: RatingsSettings, path: Path | None) -> None:
        self.folder = folder
        self.settings = settings
        self.texts: dict[str, str] = {}
        self.pattern = None
        if settings.image_pattern is None:
            return
        self.pattern = compile_pattern(settings.image_pattern, set())
        groups = self.pattern.groupindex.keys()
        if not groups & {"prompt", "prompt_id"}:
            raise DataError(f"the pattern {settings.image_pattern!r} has no prompt or prompt_id")
        if "prompt_id" not in groups:
            return
        if path is None:
            raise DataError("the pattern gives a prompt_id, so a prompts file is needed")
        for line, cells in table_rows(path):
            require_columns(path, cells, [settings.prompt_id, settings.prompt_text])
            key = cells[settings.prompt_id]
            if key in self.texts:
                raise DataError(f"{path}, line {line}: {key!r} was there before")
            self.texts[key] = cells[settings.prompt_text].strip()

    def image(self, cells: Mapping[str, str]) -> tuple[Image, Path]:
        """Return the row of an image, still without its file, and where the file should be."""
        cell = cells[self.settings.image]
        if self.pattern is None:
            row = Image(cell, cells[str(self.settings.prompt)])
            return row, inside(self.folder, cell)
        match = self.pattern.fullmatch(cell)
        if match is None:
            raise DataError(f"image {cell!r} does not match the pattern")
        groups = match.groupdict()
        key = groups.get("prompt_id")
        if key is not None and key not in self.texts:
            raise DataError(f"prompt {key!r} of image {cell!r} is not in the prompts file")
        prompt = groups["prompt"] if key is None else self.texts[key]
        file = groups.get("file") or cell
        facts: dict[str, object] = {} if key is None else {"prompt_id": key}
        row = Image(file, prompt, generator=groups.get("generator"), details=json_text(facts))
        return row, inside(self.folder, file)


def _ratings(
    path: Path,
    known: _Cells,
    found: dict[str, tuple[Image, Path]],
    settings: RatingsSettings,
    faults: Faults,
) -> Iterator[_Rating]:
    wanted = [settings.rater, settings.image, settings.value]
    wanted += [name for name in (settings.dimension, settings.prompt) if name is not None]
    for line, cells in table_rows(path):
        require_columns(path, cells, wanted)
        faults.rows += 1
        try:
            image, file = known.image(cells)
            value = _number(cells[settings.value])
            if not cells[settings.rater]:
                faults.add(f"line {line}", f"{settings.rater} is empty")
                continue
            _same_prompt(found.setdefault(image.image, (image, file))[0], image)
        except DataError as fault:
            faults.add(f"line {line}", str(fault))
            continue
        name = "overall" if settings.dimension is None else cells[settings.dimension]
        dimension = settings.dimension_names.get(name, name)
        yield _Rating(line, cells[settings.rater], image.image, dimension, value)


def _number(cell: str) -> Decimal:
    try:
        value = Decimal(cell)
    except InvalidOperation:
        value = Decimal("nan")
    # 1e999 is too large for what the tables hold
    if not (value.is_finite() and isfinite(float(value))):
        raise DataError(f"the rating is {cell!r}, expected a number")
    return value


def _exact(number: float) -> Decimal:
    """The number that a person wrote, 0.2 and not what is nearest to it in binary."""
    return Decimal(str(number))


def _same_prompt(before: Image, now: Image) -> None:
    if before.prompt != now.prompt:
        raise DataError(f"image {now.image!r} had another prompt before, {before.prompt[:40]!r}")


def _files(
    path: Path,
    found: Mapping[str, tuple[Image, Path]],
    folder: Path,
    settings: RatingsSettings,
    faults: Faults,
) -> tuple[dict[str, Image], list[str]]:
    """Find the file of every image; give the rows to keep, and the names without a file."""
    rows: dict[str, Image] = {}
    missing = []
    stems: dict[Path, dict[str, list[Path]]] = {}
    for key, (image, place) in found.items():
        file = place if _is_there(place) else _other_suffix(folder, place, stems)
        if file is None:
            missing.append(key)
            if settings.missing_images == "keep":
                rows[key] = image
            continue
        row = describe_image(
            image, file, max_pixels=settings.max_pixels, decode=settings.decode, faults=faults
        )
        if row is not None:
            rows[key] = row
    if missing and settings.missing_images == "fail":
        raise DataError(
            f"{path}: {len(missing):,} of {len(found):,} rated images are not in {folder}: "
            + ", ".join(map(repr, missing[:_FIRST]))
            + (", …" if len(missing) > _FIRST else "")
        )
    return rows, missing


def _is_there(place: Path) -> bool:
    try:
        return place.is_file()
    except OSError:  # such as a name that is too long
        return False


def _other_suffix(
    folder: Path, place: Path, stems: dict[Path, dict[str, list[Path]]]
) -> Path | None:
    """Find an image by its name with another image suffix; a folder is listed once."""
    if place.parent not in stems:
        listed = stems.setdefault(place.parent, {})
        for one in sorted(place.parent.iterdir()) if place.parent.is_dir() else []:
            if one.suffix.lower() in SUFFIXES and one.is_file():
                listed.setdefault(one.stem, []).append(one)
    there = stems[place.parent].get(place.stem, [])
    if len(there) > 1:
        name = place.relative_to(folder).as_posix()
        raise DataError(f"{folder}: {name!r} may be {there[0].name} or {there[1].name}")
    return there[0] if there else None


def _once(path: Path, ratings: list[_Rating], rule: str) -> tuple[list[_Rating], dict[str, Any]]:
    """Keep one rating per person, image and dimension; the report names the repeated ones."""
    own: dict[tuple[str, str, str], list[_Rating]] = {}
    for rating in ratings:
        own.setdefault((rating.rater, rating.image, rating.dimension), []).append(rating)
    again = [same for same in own.values() if len(same) > 1]
    if again and rule == "fail":
        first = again[0]
        raise DataError(
            f"{path}, line {first[1].line}: rater {first[0].rater!r} rated {first[0].image!r} on "
            f"{first[0].dimension} again (first on line {first[0].line}; "
            f"{len(again)} such cases); say which rating counts"
        )
    told = [
        f"rater {same[0].rater}, {same[0].image}, {same[0].dimension}: "
        + ", ".join(f"{rating.value:g}" for rating in same)
        for same in again
    ]
    kept = [same[0 if rule == "first" else -1] for same in own.values()]
    kept.sort(key=lambda rating: rating.line)
    return kept, {"count": len(again), "rule": rule, "cases": told[:20]}


def _finished(
    ratings: list[_Rating], images: int, share: float
) -> tuple[list[_Rating], dict[str, Any]]:
    """Leave out raters of fewer images than the share; the report names all who did not finish."""
    rated: dict[str, set[str]] = {}
    for rating in ratings:
        rated.setdefault(rating.rater, set()).add(rating.image)
    least = _exact(share) * images
    dropped = {rater for rater, own in rated.items() if len(own) < least}
    unfinished = {rater: len(own) for rater, own in rated.items() if len(own) < images}
    report = {"count": len(unfinished), "left_out": len(dropped), "images_rated": unfinished}
    return [rating for rating in ratings if rating.rater not in dropped], report


def _all_choices(
    name: str, ratings: Iterable[_Rating], rows: Mapping[str, Image], settings: RatingsSettings
) -> tuple[list[Choice], dict[str, int]]:
    answers: dict[tuple[str, str, str], list[_Rating]] = {}
    for rating in ratings:
        key = (rating.dimension, rows[rating.image].prompt, rating.rater)
        answers.setdefault(key, []).append(rating)
    counts = {"single": 0, "too_close": 0, "all_tied": 0}
    least = _exact(settings.minimum_gap)
    choices = []
    for own in answers.values():
        if len(own) < 2:
            counts["single"] += 1
            continue
        shown = combinations(own, 2) if settings.form == "pairs" else [tuple(own)]
        for rated in shown:
            gap = max(r.value for r in rated) - min(r.value for r in rated)
            if 0 < gap < least:
                counts["too_close"] += 1
                continue
            counts["all_tied"] += gap == 0
            choices.append(_choice(name, rated, rows, settings))
    return choices, counts


def _choice(
    name: str, rated: tuple[_Rating, ...], rows: Mapping[str, Image], settings: RatingsSettings
) -> Choice:
    values = [rating.value for rating in rated]
    levels = sorted(set(values), reverse=settings.higher_is_better)
    first = rated[0]
    prompt = rows[first.image].prompt
    key = f"{name}/{first.dimension}/{hash_text(prompt)[:16]}/{first.rater}"
    if settings.form == "pairs":
        key += "/" + "~".join(rating.image for rating in rated)
    return Choice(
        choice=key,
        prompt=prompt,
        images=tuple(rating.image for rating in rated),
        ranks=tuple(levels.index(value) + 1 for value in values),
        dimension=first.dimension,
        annotator=first.rater,
        source=name,
        details=json_text({"ratings": [float(value) for value in values]}),
    )

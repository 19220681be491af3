"""What every source needs: rows as they come, faults that are counted and named, safe file names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from palate.data.images import MAX_PIXELS, SUFFIXES, probe_image
from palate.data.records import Choice, Image
from palate.errors import DataError, ImageError
from palate.runs import RECORD, hash_text

MissingImages = Literal["fail", "keep", "drop"]
_EXAMPLES: Final = 5
_MISSING: Final = 10
_PLAIN: Final[dict[type, str]] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}


@dataclass(frozen=True)
class SourceSettings:
    """How the files of any source are read.

    `missing_images`: "keep" leaves the path of an absent file empty and counts it, "fail" refuses.
    `allow_errors` leaves bad rows out and counts them. `decode` opens every image in full; without
    it only headers are read. `extract` writes images that lie inside other files (Parquet, tar) as
    files of the data set.
    """

    missing_images: Literal["keep", "fail"] = "keep"
    allow_errors: bool = False
    decode: bool = True
    extract: bool = True
    max_pixels: int = MAX_PIXELS


@dataclass
class Faults:
    """Rows that cannot be used, counted and named; nothing is skipped in silence.

    A source adds each fault and goes on. At the end `settle` raises, unless faults are allowed;
    then they stand in the run record.
    """

    source: str
    allowed: bool
    count: int = 0
    rows: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, where: str, fault: str) -> None:
        """Count one bad row and keep the first few by name."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{where}: {fault}")

    def settle(self) -> None:
        """Raise `DataError` for the faults found, unless they are allowed."""
        if self.count and not self.allowed:
            raise DataError(f"{self.source}: {self._told()}")

    def _told(self) -> str:
        if self.count == 1:
            return self.examples[0]
        return f"{self.count} of {self.rows} rows cannot be used, first {self.examples[0]}"

    def to_dict(self) -> dict[str, Any]:
        """Return the count and the first faults for the run record."""
        return {"count": self.count, "first": list(self.examples)}


@dataclass
class Report:
    """What a reader says beside its rows: faults, files that are not there, and its own counts."""

    faults: Faults
    missing: int = 0
    missing_first: list[str] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)

    def count(self, name: str, number: int = 1) -> None:
        """Add to one of the reader's own counts, such as ``"ties"``."""
        self.counts[name] = self.counts.get(name, 0) + number

    def miss(self, key: str) -> None:
        """Count an image whose file is not there, and keep the first ten by name."""
        self.missing += 1
        if len(self.missing_first) < _MISSING:
            self.missing_first.append(key)

    def told(self) -> str:
        """What was found instead, for a sentence: counts such as `` (messages: 11 chat)``."""
        parts = []
        for name, value in self.counts.items():
            if isinstance(value, dict) and value:
                parts.append(f"{name}: " + ", ".join(f"{n:,} {kind}" for kind, n in value.items()))
            elif isinstance(value, int) and not isinstance(value, bool) and value:
                parts.append(f"{name}: {value:,}")
        return f" ({'; '.join(parts).replace('_', ' ')})" if parts else ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the run record."""
        return {
            "records": self.faults.rows,
            "missing_images": self.missing,
            "missing_first": list(self.missing_first),
            "faults": self.faults.to_dict(),
            **self.counts,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """An image as a source names it: its row, and where its file should be, or its bytes.

    With neither `file` nor `data` the source has no image, and none is looked for.
    """

    image: Image
    file: Path | None = None
    data: bytes | None = None


Row: TypeAlias = Found | Choice


@dataclass(frozen=True)
class Source:
    """What is to be imported: what was read, how, and the rows as they come.

    `inputs` are the files (told apart by content) and `folder` is where image files lie. `rows` reads
    them once; an image comes before the choices that name it, and only once. `label` is what faults
    call the whole.
    """

    name: str
    settings: object
    inputs: Mapping[str, Path | str]
    rows: Callable[[Report], Iterator[Row]]
    folder: Path | None = None
    label: str | None = None

    @property
    def rules(self) -> SourceSettings:
        """What the settings say about files; the defaults for a source that looks at them itself."""
        return self.settings if isinstance(self.settings, SourceSettings) else SourceSettings()

    def report(self) -> Report:
        """Return an empty report, named by the label, or after the first input."""
        first = self.label or next(iter(self.inputs.values()), self.name)
        return Report(Faults(str(first), self.rules.allow_errors))


@dataclass(frozen=True)
class Imported:
    """What a source gave: the two tables, and a report of counts for the run record."""

    images: Any
    choices: Any
    report: dict[str, Any]


class Seen:
    """Images that came before, so that each comes once; the first prompt of an image stays."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._prompts: dict[str, int] = {}

    def new(self, images: Iterable[Image]) -> list[Image]:
        """Return those that did not come before; count those that come under another prompt now."""
        fresh = []
        for image in images:
            before = self._prompts.get(image.image)
            if before is None:
                self._prompts[image.image] = hash(image.prompt)
                fresh.append(image)
            elif before != hash(image.prompt):
                self._report.count("images_under_another_prompt")
        return fresh

    def __contains__(self, key: object) -> bool:
        return key in self._prompts

    def __len__(self) -> int:
        return len(self._prompts)


def require_keys(
    record: Any, keys: Mapping[str, type], *, optional: Mapping[str, type] | None = None
) -> None:
    """Raise `DataError` unless a JSON record has these keys, with values of these types, and no other.

    A whole number is a number; true is no whole number. An optional key may be absent or null.
    """
    if not isinstance(record, dict):
        raise DataError(f"expected an object, found {str(record)[:40]!r}")
    optional = optional or {}
    for key, kind in {**keys, **optional}.items():
        value = record.get(key)
        if value is None and key in optional:
            continue
        if key not in record:
            raise DataError(f"has no {key!r}")
        wanted: Any = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or (kind is not bool and isinstance(value, bool)):
            raise DataError(f"{key} is {str(value)[:40]!r}, expected {_PLAIN[kind]}")
    strangers = sorted(record.keys() - keys.keys() - optional.keys())
    if strangers:
        raise DataError(f"has the unknown key {strangers[0]!r}")


def require_texts(name: str, values: Iterable[object]) -> None:
    """Raise `DataError` where a list holds something that is no text."""
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{name} holds something that is no text")


def require_numbers(name: str, values: Iterable[object]) -> None:
    """Raise `DataError` where a list holds something that is no whole number."""
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise DataError(f"{name} holds something that is no whole number")


def inside(folder: Path, name: str) -> Path:
    r"""Return the path of a file that a source names; `/` and `\` both separate.

    Raises `DataError` where the name is absolute or leads out of the folder.
    """
    # by hand: two more paths would cost more than all else that is done with a name
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in {"", "."}]
    drive = slashed[1:2] == ":" and slashed[0].isascii() and slashed[0].isalpha()
    if not parts or "\0" in name or ".." in parts or slashed[0] == "/" or drive:
        raise DataError(f"the path {name!r} does not stay inside the folder of images")
    return folder.joinpath(*parts)


def image_folder(given: Path | None, beside: Path) -> Path:
    """Return the folder of images that was given, or that of the file. Raises `DataError` if it is none."""
    folder = beside.parent if given is None else given
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder of images")
    return folder


def find_images(folder: Path) -> list[Path]:
    """List the image files below a folder in the order of their names; hidden ones are left out."""
    if not folder.is_dir():
        what = "is a file, expected a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {what}")
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def hash_listing(folder: Path, leave_out: Path | None = None) -> str:
    """Hash the names, sizes and times of the image files below a folder, without reading them.

    Folders that hold a run, such as data sets that were imported to beside the images, are passed over.
    """
    skip = None if leave_out is None else leave_out.resolve()
    told = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if here != folder and (RECORD in files or here.resolve() == skip):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                facts = (here / name).stat()
                of = (here / name).relative_to(folder).as_posix()
                told.append(f"{of} {facts.st_size} {facts.st_mtime_ns}")
    return hash_text(*told)


def describe_image(
    image: Image, file: Path, *, max_pixels: int, decode: bool, faults: Faults
) -> Image | None:
    """Return the row with path, hash and size of its file; None, and a fault, if it does not open.

    The path is absolute: the import makes it relative to where the table is written.
    """
    try:
        facts = probe_image(file, max_pixels=max_pixels, decode=decode)
    except ImageError as fault:
        faults.add(f"image {image.image!r}", str(fault))
        return None
    return Image(
        image=image.image,
        prompt=image.prompt,
        path=file.resolve().as_posix(),
        sha256=facts.sha256,
        width=facts.width,
        height=facts.height,
        generator=image.generator,
        seed=image.seed,
        settings=image.settings,
        details=image.details,
    )

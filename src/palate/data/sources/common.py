"""What every source needs: faults that are counted and named, JSON and CSV with line numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from palate.data.images import SUFFIXES, probe_image
from palate.data.records import Image
from palate.errors import DataError, ImageError

MissingImages = Literal["fail", "keep", "drop"]
_EXAMPLES = 5


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


@dataclass(frozen=True)
class Imported:
    """What a source gave: the two tables, and a report of counts for the run record."""

    images: Any
    choices: Any
    report: dict[str, Any]


def read_text(path: Path) -> str:
    """Read a UTF-8 text file (a byte order mark is dropped), or raise `DataError`."""
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "does not exist"
        raise DataError(f"{path}: {what}")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise DataError(f"{path}: is no UTF-8 text (byte {fault.start:,})") from None
    except OSError as fault:
        raise DataError(f"{path}: could not be read: {fault.strerror}") from None


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file with their ends, or raise `DataError`; it is not read whole."""
    if not path.is_file():
        read_text(path)  # says what is wrong
    place = 0
    try:
        with path.open("rb") as file:
            for line in file:
                yield line.decode("utf-8" if place else "utf-8-sig")
                place += len(line)
    except UnicodeDecodeError as fault:
        raise DataError(f"{path}: is no UTF-8 text (byte {place + fault.start:,})") from None
    except OSError as fault:
        raise DataError(f"{path}: could not be read: {fault.strerror}") from None


def json_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield number (from 0) and content of every record of a file with one JSON list.

    Raises `DataError` that names the record where the file breaks off or is no JSON.
    """
    text = read_text(path)
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    place = _skip(text, 0)
    if not text[place:]:
        raise DataError(f"{path}: is an empty file, expected a JSON list of records")
    if text[place] != "[":
        raise DataError(f"{path}: begins with {text[place : place + 20]!r}, expected a JSON list")
    place = _skip(text, place + 1)
    number = 0
    if text[place : place + 1] == "]":
        return
    while True:
        try:
            record, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as fault:
            raise DataError(f"{path}: {_broken(fault, text, place, number)}") from None
        yield number, record
        place = _skip(text, place)
        mark = text[place : place + 1]
        if mark == "]":
            break
        if mark != ",":
            ends = "breaks off" if not mark else f"has {mark!r} instead of a comma"
            raise DataError(f"{path}: the JSON list {ends} after record {number}")
        place = _skip(text, place + 1)
        number += 1
    if _skip(text, place + 1) != len(text):
        raise DataError(f"{path}: goes on after the end of the JSON list")


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _broken(fault: Exception, text: str, place: int, number: int) -> str:
    at = getattr(fault, "pos", place)
    if at >= len(text.rstrip()) or "Unterminated" in str(fault):
        return f"the JSON breaks off in record {number}; the file is incomplete"
    line = text.count("\n", 0, at) + 1
    reason = getattr(fault, "msg", str(fault) or "nested too deeply")
    return f"record {number} is no valid JSON (line {line}: {reason})"


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number (from 1) and content of every object of a JSON Lines file."""
    for number, whole in enumerate(text_lines(path), start=1):
        line = whole.removesuffix("\n")
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as fault:
            reason = getattr(fault, "msg", str(fault))
            raise DataError(f"{path}, line {number}: is no valid JSON ({reason})") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, found {line[:30]!r}")
        yield number, record


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number (from 1; the header is line 1) and cells by name of a CSV file.

    Raises `DataError` for a row with more or fewer cells than the header.
    """
    reader = csv.reader(_csv_lines(path), strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise DataError(f"{path}: is an empty file, expected a CSV table with a header")
        if len(set(header)) != len(header):
            raise DataError(f"{path}: a column stands in the header twice: {', '.join(header)}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, "
                    f"but the header has {len(header)}"
                )
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as fault:
        raise DataError(f"{path}, line {reader.line_num}: is no valid CSV ({fault})") from None


def _csv_lines(path: Path) -> Iterator[str]:
    """Yield lines that end as CSV lines may: by a line feed, a carriage return or both."""
    for line in text_lines(path):
        if "\r" in line:
            yield from io.StringIO(line, newline="")
        else:
            yield line


def require_columns(path: Path, found: dict[str, Any], wanted: list[str]) -> None:
    """Raise `DataError` where a named column is not in the table."""
    for name in wanted:
        if name not in found:
            there = ", ".join(found)
            raise DataError(f"{path}: has no column {name!r}; there are {there}")


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

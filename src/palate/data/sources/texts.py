"""Text, JSON and CSV files read as they come, with the line or record named where one is broken."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from palate.errors import DataError

_CHUNK: Final = 1 << 20
_LIMIT: Final = 1 << 28
_SPACE: Final = " \t\r\n"
_AFTER: Final = (",", ":", "]", "}", *_SPACE)


def read_text(path: Path) -> str:
    """Read a UTF-8 text file (a byte order mark is dropped), or raise `DataError`."""
    require_file(path)
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise DataError(f"{path}: is no UTF-8 text (byte {fault.start:,})") from None
    except OSError as fault:
        raise DataError(f"{path}: could not be read: {fault.strerror}") from None


def require_file(path: Path) -> None:
    """Raise `DataError` where there is no such file."""
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "does not exist"
        raise DataError(f"{path}: {what}")


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file with their ends, or raise `DataError`; it is not read whole."""
    require_file(path)
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


class JsonText:
    """The text of a JSON file, read a megabyte at a time, with a place that only goes forward.

    What was read is forgotten, so a file may be larger than memory; one value may not be (256 MB).
    """

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.path = path
        self.line = 1
        self.cut = False  # whether the text ended within a value or a list
        self.read = 0
        self._file = path.open("rb")
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object)
        self._text = ""
        self._place = 0
        self._ended = False

    def __enter__(self) -> JsonText:  # noqa: PYI034 - beartype checks no Self here
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def peek(self) -> str:
        """Return the next character that is no space, without going past it; "" at the end."""
        while True:
            text, place = self._text, self._place
            while place < len(text) and text[place] in _SPACE:
                place += 1
            self._place = place
            if place < len(text) or not self._more():
                return text[place : place + 1] or self._text[self._place : self._place + 1]

    def take(self) -> str:
        """Return the next character that is no space, and go past it."""
        mark = self.peek()
        self._place += len(mark)
        return mark

    def start(self, length: int = 20) -> str:
        """Return what comes next, for a sentence about it."""
        self.peek()
        return self._text[self._place : self._place + length]

    def value(self, what: str) -> Any:
        """Return the next value, and go past it; `what` names it in the sentence of a `DataError`."""
        self.peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._place)
            except (ValueError, RecursionError) as fault:
                if not self._may_go_on(fault) or not self._more():
                    raise DataError(f"{self.path}: {self._broken(fault, what)}") from None
                continue
            # a number may go on in what was not read yet: "0." is a 0 with something behind it
            if self._text[end : end + 1] not in _AFTER:
                start = self._place
                if self._more():
                    continue
                end -= start - self._place
            self._place = end
            return found

    def _may_go_on(self, fault: Exception) -> bool:
        """Whether more text may mend the fault: it broke near the end of what was read."""
        at = getattr(fault, "pos", None)
        if at is None or isinstance(fault, RecursionError):
            return False
        return "Unterminated" in str(fault) or at >= len(self._text) - 16

    def _more(self) -> bool:
        if self._ended:
            return False
        if len(self._text) - self._place > _LIMIT:
            raise DataError(f"{self.path}: holds one value of more than {_LIMIT >> 20} MB")
        try:
            data = self._file.read(max(_CHUNK, len(self._text) - self._place))
            more = self._utf8.decode(data, final=not data)
        except UnicodeDecodeError as fault:
            at = self.read + fault.start - (len(fault.object) - len(data))
            raise DataError(f"{self.path}: is no UTF-8 text (byte {at:,})") from None
        except OSError as fault:
            raise DataError(f"{self.path}: could not be read: {fault.strerror}") from None
        self.read += len(data)
        self._ended = not data
        self.line += self._text.count("\n", 0, self._place)
        self._text = self._text[self._place :] + more
        self._place = 0
        return not self._ended

    def _broken(self, fault: Exception, what: str) -> str:
        at = getattr(fault, "pos", self._place)
        if self._ended and (at >= len(self._text.rstrip()) or "Unterminated" in str(fault)):
            self.cut = True
            return f"the JSON breaks off in {what}; the file is incomplete"
        line = self.line + self._text.count("\n", 0, at)
        reason = getattr(fault, "msg", str(fault) or "nested too deeply")
        return f"{what} is no valid JSON (line {line}: {reason})"


def json_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield number (from 0) and content of every record of a file with one JSON list, as they are read.

    Raises `DataError` that names the record where the file breaks off or is no JSON.
    """
    with JsonText(path) as text:
        mark = text.peek()
        if not mark:
            raise DataError(f"{path}: is an empty file, expected a JSON list of records")
        if mark != "[":
            raise DataError(f"{path}: begins with {text.start()!r}, expected a JSON list")
        yield from json_items(text, "record")
        if text.peek():
            raise DataError(f"{path}: goes on after the end of the JSON list")


def json_items(text: JsonText, what: str) -> Iterator[tuple[int, Any]]:
    """Yield number (from 0) and content of the items of the list that comes next."""
    text.take()
    number = 0
    if text.peek() == "]":
        text.take()
        return
    while True:
        yield number, text.value(f"{what} {number}")
        mark = text.take()
        if mark == "]":
            return
        if mark != ",":
            text.cut = not mark
            ends = "breaks off" if not mark else f"has {mark!r} instead of a comma"
            raise DataError(f"{text.path}: the JSON list {ends} after {what} {number}")
        number += 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, and refuse a key that stands there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number (from 1) and content of every object of a JSON Lines file."""
    for number, whole in enumerate(text_lines(path), start=1):
        line = whole.removesuffix("\n")
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_object)
        except (ValueError, RecursionError) as fault:
            reason = getattr(fault, "msg", str(fault))
            raise DataError(f"{path}, line {number}: is no valid JSON ({reason})") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, found {line[:30]!r}")
        yield number, record


def csv_rows(path: Path, separator: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number (from 1; the header is line 1) and cells by name of a CSV file.

    Raises `DataError` for a row with more or fewer cells than the header.
    """
    reader = csv.reader(_csv_lines(path), delimiter=separator, strict=True)
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

"""WebDataset tars: the files of one image follow each other and have its key, the name up to the first dot."""

from __future__ import annotations

import json
import tarfile
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple, final

from palate.data.images import SUFFIXES
from palate.data.urls import faults_of_urls, is_url
from palate.errors import DataError
from palate.scoring.packed import Asking, PackedFile, PackedSource, mark_of
from palate.scoring.pieces import Piece, Row, Survey

_PROMPT = ("prompt", "caption")
_OWN = "__palate__"
# So many tars are looked through before the run; of more, and of those behind a URL, each is one piece.
_LOOKED_THROUGH = 100


@final
@dataclass(frozen=True)
class Tars(PackedSource):
    """Images in tars. ``starts`` has the places in bytes where images begin in each tar, where they are known."""

    files: tuple[PackedFile, ...]
    asking: Asking
    starts: tuple[array[int] | None, ...]

    def pieces(self, size: int) -> Iterator[Piece]:
        """Give parts of the tars that were looked through, and all others whole."""
        asked = self.asking.digest()
        for file, starts in zip(self.files, self.starts, strict=True):
            if starts is None:
                yield TarPiece(file.place, file, self.asking, asked)
                continue
            for first in range(0, len(starts), size):
                count = min(size, len(starts) - first)
                name = f"{file.place}, images {first + 1} to {first + count}"
                yield TarPiece(name, file, self.asking, asked, starts[first], count)


@final
@dataclass(frozen=True, slots=True)
class TarPiece(Piece):
    """``count`` images of a tar from the byte ``start`` on, or all from there."""

    name: str
    file: PackedFile
    asking: Asking
    asked: str
    start: int = 0
    count: int | None = None

    def rows(self) -> Iterator[Row]:
        """Read images and prompts, one after the other."""
        with faults_of_urls(self.file.place), self.file.stream() as stream:
            stream.seek(self.start)
            for key, members in islice(_groups(stream, self.file), self.count):
                yield _row(key, members, self.file, self.asking)

    def mark(self) -> str:
        """Hash the tar's name, size and time or ETag, and which part it is."""
        return mark_of(self.file, self.asked, self.start, self.count)


class _Member(NamedTuple):
    """One file of a tar: the key and what comes after its dot, where it begins, and how its content is read."""

    key: str
    ending: str
    tar: tarfile.TarFile
    facts: tarfile.TarInfo

    def read(self) -> bytes:
        found = self.tar.extractfile(self.facts)
        return b"" if found is None else found.read()


def survey_tars(files: tuple[PackedFile, ...], asking: Asking) -> tuple[Tars, Survey]:
    """Look through tars on this machine, unless they are many, without reading what they hold.

    Raises DataError for a tar that breaks off, for an image that is there twice, and for one without a prompt.
    """
    few = len(files) <= _LOOKED_THROUGH and not any(is_url(file.place) for file in files)
    starts = tuple(_starts(file, asking) if few else None for file in files)
    tars = Tars(files, asking, starts)
    rows = sum(map(len, starts)) if few else None  # type: ignore[arg-type]
    if rows == 0:
        raise DataError(f"{files[0].place}: holds no image")
    return tars, tars.survey(rows)


def _starts(file: PackedFile, asking: Asking) -> array[int]:
    """Find where each image begins."""
    starts, images = array("Q"), 0
    with file.open() as stream:
        for key, members in _groups(stream, file):
            inside = list(members)
            starts.append(inside[0].facts.offset)
            if asking.own and not {"txt", "json"} & {member.ending for member in inside}:
                asking.of(file, key, None)
            found = [one.ending for one in inside if f".{one.ending}" in SUFFIXES]
            _refuse_several(found, key, file)
            images += len(found)
    if starts and not images:
        raise DataError(f"{file.place}: holds no image")
    return starts


def _refuse_several(images: Collection[str], key: str, file: PackedFile) -> None:
    if len(images) > 1:
        raise DataError(f"{file.place}: '{key}' has several images: {', '.join(images)}")


def _groups(stream: Any, file: PackedFile) -> Iterator[tuple[str, Iterator[_Member]]]:
    """Give each image's key with its members, which are to be taken before the next image is asked for."""
    seen = set()
    for key, members in groupby(_members(stream, file), key=lambda member: member.key):
        if key in seen:
            raise DataError(
                f"{file.place}: '{key}' is there twice; expected its files one after the other"
            )
        seen.add(key)
        yield key, members


def _members(stream: Any, file: PackedFile) -> Iterator[_Member]:
    """Go through the files of a tar to its very end.

    Hidden ones, folders and what Palate's own export adds (`__palate__/choices.jsonl`) are passed over.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (facts := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # they would all stay in memory
                folder, _, name = facts.name.removeprefix("./").rpartition("/")
                stem, _, ending = name.partition(".")
                if facts.isfile() and stem and folder != _OWN:
                    key = f"{folder}/{stem}" if folder else stem
                    if not _is_text(key):
                        raise DataError(f"{file.place}: {facts.name!r} is no name in UTF-8")
                    yield _Member(key, ending.lower(), tar, facts)
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise DataError(
                    f"{file.place}: is damaged or breaks off after {tar.offset:,} bytes"
                )
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{file.place}: is no whole tar ({error})") from error


def _row(key: str, members: Iterator[_Member], file: PackedFile, asking: Asking) -> Row:
    """Read one image and its prompt."""
    images, texts = {}, {}
    for member in members:
        if f".{member.ending}" in SUFFIXES:
            images[member.ending] = member.read()
        elif member.ending in {"txt", "json"} and asking.own:
            if member.ending in texts:
                raise DataError(f"{file.place}: '{key}' has two files .{member.ending}")
            texts[member.ending] = member.read()
    name = f"{file.name}/{key}"
    _refuse_several(images, key, file)
    prompt = asking.of(file, key, _beside(texts, f"{file.place}: '{key}'"))
    if not images:
        return Row(name, prompt, fault=f"{file.name}.tar has no image for '{key}'")
    return Row(name, prompt, data=next(iter(images.values())))


def _beside(texts: dict[str, bytes], where: str) -> str | None:
    """Find the prompt beside an image: the text, or a field of the JSON."""
    try:
        if "txt" in texts:
            return texts["txt"].decode("utf-8-sig").strip()
        facts = json.loads(texts["json"]) if "json" in texts else {}
        found = next((facts[name] for name in _PROMPT if name in facts), None)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{where} has a broken text ({error})") from None
    if found is not None and not isinstance(found, str):
        raise DataError(f"{where} has the prompt {found!r}, expected a text")
    if found is not None and not _is_text(found):
        raise DataError(f"{where} has half a character in its prompt and is no UTF-8 text")
    return found


def _is_text(text: str) -> bool:
    """JSON can spell half a character, and a name in a tar may be of any bytes; no table holds them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Images packed into large files: which files those are, and the prompts of what is inside."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.images import SUFFIXES
from palate.data.urls import UrlFile, find_below, is_url, look_at_url, open_url, stream_url
from palate.errors import DataError
from palate.scoring.pieces import Piece, Row, Source, Survey
from palate.scoring.prompts import GivenPrompts, prompt_of

_IMAGE = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes", "image_bytes")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file that holds images, as it was when the run began.

    ``name`` begins the keys of its images, ``place`` is a path or a URL; ``size`` in bytes.
    """

    name: str
    place: str
    size: int
    state: str

    def stream(self) -> Any:
        """Open it for reading in order."""
        return stream_url(self.place) if is_url(self.place) else self.open()

    def open(self) -> Any:
        """Open it for reading here and there."""
        if is_url(self.place):
            return open_url(self.place)
        try:
            return Path(self.place).open("rb")
        except OSError as error:
            raise DataError(f"{self.place}: could not be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Asking:
    """Where the prompts come from: one text, a file of prompts, or what stands beside each image."""

    prompt: str | None = None
    given: GivenPrompts | None = None
    need: bool = True

    @property
    def own(self) -> bool:
        """The prompts beside the images are those to be used."""
        return self.prompt is None and self.given is None

    def of(self, file: PackedFile, key: str, beside: str | None) -> str:
        """Give the prompt of an image; raises DataError where there is none."""
        if not self.own:
            return prompt_of([f"{file.name}/{key}", key], self.prompt, self.given)
        if beside is None and self.need:
            raise DataError(
                f"{file.place}: '{key}' has no prompt; give --prompt TEXT or --prompts FILE"
            )
        return beside or ""

    def digest(self) -> str:
        """Hash it."""
        lines = None if self.given is None else sorted(self.given.prompts.items())
        return hashlib.sha256(json.dumps([self.prompt, lines, self.need]).encode()).hexdigest()


class PackedSource(Source):
    """Images in packed files; the rows of a piece are read as they are asked for."""

    files: tuple[PackedFile, ...]
    asking: Asking

    @abstractmethod
    def pieces(self, size: int) -> Iterator[Piece]:
        """Cut the rows into pieces of about a size, as far as files can be cut."""

    def rows(self) -> Iterator[Row]:
        """Give the rows in their order."""
        for piece in self.pieces(512):
            yield from piece.rows()

    def survey(self, rows: int | None) -> Survey:
        """Say what is known of the files; ``rows`` is None where nobody counted."""
        digest = hashlib.sha256(self.asking.digest().encode())
        state = hashlib.sha256()
        for file in self.files:
            digest.update(json.dumps([file.name, file.size]).encode())
            state.update(json.dumps([file.size, file.state]).encode())
        size = sum(file.size for file in self.files)
        return Survey(rows, rows, rows, size, digest.hexdigest(), state.hexdigest())


def packed_kind(paths: Sequence[Path | str]) -> str | None:
    """Tell whether paths, URLs or patterns name tars (``.tar``), Parquet with images inside (``.parquet``) or neither.

    Raises DataError where they name several kinds.
    """
    _refuse_compressed(paths)
    kinds = {_kind(path): str(path) for path in paths}
    packed = kinds.keys() - {None}
    if packed and len(kinds) > 1:
        raise DataError(
            f"{' and '.join(kinds.values())}: are of several kinds, which are scored apart"
        )
    return packed.pop() if packed else None


def _kind(path: Path | str) -> str | None:
    text = str(path)
    if text.endswith(".tar"):
        return ".tar"
    if text.endswith(".parquet"):
        one = expand(text)[0]
        return _kind_of_rows(one if is_url(one) else Path(one))
    if PurePosixPath(text).suffix.lower() in {*SUFFIXES, ".csv", ".jsonl"}:
        return None
    if is_url(path):
        files = [file.url for file in find_below(text)]
    else:
        files = [entry.path for entry in os.scandir(path)] if Path(path).is_dir() else []
    endings = {os.path.splitext(file)[1].lower() for file in files}  # noqa: PTH122 - a million times
    first = min((file for file in files if file.endswith(".parquet")), default=None)
    if ".tar" in endings and not endings.isdisjoint(SUFFIXES):
        raise DataError(f"{text}: holds tars and images; expected one of both")
    if endings.isdisjoint(SUFFIXES):
        _refuse_compressed(files)  # beside images they may be anything
    if ".tar" in endings:
        return ".tar"
    if first is None or not endings.isdisjoint(SUFFIXES):
        return None
    return _kind_of_rows(first if is_url(first) else Path(first))


def _refuse_compressed(places: Iterable[Path | str]) -> None:
    for place in places:
        if str(place).lower().endswith(_COMPRESSED):
            raise DataError(f"{place}: is a compressed tar; expected a plain one, so unpack it")


def _kind_of_rows(place: Path | str) -> str | None:
    schema = schema_of(place)
    return ".parquet" if schema is not None and image_column(schema) else None


def schema_of(place: Path | str) -> Any | None:
    """Read the schema of a Parquet file; None if it cannot be read, which its reader will say."""
    try:
        with open_url(place) if isinstance(place, str) else place.open("rb") as file:
            return pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return None


def image_column(schema: Any) -> str | None:
    """Find the column of a table that holds the bytes of images, or None."""
    for name in _IMAGE:
        kind = schema.field(name).type if name in schema.names else pa.null()
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return f"{name}.bytes"
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return name
    return None


def find_packed(paths: Sequence[Path | str], ending: str) -> tuple[PackedFile, ...]:
    """List the files of an ending that some paths, URLs, patterns or folders name, in the order of their names.

    Raises DataError for one that does not exist, and for two of one name.
    """
    found = [file for path in paths for file in _below(path, ending)]
    names: dict[str, str] = {}
    for file in found:
        if (other := names.setdefault(file.name, file.place)) != file.place:
            raise DataError(
                f"{file.place}: is called like {other}; expected files of different names"
            )
    if len(names) < len(found):
        raise DataError(f"{found[0].place}: was given twice")
    return tuple(found)


def expand(text: str) -> list[str]:
    """Write out the numbers of a pattern.

    >>> expand("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    hit = _BRACES.search(text)
    if hit is None:
        return [text]
    first, last = hit.groups()
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    return [
        whole for n in numbers for whole in expand(f"{text[: hit.start()]}{n}{text[hit.end() :]}")
    ]


def mark_of(file: PackedFile, asked: str, *part: object) -> str:
    """Hash what a part of a file is known by."""
    facts = [file.name, file.size, file.state, asked, *part]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _below(path: Path | str, ending: str) -> Iterator[PackedFile]:
    for one in expand(str(path)):
        yield from _at_url(one, ending) if is_url(one) else _at_path(Path(one), ending)


def _at_path(path: Path, ending: str) -> Iterator[PackedFile]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    inside = sorted(path.glob(f"*{ending}")) if path.is_dir() else [path]
    base = path if path.is_dir() else path.parent
    for file in inside:
        name = file.relative_to(base).with_suffix("").as_posix()
        facts = file.stat()
        yield PackedFile(name, str(file.resolve()), facts.st_size, str(facts.st_mtime_ns))


def _at_url(url: str, ending: str) -> Iterator[PackedFile]:
    found: Iterable[UrlFile | None] = [look_at_url(url)]
    if url.endswith(ending):
        if None in found:
            raise DataError(f"{url}: does not exist")
        base = posixpath.dirname(url)
    else:
        found, base = find_below(url), url.rstrip("/")
    for file in cast("Iterable[UrlFile]", found):
        if file.url.endswith(ending):
            name = file.url.removeprefix(f"{base}/").removesuffix(ending)
            yield PackedFile(name, file.url, file.size, file.state)

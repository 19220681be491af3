"""What every shape needs: one dimension, choices that fit, image files in place, and a run record."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from palate.data.images import SUFFIXES, describe_bytes, read_image
from palate.data.records import Choice
from palate.data.sources.common import inside
from palate.data.tables import Dataset, to_rows
from palate.errors import DataError
from palate.runs import RECORD, atomic_path, fresh_run, hash_path, track
from palate.runs.files import remove

Images = Literal["link", "copy", "none"]
"""How image files get into an export: hard links (copies where the disk allows none), copies, not at all."""

_NO_LINK: Final = {
    errno.EXDEV,
    errno.EPERM,
    errno.ENOTSUP,
    errno.EMLINK,
    errno.EACCES,
    errno.ENOSYS,
}
_LEFT_BEHIND: Final = re.compile(r"\..*\.tmp[0-9a-f]{8}(\..*)?")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .+-]*\.json")
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9_]+")
_ANY_SIZE: Final = 1 << 62
_SUFFIX: Final = {"JPEG": ".jpg", "TIFF": ".tif"}
_FIRST: Final = 10


@dataclass(frozen=True)
class ExportSettings:
    """What can be said of any shape.

    `dimension` picks the choices of one dimension; None takes the only one there is, or all where
    the shape holds several. `images` says how image files come along. `leave_out` leaves choices
    out that the shape cannot hold, and counts them; else they are refused.
    """

    dimension: str | None = None
    images: Images = "link"
    leave_out: bool = False


def of_dimension(dataset: Dataset, wanted: str | None, shape: str, *, several: bool = False) -> Any:
    """Return the table of the choices of one dimension, or of all where the shape holds `several`.

    Raises `DataError` where there is no choice, none of that dimension, or more dimensions than fit.
    """
    choices = dataset.choices
    if not len(choices):
        raise DataError(f"{dataset.folder}: holds no choice to export")
    counts = Counter(choices.column("dimension").to_pylist())
    told = ", ".join(f"{name} ({number:,})" for name, number in sorted(counts.items()))
    if wanted is None:
        if len(counts) > 1 and not several:
            raise DataError(
                f"{dataset.folder}: {shape} holds one dimension, and there are {len(counts)}: "
                f"{told}; choose one with --dimension"
            )
        return choices
    if wanted not in counts:
        raise DataError(f"{dataset.folder}: no choice judges {wanted!r}; there are {told}")
    return choices.filter(pc.equal(choices.column("dimension"), wanted))


def only_fitting(
    choices: Any, shape: str, why: Callable[[Choice], str | None], *, leave_out: bool
) -> tuple[Any, dict[str, Any]]:
    """Return the choices that a shape can hold, and a count of the others with the first by name.

    `why` says what keeps a choice out, or None. Raises `DataError` for such choices unless they may
    be left out, and where none is left.
    """
    fits: list[bool] = []
    first = ""
    for choice in to_rows(choices, Choice):
        fault = why(choice)
        fits.append(fault is None)
        if fault is not None and not first:
            first = f"choice {choice.choice!r}: {fault}"
    count = fits.count(False)
    if count and (not leave_out or count == len(fits)):
        end = "nothing is left to export" if leave_out else "--leave-out leaves them out"
        raise DataError(
            f"{count:,} of {len(fits):,} choices do not fit into {shape}, first {first}; {end}"
        )
    if not count:
        return choices, {}
    return choices.filter(pa.array(fits)), {"left_out": {"count": count, "first": first}}


def picked(ranks: tuple[int, ...]) -> int | None:
    """Return the place of the only best image where all others are equal, or None.

    >>> picked((2, 1, 2)), picked((1, 2, 3)), picked((1, 1, 2)), picked((3, 1))
    (1, None, None, 1)
    """
    best = min(ranks)
    others = [rank for rank in ranks if rank != best]
    if len(others) != len(ranks) - 1 or len(set(others)) != 1:
        return None
    return ranks.index(best)


def not_picked(ranks: tuple[int, ...]) -> str:
    """Say why ranks are no pick-one answer."""
    if ranks.count(min(ranks)) > 1:
        return f"its ranks {ranks} tie at the best"
    return f"its ranks {ranks} tell more than which image is the best"


@dataclass(frozen=True)
class Anonymous:
    """Names of people as 64 hex digits that only who has the key can trace back (HMAC-SHA256)."""

    key: str

    @classmethod
    def of(cls, dataset: Dataset, key: str | None) -> Anonymous:
        """Take the key that was given, or the content of the table of choices.

        So the same data set gives the same names, and two data sets do not.
        """
        return cls(key or hash_path(dataset.folder / "choices.parquet"))

    def name(self, choice: Choice) -> str:
        """Name the person of a choice; a person that is unknown is another one in every choice."""
        known = choice.annotator is not None
        text = f"annotator {choice.annotator}" if known else f"choice {choice.choice}"
        return hmac.new(self.key.encode(), text.encode(), hashlib.sha256).hexdigest()


def key_mark(key: str | None) -> str | None:
    """Return what the run record says of a key: enough to tell two apart, too little to find it."""
    return None if key is None else hashlib.sha256(f"key {key}".encode()).hexdigest()[:8]


def details_of(row: Any) -> dict[str, Any]:
    """Return the details of a choice or an image as an object, empty where there are none."""
    found: dict[str, Any] = json.loads(row.details) if row.details else {}
    return found


def is_inside(name: str) -> bool:
    """Whether a name of a source stays inside a folder, so that a file may have it."""
    try:
        inside(Path(), name)
    except DataError:
        return False
    return True


def safe_name(key: str, number: int) -> str:
    """Return a name for an image that any disk and tool takes: its number, and what is plain of its key.

    It holds no dot, as tools for tars end the key at the first one, and sorts as the numbers do.

    >>> safe_name("train/a.b.jpg", 7)
    '00000007-train-a-b-jpg'
    """
    plain = _NOT_PLAIN.sub("-", key)[:60].strip("-")
    return f"{number:08}-{plain}".rstrip("-")


def file_suffix(file: Path | None, otherwise: str = ".jpg") -> str:
    """Return the ending of an image file in small letters, if it is one of an image.

    >>> file_suffix(Path("a.PNG")), file_suffix(Path("a.b.c")), file_suffix(None)
    ('.png', '.jpg', '.jpg')
    """
    suffix = "" if file is None else file.suffix.lower()
    return suffix if suffix in SUFFIXES else otherwise


def file_name(choices: Any, prefix: str, otherwise: str) -> str:
    """Return the name of the JSON file that all choices came from, as their source tells; else another.

    A source such as ``hpd-v1/preference_test.json`` is the name after its prefix.
    """
    sources = pc.unique(choices.column("source")).to_pylist()
    name = sources[0].removeprefix(prefix) if len(sources) == 1 else ""
    known = name != "" and sources[0].startswith(prefix)
    plain = _PLAIN_NAME.fullmatch(name) is not None and name != RECORD
    return name if known and plain else otherwise


def content_suffix(data: bytes, name: str) -> str:
    """Return the ending for image bytes by their content, such as ``.jpg``.

    Raises `ImageError` where they are no image.
    """
    _, kind = describe_bytes(data, name, max_pixels=_ANY_SIZE, decode=False)
    return _SUFFIX.get(kind, f".{kind.lower()}")


def locate(dataset: Dataset, keys: Iterable[str], images: Images = "link") -> dict[str, Path]:
    """Return where the files of images are, by key; nothing for ``"none"``.

    Raises `DataError` with the count and the first ten where files are missing.
    """
    if images == "none":
        return {}
    table = dataset.images
    paths = dict(
        zip(table.column("image").to_pylist(), table.column("path").to_pylist(), strict=True)
    )
    found: dict[str, Path] = {}
    missing: list[str] = []
    for key in dict.fromkeys(keys):
        path = paths.get(key)
        file = None if path is None else dataset.folder / path
        if file is not None and file.is_file():
            found[key] = file
        else:
            missing.append(key)
    if missing:
        more = ", …" if len(missing) > _FIRST else ""
        raise DataError(
            f"{dataset.folder}: {len(missing):,} of {len(missing) + len(found):,} images have no file: "
            f"{', '.join(map(repr, missing[:_FIRST]))}{more}; --without-images exports without them"
        )
    return found


def flat_keys(choices: Any) -> list[str]:
    """Return the keys of all images that choices show, in order, each as often as it is shown."""
    keys: list[str] = pc.list_flatten(choices.column("images")).to_pylist()
    return keys


def checked_bytes(key: str, file: Path, sha256: str | None) -> bytes:
    """Read an image file as it is. Raises `DataError` where it is not what was imported."""
    data = read_image(file)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"image {key!r}: {file.name} has changed since it was imported")
    return data


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)
    except OSError as fault:
        if fault.errno in _NO_LINK:
            return False
        raise
    return True


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records as a JSON list, one a line, as they come; return how many there are."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for count, record in enumerate(records, start=1):
            file.write(("[\n" if count == 1 else ",\n") + json.dumps(record, ensure_ascii=False))
        file.write("\n]\n" if count else "[]\n")
    return count


@dataclass
class Places:
    """The names that an export writes; each takes its final name when all are whole."""

    out: Path
    names: list[str] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def path(self, name: str) -> Path:
        """Give a name to write a file or a folder to. What is asked for first appears last."""
        self.names.append(name)
        return self.stack.enter_context(atomic_path(self.out / name))


def place_images(files: Iterable[tuple[str, Path]], places: Places, images: Images) -> int:
    """Link or copy image files to the names that records give them; return how many there are.

    Raises `DataError` where two files would have one name, or one that the export itself needs.
    """
    own = {RECORD, *places.names}
    placed: dict[Path, Path] = {}
    tops: dict[str, Path] = {}
    for name, source in track(files, "linking images" if images == "link" else "copying images"):
        relative = inside(Path(), name)
        before = placed.setdefault(relative, source)
        if before != source:
            raise DataError(f"two files would be called {name!r}: {before.name} and {source.name}")
        top, *rest = relative.parts
        if top in own:
            raise DataError(f"an image would be called {top!r}, as a file of the export itself")
        if top not in tops:
            tops[top] = places.path(top)
        target = tops[top].joinpath(*rest)
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if images != "link" or not _linked(source, target):
            shutil.copyfile(source, target)
    return len(placed)


def write_export(
    shape: str,
    dataset: Dataset,
    out: Path,
    settings: object,
    write: Callable[[Places], dict[str, Any]],
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Run what writes a shape, with a run record; all files appear or none. Return its counts.

    The same export again is not repeated. `overwrite` replaces a former export once the new one is
    whole. A folder that holds images of the data set is not overwritten.
    """
    if overwrite and out.exists():
        _refuse_own_images(dataset, out)
    tables = {kind: dataset.folder / f"{kind}.parquet" for kind in ("images", "choices")}
    inputs: dict[str, Path | str] = {kind: path for kind, path in tables.items() if path.exists()}
    with fresh_run(f"data export {shape}", out, settings, inputs, overwrite=overwrite) as run:
        if not run.finished:
            _sweep(run.out)
            places = Places(run.out)
            with places.stack:
                result = write(places)
            run.finish(result, files=places.names)
        return run.result


def _refuse_own_images(dataset: Dataset, out: Path) -> None:
    """An export may be imported again, and then its images are those of a data set."""
    paths = dataset.images.column("path").to_pylist()
    folders = {(dataset.folder / path).parent for path in paths if path is not None}
    base = out.resolve()
    if any(folder.resolve().is_relative_to(base) for folder in folders):
        raise DataError(f"{out}: holds images of the data set; choose another --out")


def _sweep(out: Path) -> None:
    """Remove what a run that was killed left under temporary names."""
    for entry in out.iterdir():
        if _LEFT_BEHIND.fullmatch(entry.name):
            remove(entry)


def numbered(taken: Iterable[int]) -> Iterator[int]:
    """Count from 0 without the numbers that are taken.

    >>> from itertools import islice
    >>> list(islice(numbered([0, 2]), 3))
    [1, 3, 4]
    """
    known, number = set(taken), 0
    while True:
        if number not in known:
            yield number
        number += 1

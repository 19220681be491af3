"""Import images and prompts from WebDataset tars, and the choices that Palate's own tars hold.

The files of one sample follow each other and share their name up to the first dot: an image, a text
with the prompt (`.txt`), and facts (`.json`, with `prompt` or `caption` where there is no text). In tars
that `palate data export webdataset` wrote, the JSON has the row of the image, and all choices are the
last file of the last tar, `__palate__/choices.jsonl`.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from palate.data.images import MAX_BYTES, SUFFIXES
from palate.data.records import Choice, Image, json_text
from palate.data.sources.common import Found, Report, Row, Source, SourceSettings, require_keys
from palate.errors import DataError
from palate.runs import hash_text

CHOICES_MEMBER: Final = "__palate__/choices.jsonl"
"""The file of the last tar that holds all choices."""

_MAX_TEXT: Final = 16 << 20
_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_OWN: Final = frozenset({"image", "prompt", "generator", "seed", "settings", "details"})
_PROMPTS: Final = ("prompt", "caption")
_TEXTS: Final = frozenset({"txt", "json", "cls"})
_MOST: Final = 2**63 - 1
_END: Final[Any] = tarfile.EOFHeaderError  # type: ignore[attr-defined]


def webdataset(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open a tar, or a folder of tars in the order of their names; they are read once, from start to end.

    The key of an image is the name of its sample, or the key that Palate's JSON gives. Images lie in the
    tars, so `images` is refused. Faults name the tar and the sample.
    """
    if images is not None:
        raise DataError(f"{path}: the images lie inside the tars; give no folder of images")
    shards = _shards(path)
    inputs: dict[str, Path | str] = {"tar": path}
    if path.is_dir():
        told = [f"{one.name} {one.stat().st_size} {one.stat().st_mtime_ns}" for one in shards]
        inputs = {"tars": f"{len(shards):,} tars with the listing {hash_text(*told)}"}
    rows = partial(_rows, path, shards)
    return Source("webdataset", settings or SourceSettings(), inputs, rows)


def _shards(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: does not exist")
    found = sorted(
        one
        for one in path.iterdir()
        if one.name.lower().endswith(_SUFFIXES) and not one.name.startswith(".") and one.is_file()
    )
    if not found:
        raise DataError(f"{path}: holds no tar ({', '.join(_SUFFIXES)})")
    return found


@dataclass
class _Reading:
    """What is known so far: keys of images and choices, and where the choices were."""

    report: Report
    images: dict[str, int] = field(default_factory=dict)
    choices: set[str] = field(default_factory=set)
    choices_in: str | None = None


def _rows(path: Path, shards: list[Path], report: Report) -> Iterator[Row]:
    report.faults.source = str(path)
    reading = _Reading(report)
    for number, shard in enumerate(shards):
        try:
            for item in _samples(shard, report):
                if isinstance(item, _Member):
                    yield from _choices(item, shard, reading)
                else:
                    yield from _sample(item, number, shards, reading)
        except DataError as fault:
            # what a broken tar held up to there is kept, and the others can be used
            report.faults.rows += 1
            report.faults.add(shard.name, str(fault))


class _Info(tarfile.TarInfo):
    """A member; it tells the tar when its end was read, as a tar that breaks off just stops."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Info:
        try:
            return super().fromtarfile(tarfile)
        except _END:
            tarfile.ended = True  # type: ignore[attr-defined]
            raise


class _Tar(tarfile.TarFile):
    tarinfo = _Info
    ended = False


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of a tar that is read as a stream, so before the next one."""

    facts: tarfile.TarInfo
    tar: tarfile.TarFile

    def open(self) -> io.BufferedReader:
        """Open the content."""
        found = self.tar.extractfile(self.facts)
        assert isinstance(found, io.BufferedReader)
        return found


@dataclass
class _Sample:
    """The files of one name by what follows its first dot; how many others there were, or a fault."""

    key: str
    files: dict[str, bytes] = field(default_factory=dict)
    other: int = 0
    fault: str | None = None

    def add(self, ending: str, member: _Member) -> None:
        """Read a file of a kind that is known, and count the others."""
        if f".{ending}" not in SUFFIXES and ending not in _TEXTS:
            self.other += 1
        elif ending in self.files:
            self.fault = f"has two files .{ending}"
        elif member.facts.size > (limit := MAX_BYTES if f".{ending}" in SUFFIXES else _MAX_TEXT):
            self.fault = f"has {member.facts.size:,} bytes in .{ending}, the limit is {limit:,}"
        else:
            self.files[ending] = member.open().read()


def _samples(shard: Path, report: Report) -> Iterator[_Sample | _Member]:
    """Yield the samples of a tar, and the file of choices if there is one."""
    sample, ended = None, set[str]()
    for member in _members(shard, report):
        name = member.facts.name.removeprefix("./")
        folder, _, file = name.rpartition("/")
        stem, _, ending = file.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if sample is not None and (name == CHOICES_MEMBER or sample.key != key):
            yield sample
            ended.add(sample.key)
            sample = None
        if name == CHOICES_MEMBER:
            yield member
        elif not stem or not ending:
            report.count("hidden_files" if not stem else "files_left_out")
        else:
            if sample is None:
                sample = _Sample(key)
                if key in ended:
                    sample.fault = "was there before, expected its files one after the other"
            with _tar_faults():
                sample.add(ending.lower(), member)
    if sample is not None:
        yield sample


def _members(shard: Path, report: Report) -> Iterator[_Member]:
    """Yield the files of a tar to its very end; folders are passed over, links are counted."""
    with _tar_faults():
        tar = _Tar.open(shard, mode="r|*", encoding="utf-8")
    with tar:
        last = ""
        while True:
            with _tar_faults():
                facts = tar.next()
            if facts is None:
                break
            tar.members.clear()  # type: ignore[attr-defined]  # they would all stay in memory
            if not facts.isfile():
                if not facts.isdir():
                    report.count("links_left_out")
                continue
            last = facts.name
            if not _is_text(last):
                report.faults.rows += 1
                report.faults.add(shard.name, f"the name {last!r} is no UTF-8 text")
                continue
            yield _Member(facts, tar)
        if not tar.ended:
            raise DataError(f"is damaged or breaks off after {last!r}; the tar has no end")


@contextlib.contextmanager
def _tar_faults() -> Iterator[None]:
    """Turn what a broken tar raises into one sentence."""
    try:
        yield
    except (tarfile.TarError, EOFError) as fault:
        what = "breaks off" if "unexpected end" in str(fault) else "is no whole tar"
        raise DataError(f"{what} ({fault})") from None
    except OSError as fault:
        raise DataError(f"could not be read: {fault.strerror or fault}") from None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sample(sample: _Sample, number: int, shards: list[Path], reading: _Reading) -> Iterator[Row]:
    report = reading.report
    report.faults.rows += 1
    try:
        row = _new_image(sample, shards, reading)
    except DataError as fault:
        report.faults.add(f"{shards[number].name}, sample {sample.key!r}", str(fault))
        return
    reading.images[row.image] = number
    if sample.other:
        report.count("files_left_out", sample.other)
    data = next((sample.files[one] for one in sample.files if f".{one}" in SUFFIXES), None)
    if data is None:
        report.count("samples_without_image")
    yield Found(row, data=data)


def _new_image(sample: _Sample, shards: list[Path], reading: _Reading) -> Image:
    if sample.fault is not None:
        raise DataError(sample.fault)
    row = _image(sample, reading.report)
    if reading.choices_in is not None:
        raise DataError(
            f"comes after the choices in {reading.choices_in}, which are to be the last"
        )
    if row.image in reading.images:
        before = shards[reading.images[row.image]].name
        raise DataError(f"image {row.image!r} was there before, in {before}")
    return row


def _image(sample: _Sample, report: Report) -> Image:
    """The row of a sample. Raises `DataError` where the image or the prompt is missing or doubtful."""
    images = [ending for ending in sample.files if f".{ending}" in SUFFIXES]
    if len(images) > 1:
        raise DataError(f"has several images: {', '.join(images)}")
    facts = _facts(sample.files)
    own = facts.keys() == _OWN
    if not images and not own:
        raise DataError("has no image")
    text = _text(sample.files, "txt")
    if own:
        return _own_image(facts)
    told = next((facts.pop(name) for name in _PROMPTS if name in facts), None)
    if told is not None and not isinstance(told, str):
        raise DataError(f"its JSON has the prompt {str(told)[:40]!r}, expected a text")
    if text is not None:
        text = text.strip()
        if told is not None and told.strip() != text:
            report.count("texts_unlike_the_json")
            facts["json_prompt"] = told
    prompt = told if text is None else text
    if prompt is None:
        raise DataError("has no prompt: no .txt, and no prompt or caption in a .json")
    label = _text(sample.files, "cls")
    if label is not None:
        facts["cls"] = int(label) if label.strip().isdecimal() else label
    return _with_columns(sample.key, prompt, facts)


def _facts(files: Mapping[str, bytes]) -> dict[str, Any]:
    text = _text(files, "json")
    if text is None:
        return {}
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise DataError(f"its JSON is not valid ({getattr(fault, 'msg', fault)})") from None
    if not isinstance(facts, dict):
        raise DataError(f"its JSON is {text[:30]!r}, expected an object")
    return facts


def _text(files: Mapping[str, bytes], ending: str) -> str | None:
    if ending not in files:
        return None
    try:
        return files[ending].decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise DataError(f"its .{ending} is no UTF-8 text (byte {fault.start:,})") from None


def _own_image(facts: dict[str, Any]) -> Image:
    """A row of the table of images, as Palate's export writes it; no value is changed."""
    texts = dict.fromkeys(("generator", "settings", "details"), str)
    require_keys(facts, {"image": str, "prompt": str}, optional={**texts, "seed": int})
    return Image(**facts)


def _with_columns(key: str, prompt: str, facts: dict[str, Any]) -> Image:
    """A row of somebody else's facts: what has a column of the right kind goes there, the rest to details."""
    generator, seed, settings = facts.get("generator"), facts.get("seed"), facts.get("settings")
    columns: dict[str, Any] = {}
    if isinstance(generator, str):
        columns["generator"] = facts.pop("generator")
    if isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) <= _MOST:
        columns["seed"] = facts.pop("seed")
    if isinstance(settings, dict):
        columns["settings"] = json_text(facts.pop("settings"))
    return Image(key, prompt, details=json_text(facts), **columns)


def _choices(member: _Member, shard: Path, reading: _Reading) -> Iterator[Row]:
    """Yield the choices, one a line, each checked against the images that came before."""
    report = reading.report
    if reading.choices_in is not None:
        raise DataError(f"has choices, but those of {reading.choices_in} came before")
    reading.choices_in = shard.name
    for number, line in enumerate(_lines(member.open()), start=1):
        if not line.strip():
            continue
        report.faults.rows += 1
        try:
            choice = _new_choice(line, reading)
        except DataError as fault:
            report.faults.add(f"{shard.name}, {CHOICES_MEMBER}, line {number}", str(fault))
            continue
        reading.choices.add(choice.choice)
        yield choice


def _new_choice(line: bytes, reading: _Reading) -> Choice:
    choice = _choice(line)
    strange = next((key for key in choice.images if key not in reading.images), None)
    if strange is not None:
        raise DataError(f"choice {choice.choice!r} names the image {strange!r}, of no sample")
    if choice.choice in reading.choices:
        raise DataError(f"choice {choice.choice!r} was there before")
    return choice


def _lines(file: io.BufferedReader) -> Iterator[bytes]:
    while True:
        with _tar_faults():
            line = file.readline()
        if not line:
            return
        yield line


def _choice(line: bytes) -> Choice:
    try:
        facts = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as fault:
        raise DataError(f"is no UTF-8 text (byte {fault.start:,})") from None
    except (ValueError, RecursionError) as fault:
        raise DataError(f"is no valid JSON ({getattr(fault, 'msg', fault)})") from None
    texts = dict.fromkeys(("dimension", "annotator", "source", "details"), str)
    lists = {"images": list, "ranks": list}
    require_keys(facts, {"choice": str, "prompt": str, **lists}, optional=texts)
    if not all(isinstance(key, str) for key in facts["images"]):
        raise DataError("images holds something that is no text")
    if not all(isinstance(rank, int) and not isinstance(rank, bool) for rank in facts["ranks"]):
        raise DataError("ranks holds something that is no whole number")
    for name in ("dimension", "source"):
        # null stands for the column's default
        if facts.get(name, "") is None:
            del facts[name]
    return Choice(**facts | {name: tuple(facts[name]) for name in lists})

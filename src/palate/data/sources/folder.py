r"""Import a folder of images with their prompts, and the choices between them.

Prompts come from one of these places, and every image must have one:

- a prompts file: CSV or JSON Lines with `image` and `prompt` (`generator` and `seed` are known,
  other columns go to the details), or text with one `image<TAB>prompt` per line;
- a text file beside each image (`fox.png`, `fox.txt`);
- the path, by a pattern with the named group `prompt`;
- one prompt for all.

Choices are JSON Lines or CSV with `images` and either `ranks` or `best`. Images are named by their
path below the folder. In CSV, lists are separated by `|`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from palate.data.images import MAX_PIXELS
from palate.data.records import Choice, Image, json_text, pick_ranks
from palate.data.sources.common import (
    Faults,
    Imported,
    describe_image,
    find_images,
)
from palate.data.sources.texts import csv_rows, json_lines, read_text, require_columns
from palate.data.tables import to_table
from palate.errors import DataError
from palate.runs import track

SIMULACRA: Final = r"(?P<grade>[^/]+)/(?P<id>\d+)_(?P<prompt>.+)_(?P<k>\d+)"
"""The layout of the Simulacra Aesthetic Captions samples: `good/7939_a_sloth_2.png`."""

_SHOWN: Final = 5  # faults that are kept by name
_PROMPT_FILES: Final = ("prompts.csv", "prompts.jsonl", "prompts.txt")
_CHOICE_KEYS: Final = (
    "images",
    "ranks",
    "best",
    "prompt",
    "dimension",
    "annotator",
    "choice",
    "details",
)


@dataclass(frozen=True)
class FolderSettings:
    """How a folder of images is read.

    `prompt` is one prompt for all images; `pattern` takes it from the path (see `SIMULACRA`), where
    `_` stands for a space. Without either, a prompts file or text files beside the images are read.
    """

    prompt: str | None = None
    pattern: str | None = None
    generator: str | None = None
    source: str = "folder"
    allow_errors: bool = False
    decode: bool = True
    max_pixels: int = MAX_PIXELS


def read_folder(
    folder: Path,
    prompts: Path | None = None,
    choices: Path | None = None,
    settings: FolderSettings | None = None,
) -> Imported:
    """Read a folder of images with their prompts, and choices between them if a file is given.

    Raises `DataError` where an image has no prompt or does not open, a prompt or choice names an
    image that is not there, or a choice is not a choice; with `allow_errors` such rows are left
    out and counted.
    """
    settings = settings or FolderSettings()
    files = find_images(folder)
    if not files:
        raise DataError(f"{folder}: holds no image file (PNG, JPEG, WebP, GIF, BMP, TIFF, …)")
    keys = {file.relative_to(folder).as_posix(): file for file in files}
    faults = Faults(str(folder), settings.allow_errors, rows=len(keys))
    origin, given = _prompts(folder, keys, prompts, settings, faults)
    images: dict[str, Image] = {}
    for key, file in track(keys.items(), "reading images", total=len(keys)):
        if key not in given:
            faults.add(f"image {key!r}", f"has no prompt in {origin}")
            continue
        row = describe_image(
            given[key],
            file,
            max_pixels=settings.max_pixels,
            decode=settings.decode,
            faults=faults,
        )
        if row is not None:
            images[key] = row
    faults.settle()
    if not images:
        raise DataError(f"{folder}: holds no image that can be used")
    answers = [] if choices is None else _choices(choices, images, settings, faults)
    return Imported(
        images=to_table(images.values(), "images"),
        choices=to_table(answers, "choices"),
        report={"files": len(keys), "prompts_from": origin, "faults": faults.to_dict()},
    )


def _prompts(
    folder: Path,
    keys: Mapping[str, Path],
    prompts: Path | None,
    settings: FolderSettings,
    faults: Faults,
) -> tuple[str, dict[str, Image]]:
    """Where the prompts come from, and the images they are for, still without their files."""
    ways = [way for way in (prompts, settings.prompt, settings.pattern) if way is not None]
    if len(ways) > 1:
        raise DataError("prompts come from a file, one text or a pattern; give one of them")
    if settings.prompt is not None:
        made = {key: Image(key, settings.prompt, generator=settings.generator) for key in keys}
        return "the prompt given", made
    if settings.pattern is not None:
        return "its path", _from_paths(keys, settings, faults)
    if prompts is None:
        there = [name for name in _PROMPT_FILES if (folder / name).is_file()]
        if len(there) > 1:
            raise DataError(f"{folder}: holds {' and '.join(there)}; say which has the prompts")
        if not there:
            return "a text file beside it", _from_sidecars(keys, settings)
        prompts = folder / there[0]
    return str(prompts), _from_file(prompts, keys, settings, faults)


def _from_sidecars(keys: Mapping[str, Path], settings: FolderSettings) -> dict[str, Image]:
    found = {}
    for key, file in keys.items():
        beside = file.with_suffix(".txt")
        if beside.is_file():
            text = read_text(beside).strip()
            found[key] = Image(key, text, generator=settings.generator)
    return found


def _from_paths(
    keys: Mapping[str, Path], settings: FolderSettings, faults: Faults
) -> dict[str, Image]:
    pattern = compile_pattern(str(settings.pattern), {"prompt"})
    found = {}
    for key in keys:
        match = pattern.fullmatch(key.rpartition(".")[0])
        if match is None:
            continue
        facts: dict[str, Any] = {k: v for k, v in match.groupdict().items() if v is not None}
        facts["prompt"] = " ".join(facts["prompt"].replace("_", " ").split())
        try:
            found[key] = _image(key, facts, settings)
        except DataError as fault:
            faults.add(f"image {key!r}", str(fault))
    return found


def compile_pattern(pattern: str, wanted: set[str]) -> re.Pattern[str]:
    """Compile a pattern of the user and check that it has the named groups."""
    try:
        compiled = re.compile(pattern)
    except re.error as fault:
        raise DataError(f"the pattern {pattern!r} is no regular expression: {fault}") from None
    missing = sorted(wanted - compiled.groupindex.keys())
    if missing:
        raise DataError(f"the pattern {pattern!r} has no group (?P<{missing[0]}>…)")
    return compiled


def _from_file(
    path: Path, keys: Mapping[str, Path], settings: FolderSettings, faults: Faults
) -> dict[str, Image]:
    found: dict[str, Image] = {}
    own = Faults(str(path), settings.allow_errors)
    for line, facts in _prompt_rows(path):
        own.rows += 1
        key = str(facts.get("image"))
        if key not in keys:
            near = _near(key, keys, own)
            own.add(f"line {line}", f"image {key!r} is not in the folder{near}")
        elif key in found:
            own.add(f"line {line}", f"image {key!r} was there before")
        else:
            try:
                found[key] = _image(key, facts, settings)
            except DataError as fault:
                own.add(f"line {line}", str(fault))
    _settle(own, path, faults)
    return found


def _settle(own: Faults, path: Path, faults: Faults) -> None:
    """Raise for the faults of a file, whose lines are no images, or add them to those of the folder."""
    own.settle()
    faults.count += own.count
    faults.examples += [f"{path.name}, {example}" for example in own.examples]


def _prompt_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            if line.strip():
                image, tab, prompt = line.rstrip("\r").partition("\t")
                if not tab:
                    raise DataError(f"{path}, line {number}: expected image<TAB>prompt")
                yield number, {"image": image, "prompt": prompt}
        return
    if suffix not in {".csv", ".jsonl"}:
        raise DataError(f"{path}: prompts are read from .csv, .jsonl or .txt")
    rows: Iterator[tuple[int, dict[str, Any]]]
    rows = csv_rows(path) if suffix == ".csv" else json_lines(path)
    for number, facts in rows:
        require_columns(path, facts, ["image", "prompt"])
        yield number, facts


def _image(key: str, facts: Mapping[str, Any], settings: FolderSettings) -> Image:
    """One image by the facts of its row; what has no column goes to the details."""
    rest = {k: v for k, v in facts.items() if k not in {"image", "prompt", "generator", "seed"}}
    prompt = facts["prompt"]
    if not isinstance(prompt, str):
        raise DataError(f"the prompt of image {key!r} is {prompt!r}, expected a text")
    generator = facts.get("generator")
    if generator is not None and not isinstance(generator, str):
        raise DataError(f"the generator of image {key!r} is {generator!r}, expected a text")
    seed = facts.get("seed")
    try:
        number = None if seed is None or seed == "" else int(str(seed))
    except ValueError:
        raise DataError(f"the seed of image {key!r} is {seed!r}, expected a number") from None
    return Image(
        image=key,
        prompt=prompt,
        generator=generator or settings.generator,
        seed=number,
        details=json_text(rest),
    )


def _choices(
    path: Path, images: Mapping[str, Image], settings: FolderSettings, faults: Faults
) -> list[Choice]:
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".jsonl"}:
        raise DataError(f"{path}: choices are read from .csv or .jsonl")
    rows: Iterator[tuple[int, dict[str, Any]]]
    rows = map(_listed, csv_rows(path)) if suffix == ".csv" else json_lines(path)
    found: dict[str, Choice] = {}
    own = Faults(str(path), settings.allow_errors)
    for line, facts in rows:
        own.rows += 1
        try:
            choice = _choice(line, facts, images, settings, own)
            _refuse_known(choice, found)
            found[choice.choice] = choice
        except DataError as fault:
            own.add(f"line {line}", str(fault))
    _settle(own, path, faults)
    if not found:
        raise DataError(f"{path}: holds no choice that can be used")
    return list(found.values())


def _refuse_known(choice: Choice, found: Mapping[str, Choice]) -> None:
    if choice.choice in found:
        raise DataError(f"choice {choice.choice!r} was there before")


def _listed(row: tuple[int, dict[str, str]]) -> tuple[int, dict[str, Any]]:
    """Turn the cells of CSV into what JSON would hold; empty cells are absent."""
    line, cells = row
    facts: dict[str, Any] = {name: cell for name, cell in cells.items() if cell != ""}
    if "images" in facts:
        facts["images"] = facts["images"].split("|")
    if "ranks" in facts:
        parts = facts["ranks"].split("|")
        facts["ranks"] = [int(part) if part.strip().isdecimal() else part for part in parts]
    return line, facts


def _choice(
    line: int,
    facts: Mapping[str, Any],
    images: Mapping[str, Image],
    settings: FolderSettings,
    faults: Faults,
) -> Choice:
    for name in facts:
        if name not in _CHOICE_KEYS:
            near = difflib.get_close_matches(name, _CHOICE_KEYS, n=1)
            raise DataError(
                f"unknown key {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    shown = facts.get("images")
    if not isinstance(shown, list) or not all(isinstance(key, str) for key in shown):
        raise DataError(f"images is {shown!r}, expected a list of names")
    for key in shown:
        if key not in images:
            raise DataError(f"image {key!r} is not among the images{_near(key, images, faults)}")
    details = facts.get("details", {})
    if not isinstance(details, dict):
        raise DataError(f"details is {details!r}, expected an object")
    return Choice(
        choice=_text(facts, "choice", f"{settings.source}/{line}"),
        prompt=_text(facts, "prompt", None) or _shared_prompt(shown, images),
        images=tuple(shown),
        ranks=_ranks(facts, shown),
        dimension=_text(facts, "dimension", "overall"),
        annotator=_text(facts, "annotator", None),
        source=settings.source,
        details=json_text(details),
    )


def _text(facts: Mapping[str, Any], name: str, default: str | None) -> Any:
    value = facts.get(name, default)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{name} is {value!r}, expected a text")
    return value


def _shared_prompt(shown: list[str], images: Mapping[str, Image]) -> str:
    prompts = {images[key].prompt for key in shown}
    if len(prompts) > 1:
        raise DataError("its images have several prompts; give the prompt that was shown")
    return prompts.pop() if prompts else ""


def _ranks(facts: Mapping[str, Any], shown: list[str]) -> tuple[int, ...]:
    ranks, best = facts.get("ranks"), facts.get("best")
    if (ranks is None) == (best is None):
        raise DataError("expected either ranks or best (leave questions without an answer out)")
    if ranks is not None:
        whole = isinstance(ranks, list) and all(
            isinstance(rank, int) and not isinstance(rank, bool) for rank in ranks
        )
        if not whole:
            raise DataError(f"ranks is {ranks!r}, expected a list of whole numbers")
        return tuple(ranks)
    if isinstance(best, str):
        if best not in shown:
            raise DataError(f"best is {best!r}, which is not among its images")
        return pick_ranks(len(shown), shown.index(best))
    if isinstance(best, int) and not isinstance(best, bool):
        return pick_ranks(len(shown), best)
    raise DataError(f"best is {best!r}, expected the name or the position (from 0) of an image")


def _near(key: str, keys: Mapping[str, object], faults: Faults) -> str:
    """What may have been meant, for the few faults that are shown: it is looked for among all keys."""
    if faults.count >= _SHOWN:
        return ""
    near = difflib.get_close_matches(key, keys, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""

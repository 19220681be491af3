"""Import the images of the HPS v2 benchmark (Wu et al. 2023, 2306.09341): 800 prompts in each of four styles.

The prompts are JSON lists of texts, `anime.json`, `concept-art.json`, `paintings.json` and `photo.json`.
The image of a prompt has its place in the list as name, from 0: `{model}/{style}/00000.jpg`. The same
folder of prompts may hold `drawbench.json` (200 prompts), whose images have no folder of a style:
`drawbench/{model}/00000.jpg`. There are no choices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from palate.data.images import SUFFIXES
from palate.data.records import Image, json_text
from palate.data.sources.common import Found, Report, Row, Source, SourceSettings
from palate.data.sources.texts import json_records
from palate.errors import DataError

STYLES: Final = ("anime", "concept-art", "paintings", "photo")
"""The four styles; the official page calls the first Animation and the third Painting."""

DRAWBENCH: Final = "drawbench"
_LISTS: Final = (*STYLES, DRAWBENCH)
_EXPECTED: Final = {**dict.fromkeys(STYLES, 800), DRAWBENCH: 200}
_NAME: Final = re.compile(r"(\d{5})\.\w+")


@dataclass(frozen=True)
class HpsBenchmarkSettings(SourceSettings):
    """How the benchmark is read. `prompts` is the folder with `anime.json` and the other lists."""

    prompts: Path | None = None


@dataclass(frozen=True, slots=True)
class _Folder:
    """The images of one model in one style."""

    model: str
    style: str
    path: Path


def hps_benchmark(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open a folder of generated images, of one model or of several; keys are `model/style/00000.jpg`.

    `path` is that folder, or the folder of prompts if `images` is given or if it holds `benchmark_imgs`.
    Without `prompts` in the settings, the lists are looked for in `path`, in `benchmark` inside it, and
    in the folders above the images and their `benchmark`. Faults name model, style and file.
    """
    if not path.is_dir():
        what = "is a file, expected a folder" if path.exists() else "does not exist"
        raise DataError(f"{path}: {what}")
    inner = path / "benchmark_imgs"
    root = images or (inner if inner.is_dir() else path)
    if not root.is_dir():
        raise DataError(f"{root}: is no folder of images")
    rules = settings or SourceSettings()
    lists = _lists(path, root, rules)
    rows = partial(_rows, root, lists)
    return Source("hps-benchmark", rules, dict(lists), rows, root)


def _lists(path: Path, root: Path, rules: SourceSettings) -> dict[str, Path]:
    """The files of prompts by style."""
    given = rules.prompts if isinstance(rules, HpsBenchmarkSettings) else None
    places = [path, path / "benchmark"]
    for above in list(root.resolve().parents)[:2]:
        places += [above, above / "benchmark"]
    for place in [given] if given is not None else places:
        found = {name: place / f"{name}.json" for name in _LISTS}
        there = {name: file for name, file in found.items() if file.is_file()}
        if there:
            return there
    where = given or f"{path} or near {root}"
    raise DataError(f"{where}: holds no list of prompts such as {STYLES[0]}.json")


def _rows(root: Path, lists: Mapping[str, Path], report: Report) -> Iterator[Row]:
    report.faults.source = str(root)
    prompts: dict[str, list[str]] = {}
    for style, path in lists.items():
        prompts[style] = _prompts(path)
        if len(prompts[style]) != _EXPECTED[style]:
            report.count("prompt_lists_of_another_length")
    own = {path.parent.resolve() for path in lists.values()}
    for folder in _folders(root, own, report):
        report.faults.rows += 1
        if folder.style not in prompts:
            there = ", ".join(prompts)
            report.faults.add(
                f"{folder.model}/{folder.style}",
                f"there are no prompts of the style {folder.style!r}, only of {there}",
            )
            continue
        yield from _images(folder, prompts[folder.style], report)


def _prompts(path: Path) -> list[str]:
    prompts = []
    for number, prompt in json_records(path):
        if not isinstance(prompt, str):
            raise DataError(f"{path}: prompt {number} is {str(prompt)[:40]!r}, expected a text")
        if not prompt.strip():
            raise DataError(f"{path}: prompt {number} is empty")
        prompts.append(prompt)
    return prompts


def _folders(root: Path, own: set[Path], report: Report) -> Iterator[_Folder]:
    """The folders of styles: straight in the root, which is one model's, or inside those of models."""
    inside = [one for one in _subfolders(root) if one.resolve() not in own]
    if any(one.name in STYLES for one in inside):
        for one in inside:
            yield _Folder(root.resolve().name, one.name, one)
        return
    if not inside:
        raise DataError(f"{root}: holds no folder of a style ({', '.join(STYLES)}) or of a model")
    for model in inside:
        styles = _subfolders(model)
        loose = _has_images(model)
        if loose and root.resolve().name == DRAWBENCH:
            yield _Folder(model.name, DRAWBENCH, model)
            continue
        if loose or not styles:
            report.faults.rows += 1
            what = "holds images" if loose else "holds no folder"
            report.faults.add(model.name, f"{what}, expected folders such as {STYLES[0]}")
        for style in styles:
            yield _Folder(model.name, style.name, style)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def _has_images(folder: Path) -> bool:
    return any(one.suffix.lower() in SUFFIXES and one.is_file() for one in folder.iterdir())


def _images(folder: _Folder, prompts: list[str], report: Report) -> Iterator[Row]:
    """Yield an image for every prompt; one that is not there is named by the import."""
    files: dict[int, Path] = {}
    for file in sorted(folder.path.iterdir()):
        if file.name.startswith(".") or not file.is_file():
            continue
        if file.suffix.lower() not in SUFFIXES:
            report.count("other_files")
            continue
        fault = _misplaced(file, files, len(prompts))
        if fault is None:
            files[int(file.stem)] = file
        else:
            report.faults.rows += 1
            report.faults.add(f"{folder.model}/{folder.style}/{file.name}", fault)
    for index, prompt in enumerate(prompts):
        report.faults.rows += 1
        file = files.get(index, folder.path / f"{index:05}.jpg")
        key = f"{folder.model}/{folder.style}/{file.name}"
        details = json_text({"style": folder.style, "index": index})
        yield Found(Image(key, prompt, generator=folder.model, details=details), file)


def _misplaced(file: Path, files: Mapping[int, Path], prompts: int) -> str | None:
    """Say why a file is no image of a prompt, or None."""
    named = _NAME.fullmatch(file.name)
    if named is None:
        return "is not named by the five digits of its prompt, such as 00000.jpg"
    index = int(named[1])
    if index >= prompts:
        return f"there is no prompt {index}, only 0 to {prompts - 1}"
    if index in files:
        return f"prompt {index} has another image, {files[index].name}"
    return None

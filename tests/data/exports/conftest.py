"""Small data sets to export, with image files of several formats."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.data.records import Choice, Image
from palate.data.tables import Dataset, load_dataset, save_dataset, to_table

FORMATS = ("png", "jpg", "webp")


def choices() -> list[Choice]:
    """Picks and rankings of two people between the images a to f, on one dimension."""
    return [
        Choice("one", "a fox", ("a", "b"), (1, 2), annotator="ann", source="study"),
        Choice("two", "a fox", ("b", "a"), (2, 1), annotator="ben", source="study"),
        Choice("three", 'böse, "x"', ("c", "d", "e", "f"), (2, 2, 1, 2), source="study"),
    ]


def images() -> list[Image]:
    prompts = {"a": "a fox", "b": "a fox"}
    return [
        Image(
            key,
            prompts.get(key, 'böse, "x"'),
            generator="sd",
            seed=number,
            settings='{"steps":20}',
            details='{"note":"é"}' if number else None,
        )
        for number, key in enumerate("abcdef")
    ]


def save_image(path: Path, number: int) -> Image:
    """Write a small image file and return a row with its path, hash and size."""
    pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return Image("_", "_", path.as_posix(), content, 8, 9)


def save(folder: Path, rows: Sequence[Image], answers: Sequence[Choice]) -> Dataset:
    """Write a data set with a file for every image."""
    made = []
    for number, row in enumerate(rows):
        file = save_image(folder / "images" / f"{number}.{FORMATS[number % 3]}", number)
        columns = {name: getattr(row, name) for name in Image.__slots__}
        columns |= {name: getattr(file, name) for name in ("sha256", "width", "height")}
        columns["path"] = f"images/{number}.{FORMATS[number % 3]}"
        made.append(Image(**columns))
    save_dataset(folder, to_table(made, "images"), to_table(answers, "choices"))
    return load_dataset(folder)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A data set of six images, three formats and three choices."""
    return save(tmp_path / "data", images(), choices())


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Dataset]:
    """Make a data set of given choices, with a file for every image they show."""

    def made(answers: Sequence[Choice], rows: Sequence[Image] | None = None) -> Dataset:
        if rows is None:
            prompts = {key: choice.prompt for choice in answers for key in choice.images}
            rows = [Image(key, prompt) for key, prompt in prompts.items()]
        return save(tmp_path / "made", rows, answers)

    return made


@pytest.fixture
def read() -> Callable[[Path], object]:
    """Read a JSON file."""
    return lambda path: json.loads(path.read_text("utf-8"))


@pytest.fixture
def listing() -> Callable[[Path], dict[str, bytes]]:
    """The content of every file of an export but its run record, by name."""

    def found(folder: Path) -> dict[str, bytes]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in files
            if path.name != "run.json"
        }

    return found

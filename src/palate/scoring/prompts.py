"""Which prompt an image is scored with, where the prompts are apart from the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palate.data.sources.texts import csv_rows, json_lines, read_text, require_columns, text_lines
from palate.errors import DataError


@dataclass(frozen=True, slots=True)
class GivenPrompts:
    """Prompts by the name of their image, from the file ``origin``; ``served`` says whom each has served."""

    origin: Path
    prompts: Mapping[str, str]
    served: dict[str, str] = field(default_factory=dict)

    def of(self, image: str, names: Sequence[str]) -> str:
        """Give the prompt of an image that goes by some names.

        Raises DataError where it has none, and where its line was that of another image before.
        """
        name = next((name for name in names if name in self.prompts), None)
        if name is None:
            raise DataError(f"{self.origin}: has no prompt for image '{image}'")
        if (other := self.served.setdefault(name, image)) != image:
            raise DataError(
                f"{self.origin}: '{name}' may be '{other}' or '{image}'; expected each with its folder"
            )
        return self.prompts[name]


def prompt_of(
    names: Sequence[str],
    prompt: str | None,
    given: GivenPrompts | None,
    image: Path | None = None,
) -> str:
    """Find the prompt of an image that goes by some names: the one for all, its own line, or the text beside it."""
    if prompt is not None:
        return prompt
    if given is not None:
        return given.of(names[0], names)
    if image is not None and image.with_suffix(".txt").is_file():
        return read_text(image.with_suffix(".txt")).strip()
    raise DataError(f"{names[0]}: has no prompt; give --prompt TEXT or --prompts FILE")


def read_prompts(path: Path) -> dict[str, str]:
    """Read a file that gives each image its prompt, by the name that the image has there.

    Raises DataError for a file of another kind, and for an image that is named twice.
    """
    found: dict[str, str] = {}
    for line, name, prompt in _lines(path):
        if not isinstance(name, str) or not isinstance(prompt, str):
            raise DataError(f"{path}, line {line}: image and prompt must be texts")
        if name in found:
            raise DataError(f"{path}, line {line}: image '{name}' was there before")
        found[name] = prompt
    if not found:
        raise DataError(f"{path}: holds no prompt")
    return found


def _lines(path: Path) -> Iterator[tuple[int, Any, Any]]:
    """Give line number, image and prompt."""
    suffix = path.suffix.lower()
    if suffix == ".txt":
        for number, whole in enumerate(text_lines(path), start=1):
            line = whole.rstrip("\r\n")
            name, tab, prompt = line.partition("\t")
            if line.strip() and not tab:
                raise DataError(f"{path}, line {number}: expected image<TAB>prompt")
            if tab:
                yield number, name, prompt
        return
    if suffix not in {".csv", ".jsonl"}:
        raise DataError(f"{path}: prompts are read from .csv, .jsonl or .txt")
    rows: Iterator[tuple[int, Mapping[str, Any]]]
    rows = csv_rows(path) if suffix == ".csv" else json_lines(path)
    for number, facts in rows:
        require_columns(path, dict(facts), ["image", "prompt"])
        yield number, facts["image"], facts["prompt"]

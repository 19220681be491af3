"""Read the prompt lists that generators are compared on, and write them as one form.

- `parti`: PartiPrompts, a table with tabs: Prompt, Category, Challenge, Note (1,632 prompts). Quotation
  marks are part of the prompts, and none is left out.
- `drawbench`: DrawBench, a CSV table: Prompts, Category (200 prompts).
- `hps`: a list of the HPS v2 benchmark, such as `anime.json`: a JSON list of texts (800 prompts; 200 in
  `drawbench.json`), or the folder of these lists.
- `image-reward`: `benchmark-prompts.json` of ImageReward, a JSON list of `id` and `prompt` (100 prompts).
- `text`: one prompt a line.

What is written is JSON Lines with `prompt`, `id` and, where the list has them, `category` and `details`;
`palate generate --prompts` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args

from palate.data.sources.common import Faults, require_keys
from palate.data.sources.hps_benchmark import STYLES
from palate.data.sources.texts import csv_rows, json_records, text_lines
from palate.errors import DataError
from palate.runs import atomic_path

PromptList = Literal["parti", "drawbench", "hps", "image-reward", "text"]
"""The forms of lists that are read."""

_PARTI: Final = ("Prompt", "Category", "Challenge", "Note")
_DRAWBENCH: Final = (("prompts", "category"), ("prompt", "category"))
_EXPECTED: Final = {"parti": 1632, "drawbench": 200, "image-reward": 100}
# JSON may hold these as they are, but tools that split texts into lines end a line at them
_LINE_ENDS: Final = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\u0085\u2028\u2029"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a list: its text as it is, its name in the list, its category, and all else."""

    prompt: str
    id: str
    category: str | None = None
    details: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a prompt that no generator can be given."""
        if not self.prompt.strip():
            raise DataError("the prompt is empty")
        try:
            self.prompt.encode()
        except UnicodeEncodeError:
            raise DataError("the prompt holds half a character and is no UTF-8 text") from None


@dataclass
class PromptCounts:
    """What was written: prompts, how many repeat an earlier one, and how many the list should have."""

    prompts: int = 0
    repeats: int = 0
    expected: int | None = None
    first_repeat: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "prompts": self.prompts,
            "distinct": self.prompts - self.repeats,
            "repeats": self.repeats,
            "first_repeat": self.first_repeat,
            "expected": self.expected,
        }


def guess_list(path: Path) -> PromptList:
    """Return the form of a list by its name and how it begins. Raises `DataError` where it is none."""
    if path.is_dir():
        return "hps"
    suffix = path.suffix.lower()
    if suffix == ".json":
        _, first = next(json_records(path), (0, ""))
        return "hps" if isinstance(first, str) else "image-reward"
    first_line = next(text_lines(path), "").rstrip("\r\n")
    if suffix == ".tsv" or first_line.split("\t")[:2] == list(_PARTI[:2]):
        return "parti"
    if suffix == ".csv":
        return "drawbench"
    if suffix in {".txt", ""}:
        return "text"
    raise DataError(f"{path}: is no list of a known form; say which with --list ({_forms()})")


def read_prompt_list(
    path: Path, kind: PromptList | None = None, faults: Faults | None = None
) -> Iterator[Prompt]:
    """Yield the prompts of a list in its order, repeated ones too; the form is guessed unless given.

    A prompt that is empty or no text is a fault that names its line or record; `DataError` is raised at
    the end for them, unless `faults` allows them. A file of another form is refused at once.
    """
    kind = kind or guess_list(path)
    if kind not in _READERS:
        raise DataError(f"{kind!r} is no form of a list; there are {_forms()}")
    faults = faults or Faults(str(path), allowed=False)
    for where, make in _READERS[kind](path):
        faults.rows += 1
        try:
            prompt = make()
        except DataError as fault:
            faults.add(where, str(fault))
        else:
            yield prompt
    faults.settle()


def expected_prompts(path: Path, kind: PromptList) -> int | None:
    """Return how many prompts the official list has, or None where nobody says."""
    if kind != "hps":
        return _EXPECTED.get(kind)
    names = [one.stem for one in _hps_files(path)]
    if not all(name in STYLES or name == "drawbench" for name in names):
        return None
    return sum(200 if name == "drawbench" else 800 for name in names)


def write_prompts(
    prompts: Iterable[Prompt], out: Path, *, expected: int | None = None
) -> PromptCounts:
    """Write prompts as JSON Lines in their order, all or nothing, and return the counts.

    Repeated prompts are written and counted; a generator makes their images once. Raises `DataError` for
    a list without prompts, and for an id that comes twice.
    """
    counts = PromptCounts(expected=expected)
    texts, ids = set[str](), set[str]()
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for prompt in prompts:
            if prompt.id in ids:
                raise DataError(f"the id {prompt.id!r} comes twice")
            ids.add(prompt.id)
            if prompt.prompt in texts:
                counts.repeats += 1
                counts.first_repeat = counts.first_repeat or prompt.prompt
            texts.add(prompt.prompt)
            counts.prompts += 1
            file.write(_line(prompt))
        if not counts.prompts:
            raise DataError(f"{out}: there are no prompts to write")
    return counts


def _line(prompt: Prompt) -> str:
    facts: dict[str, Any] = {"prompt": prompt.prompt, "id": prompt.id}
    if prompt.category is not None:
        facts["category"] = prompt.category
    if prompt.details:
        facts["details"] = prompt.details
    return json.dumps(facts, ensure_ascii=False).translate(_LINE_ENDS) + "\n"


_Made = Iterator[tuple[str, Callable[[], Prompt]]]
"""Where a prompt stands, and what makes it or raises `DataError`."""


def _parti(path: Path) -> _Made:
    header: list[str] | None = None
    for number, line in enumerate(text_lines(path), start=1):
        cells = line.rstrip("\r\n").split("\t")
        if header is None:
            header = cells
            if tuple(cells) != _PARTI:
                raise DataError(f"{path}: the columns are {cells}, expected {', '.join(_PARTI)}")
            continue
        yield f"line {number}", partial(_parti_prompt, cells, number)
    if header is None:
        raise DataError(f"{path}: is an empty file, expected a table with tabs")


def _parti_prompt(cells: list[str], line: int) -> Prompt:
    if len(cells) != len(_PARTI):
        raise DataError(f"has {len(cells)} cells, expected {len(_PARTI)} with tabs between them")
    prompt, category, challenge, note = cells
    told = {"challenge": challenge, "note": note}
    details = {name: value for name, value in told.items() if value}
    return Prompt(prompt, f"parti/{line - 2}", category or None, details or None)


def _drawbench(path: Path) -> _Made:
    for number, (line, row) in enumerate(csv_rows(path)):
        cells = {name.lower(): value for name, value in row.items()}
        names = next((two for two in _DRAWBENCH if set(two) <= cells.keys()), None)
        if names is None:
            raise DataError(f"{path}: the columns are {list(row)}, expected Prompts and Category")
        text, category = (cells.pop(name) for name in names)
        rest = {name: value for name, value in cells.items() if value}
        given = (text, f"drawbench/{number}", category or None, rest or None)
        yield f"line {line}", partial(Prompt, *given)


def _hps(path: Path) -> _Made:
    for file in _hps_files(path):
        for number, text in json_records(file):
            place = f"{file.name}, prompt {number}" if path.is_dir() else f"prompt {number}"
            yield place, partial(_hps_prompt, text, number, file.stem)


def _hps_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # the folder of the release also holds the prompts of DrawBench, which are no style
    found = [path / f"{style}.json" for style in STYLES if (path / f"{style}.json").is_file()]
    if not found:
        raise DataError(f"{path}: holds no list of the HPS v2 benchmark such as {STYLES[0]}.json")
    return found


def _hps_prompt(text: Any, number: int, style: str) -> Prompt:
    if not isinstance(text, str):
        raise DataError(f"is {str(text)[:40]!r}, expected a text")
    return Prompt(text, f"{style}/{number:05}", style)


def _image_reward(path: Path) -> _Made:
    for number, record in json_records(path):
        yield f"record {number}", partial(_image_reward_prompt, record)


def _image_reward_prompt(record: Any) -> Prompt:
    require_keys(record, {"id": str, "prompt": str})
    return Prompt(record["prompt"], record["id"])


def _text(path: Path) -> _Made:
    for number, line in enumerate(text_lines(path), start=1):
        text = line.rstrip("\r\n")
        yield f"line {number}", partial(Prompt, text, f"{path.stem}/{number}")


_READERS: Final[dict[str, Callable[[Path], _Made]]] = {
    "parti": _parti,
    "drawbench": _drawbench,
    "hps": _hps,
    "image-reward": _image_reward,
    "text": _text,
}


def _forms() -> str:
    return ", ".join(get_args(PromptList))

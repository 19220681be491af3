"""The JSON Lines of align_sd, HPS's released code, read and written as that code has them.

- ``diffusiondb_hps.jsonl``: ``id`` (place in the data set), ``prompt``, ``score`` (100 cosine),
  ``blurry``; what `process_diffusion_db.py` writes.
- ``annotation.jsonl``: ``id``, ``file_name``, ``prompt``, ``type`` (positive or negative),
  ``confidence`` (the softmax that was compared), ``batch_size`` (images of the prompt); what
  `select_training_images.py` writes and the trainer reads.
- ``regularization_images.jsonl``: ``file_name``, ``caption``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from palate.data.records import Image, Score, json_text
from palate.data.sources.common import require_keys
from palate.data.sources.texts import json_lines
from palate.data.tables import to_table
from palate.errors import DataError
from palate.runs import write_atomic

ROLE_OF: Final = {"positive": "preferred", "negative": "rejected"}
TYPE_OF: Final = {role: kind for kind, role in ROLE_OF.items()}

_ANNOTATION: Final[dict[str, type]] = {
    "id": int,
    "file_name": str,
    "prompt": str,
    "type": str,
    "confidence": float,
    "batch_size": int,
}
_SCORED: Final[dict[str, type]] = {"id": int, "prompt": str, "score": float, "blurry": bool}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One line of ``annotation.jsonl``; the fields are its keys, in its order."""

    id: int
    file_name: str
    prompt: str
    type: str
    confidence: float
    batch_size: int

    def __post_init__(self) -> None:
        """Refuse what align_sd's selection cannot have written."""
        if self.type not in ROLE_OF:
            raise DataError(f"type is {self.type!r}, expected 'positive' or 'negative'")
        if not self.file_name:
            raise DataError("file_name is empty")
        if not 0 < self.confidence <= 1:
            raise DataError(f"confidence is {self.confidence}, expected above 0 and at most 1")
        if self.batch_size < 1:
            raise DataError(f"batch_size is {self.batch_size}, expected at least 1")


@dataclass(frozen=True, slots=True)
class Caption:
    """One line of ``regularization_images.jsonl``."""

    file_name: str
    caption: str

    def __post_init__(self) -> None:
        """Refuse a caption of no file."""
        if not self.file_name:
            raise DataError("file_name is empty")


def kind_of_lines(path: Path) -> Literal["annotation", "scores"]:
    """Say by its first line which of align_sd's files this is.

    Raises:
        DataError: it is empty, or neither annotations nor scores.
    """
    for line, facts in json_lines(path):
        if "type" in facts:
            return "annotation"
        if "score" in facts:
            return "scores"
        raise DataError(
            f"{path}, line {line}: expected align_sd's annotations (file_name, type, …) or scores "
            f"(id, score, …), found the keys {', '.join(facts) or 'of nothing'}"
        )
    raise DataError(f"{path}: is empty, expected align_sd's annotations or scores")


def read_annotations(path: Path) -> Iterator[tuple[int, Annotation]]:
    """Yield line number and content of ``annotation.jsonl``.

    Raises:
        DataError: a line that is no annotation, or a file that comes twice, by the number of the line.
    """
    seen: set[str] = set()
    for line, facts in json_lines(path):
        try:
            require_keys(facts, _ANNOTATION)
            row = Annotation(**{**facts, "confidence": float(facts["confidence"])})
            _refuse_twice(row.file_name, seen)
        except (DataError, OverflowError) as fault:
            raise DataError(f"{path}, line {line}: {fault}") from None
        yield line, row


def write_annotations(path: Path, rows: Iterable[Annotation]) -> None:
    """Write ``annotation.jsonl``, byte for byte as align_sd writes the same rows."""
    _write(path, rows)


def read_captions(path: Path) -> Iterator[tuple[int, Caption]]:
    """Yield line number and content of ``regularization_images.jsonl`` or of a ``metadata.jsonl``.

    Of the latter ``text`` counts as caption too, and further keys are not read.

    Raises:
        DataError: a line without name or caption, or a file that comes twice, by the line's number.
    """
    seen: set[str] = set()
    for line, facts in json_lines(path):
        word = "text" if "text" in facts and "caption" not in facts else "caption"
        found = {name: facts[name] for name in ("file_name", word) if name in facts}
        try:
            require_keys(found, {"file_name": str, word: str})
            row = Caption(found["file_name"], found[word])
            _refuse_twice(row.file_name, seen)
        except DataError as fault:
            raise DataError(f"{path}, line {line}: {fault}") from None
        yield line, row


def write_captions(path: Path, rows: Iterable[Caption]) -> None:
    """Write ``regularization_images.jsonl``, byte for byte as align_sd writes the same rows."""
    _write(path, rows)


def read_scores(path: Path) -> tuple[Any, Any]:
    """Read ``diffusiondb_hps.jsonl`` as a table of scores and one of images.

    An image's key is its place in the data set with eight digits, so that the order of keys is that
    of the file and equal scores are decided as there. The images have no files; ``blurry`` is in
    their details.

    Raises:
        DataError: a bad line, or a place that comes twice, by the number of the line.
    """
    scores, images = [], []
    seen: set[str] = set()
    for line, facts in json_lines(path):
        try:
            score, image = _scored(facts)
            _refuse_twice(score.image, seen)
        except (DataError, OverflowError) as fault:
            raise DataError(f"{path}, line {line}: {fault}") from None
        scores.append(score)
        images.append(image)
    return to_table(scores, "scores"), to_table(images, "images")


def _scored(facts: dict[str, Any]) -> tuple[Score, Image]:
    require_keys(facts, _SCORED)
    if facts["id"] < 0:
        raise DataError(f"id is {facts['id']}, expected a place from 0 on")
    key, prompt, value = f"{facts['id']:08}", facts["prompt"], float(facts["score"])
    image = Image(key, prompt, details=json_text({"blurry": facts["blurry"]}))
    return Score(key, prompt, "hps", "overall", value, "hps", "align_sd"), image


def _refuse_twice(name: str, seen: set[str]) -> None:
    if name in seen:
        raise DataError(f"{name!r} was there before")
    seen.add(name)


def _write(path: Path, rows: Iterable[Annotation] | Iterable[Caption]) -> None:
    write_atomic(path, "".join(f"{json.dumps(asdict(row))}\n" for row in rows))

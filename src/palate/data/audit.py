"""Look a data set over before anything learns from it.

An audit changes nothing and refuses nothing: it names what a careful reader would want to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from palate.data.audit_answers import answer_findings, position_findings
from palate.data.audit_files import FileSettings, file_findings
from palate.data.findings import Finding
from palate.data.position import PositionBias, position_bias
from palate.data.records import Choice, Image
from palate.data.tables import Dataset, load_dataset, to_rows


@dataclass(frozen=True)
class AuditSettings:
    """How closely a data set is looked at.

    `require_images` makes a missing image file an error and not a note. `decode` opens every file,
    which finds unreadable and nearly equal images. `near` is the mean difference of two 16 × 16
    thumbnails, of 255, below which two images are nearly equal.
    """

    require_images: bool = False
    decode: bool = True
    near: float = 2.0
    max_pixels: int = 100_000_000
    level: float = 0.95


@dataclass(frozen=True)
class Audit:
    """What an audit found: counts, the findings, and the position bias of the choices."""

    folder: str
    counts: dict[str, Any]
    findings: tuple[Finding, ...]
    position: PositionBias | None
    settings: AuditSettings

    def at(self, *levels: Literal["error", "warning", "note"]) -> tuple[Finding, ...]:
        """Findings of these levels."""
        return tuple(finding for finding in self.findings if finding.level in levels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "folder": self.folder,
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
            "position": None if self.position is None else self.position.to_dict(),
            "settings": asdict(self.settings),
        }

    def to_table(self) -> Any:
        """Return the findings as an Arrow table: level, kind, count, message, examples."""
        return pa.Table.from_pylist(
            [asdict(finding) | {"examples": list(finding.examples)} for finding in self.findings],
            schema=pa.schema(
                [
                    ("level", pa.string()),
                    ("kind", pa.string()),
                    ("count", pa.int64()),
                    ("message", pa.string()),
                    ("examples", pa.list_(pa.string())),
                ]
            ),
        )


def audit_folder(folder: Path | str, settings: AuditSettings | None = None) -> Audit:
    """Audit the data set in a folder; keys that repeat and unknown images become findings."""
    return audit_dataset(load_dataset(folder, strict=False), settings)


def audit_dataset(dataset: Dataset, settings: AuditSettings | None = None) -> Audit:
    """Audit images, their files, and choices.

    Errors are what cannot be worked with, warnings what distorts a result, and notes what is good
    to know. Every finding has its count and the first examples by name.
    """
    settings = settings or AuditSettings()
    images = list(to_rows(dataset.images, Image))
    choices = list(to_rows(dataset.choices, Choice))
    groups = _groups(images, choices)
    files = FileSettings(
        settings.require_images, settings.decode, settings.near, settings.max_pixels
    )
    position = position_bias(dataset.choices, settings.level)
    found = [
        *_key_findings(images, choices),
        *file_findings(images, groups, dataset.folder, files),
        *answer_findings(choices, {row.image: row.prompt for row in images}),
        *position_findings(position),
    ]
    order = ("error", "warning", "note")
    found.sort(key=lambda finding: order.index(finding.level))
    return Audit(
        folder=str(dataset.folder),
        counts=_counts(images, choices),
        findings=tuple(found),
        position=position,
        settings=settings,
    )


def _counts(images: Sequence[Image], choices: Sequence[Choice]) -> dict[str, Any]:
    return {
        "images": len(images),
        "choices": len(choices),
        "prompts": len({row.prompt for row in images} | {row.prompt for row in choices}),
        "generators": _tally(row.generator for row in images),
        "dimensions": _tally(row.dimension for row in choices),
        "sources": _tally(row.source for row in choices),
        "annotators": len({row.annotator for row in choices} - {None}),
        "images_per_choice": _tally(str(len(row.images)) for row in choices),
    }


def _tally(names: Iterable[str | None]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        if name is not None:
            found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def _groups(images: Sequence[Image], choices: Sequence[Choice]) -> dict[str, tuple[str, ...]]:
    """Images that are compared: those of each choice, or of each prompt where nobody chose."""
    if choices:
        return {row.choice: row.images for row in choices}
    by_prompt: dict[str, list[str]] = {}
    for row in images:
        by_prompt.setdefault(row.prompt, []).append(row.image)
    return {prompt: tuple(keys) for prompt, keys in by_prompt.items() if len(keys) > 1}


def _key_findings(images: Sequence[Image], choices: Sequence[Choice]) -> list[Finding]:
    found = []
    for what, keys in (
        ("image", [row.image for row in images]),
        ("choice", [row.choice for row in choices]),
    ):
        again = _repeated(keys)
        if again:
            message = f"{what} keys stand in the table more than once"
            found.append(Finding.of("error", "duplicate keys", again, message))
    known = {row.image for row in images}
    unknown = [
        f"{key} in choice {row.choice}" for row in choices for key in row.images if key not in known
    ]
    if unknown and images:
        message = "choices name images that are not in the table of images"
        found.append(Finding.of("error", "unknown images", unknown, message))
    empty = [row.image for row in images if not row.prompt.strip()]
    if empty:
        found.append(Finding.of("warning", "empty prompts", empty, "images have an empty prompt"))
    return found


def _repeated(keys: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    again = []
    for key in keys:
        if key in seen:
            again.append(key)
        seen.add(key)
    return again

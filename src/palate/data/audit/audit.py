"""Look a data set over before anything learns from it.

An audit changes nothing and refuses nothing: it names what a careful reader would want to know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.audit.answers import (
    Ties,
    answer_findings,
    position_findings,
    ties_by_dimension,
    ties_by_size,
)
from palate.data.audit.columns import Columns, columns_of, names
from palate.data.audit.files import FileSettings, file_findings, look_at_files
from palate.data.audit.findings import Finding, Strip
from palate.data.audit.images import Marked, Sizes, mark_facts, size_facts
from palate.data.audit.leaks import Leak, Side, leaks_between
from palate.data.audit.people import Agreement, Speed, agreement_facts, speed_facts
from palate.data.audit.phash import NEAR
from palate.data.audit.prompts import Lengths, Prompts, prompt_facts, prompt_lengths
from palate.data.audit.similar import similar_findings
from palate.data.position import PositionBias, position_bias
from palate.data.tables import Dataset, load_dataset

Counter = Callable[[str], int]


@dataclass(frozen=True)
class AuditSettings:
    """How closely a data set is looked at.

    `require_images` makes a missing image file an error and not a note. `decode` opens every file,
    which finds unreadable and nearly equal images. `near` is the mean difference of two 16 × 16
    thumbnails, of 255, below which two images of a choice are nearly equal; `hash_distance` how
    many of 64 bits of the perceptual hash may differ for two images anywhere to be near.
    """

    require_images: bool = False
    decode: bool = True
    near: float = 2.0
    max_pixels: int = 100_000_000
    level: float = 0.95
    hash_distance: int = NEAR


@dataclass(frozen=True)
class Facts:
    """What an audit measured, whether it is odd or not; None or nothing where there is nothing to measure."""

    prompts: Prompts | None
    lengths: tuple[Lengths, ...]
    group_sizes: tuple[Ties, ...]
    ties: tuple[Ties, ...]
    agreement: tuple[Agreement, ...]
    speed: Speed | None
    sizes: Sizes | None
    marks: tuple[Marked, ...]
    leaks: tuple[Leak, ...]


@dataclass(frozen=True)
class Audit:
    """What an audit found: counts, facts, findings with pictures, and the position bias of the choices."""

    folder: str
    counts: dict[str, Any]
    findings: tuple[Finding, ...]
    position: PositionBias | None
    settings: AuditSettings
    facts: Facts
    strips: tuple[Strip, ...] = ()

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
            "facts": asdict(self.facts),
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


def audit_folder(
    folder: Path | str,
    settings: AuditSettings | None = None,
    *,
    against: Sequence[Path | str] = (),
    counters: Mapping[str, Counter] | None = None,
) -> Audit:
    """Audit the data set in a folder; keys that repeat and unknown images become findings.

    `against` are folders of other data sets that should share nothing with it, and `counters` count
    the tokens of a prompt for a text encoder, ``CLIP`` or ``BLIP``, with the start and the end token.
    """
    others = [load_dataset(other, strict=False) for other in against]
    return audit_dataset(
        load_dataset(folder, strict=False), settings, against=others, counters=counters
    )


def audit_dataset(
    dataset: Dataset,
    settings: AuditSettings | None = None,
    *,
    against: Sequence[Dataset] = (),
    counters: Mapping[str, Counter] | None = None,
) -> Audit:
    """Audit images, their files, choices, and what they share with other data sets.

    Errors are what cannot be worked with, warnings what distorts a result, and notes what is good
    to know. Every finding has its count and the first examples by name.
    """
    settings = settings or AuditSettings()
    columns = columns_of(dataset)
    image_findings, strips, leaks = _files_and_leaks(columns, against, settings)
    position = position_bias(dataset.choices, settings.level)
    facts, fact_findings = _facts(columns, counters or {}, leaks)
    found = [
        *_key_findings(columns),
        *image_findings,
        *answer_findings(columns),
        *fact_findings,
        *position_findings(position),
    ]
    order = ("error", "warning", "note")
    found.sort(key=lambda finding: order.index(finding.level))
    return Audit(
        folder=str(dataset.folder),
        counts=_counts(columns),
        findings=tuple(found),
        position=position,
        settings=settings,
        facts=facts,
        strips=tuple(strips),
    )


def _files_and_leaks(
    columns: Columns, against: Sequence[Dataset], settings: AuditSettings
) -> tuple[list[Finding], list[Strip], tuple[Leak, ...]]:
    wanted = FileSettings(
        require_images=settings.require_images,
        decode=settings.decode,
        max_pixels=settings.max_pixels,
    )
    files = look_at_files(columns, wanted)
    found, strips = file_findings(columns, files, wanted)
    more, shown = similar_findings(columns, files, settings.near, settings.hash_distance)
    found, strips = [*found, *more], [*strips, *shown]
    here = Side(columns.dataset.folder.name, columns, files)
    leaks: list[Leak] = []
    for other, name in zip(against, _names_of(against), strict=True):
        there = columns_of(other)
        side = Side(name, there, look_at_files(there, wanted))
        shared, more, shown = leaks_between(here, side, settings.hash_distance)
        leaks += shared
        found, strips = [*found, *more], [*strips, *shown]
    return found, strips, tuple(leaks)


def _names_of(datasets: Sequence[Dataset]) -> list[str]:
    """The last part of each folder's name, or the whole where two are the same."""
    short = [dataset.folder.name for dataset in datasets]
    if len(set(short)) == len(short):
        return short
    return [str(dataset.folder) for dataset in datasets]


def _facts(
    columns: Columns, counters: Mapping[str, Counter], leaks: tuple[Leak, ...]
) -> tuple[Facts, list[Finding]]:
    prompts, odd_prompts = prompt_facts(columns)
    lengths, long_prompts = prompt_lengths(columns, counters)
    agreement, apart = agreement_facts(columns)
    speed, hasty = speed_facts(columns)
    sizes, odd_sizes = size_facts(columns)
    marks, unsafe = mark_facts(columns)
    facts = Facts(
        prompts=prompts,
        lengths=lengths,
        group_sizes=ties_by_size(columns),
        ties=ties_by_dimension(columns),
        agreement=agreement,
        speed=speed,
        sizes=sizes,
        marks=marks,
        leaks=leaks,
    )
    return facts, [*odd_prompts, *long_prompts, *apart, *hasty, *odd_sizes, *unsafe]


def _counts(columns: Columns) -> dict[str, Any]:
    images, choices = columns.dataset.images, columns.dataset.choices
    return {
        "images": len(images),
        "choices": len(choices),
        "prompts": len(columns.prompts),
        "generators": _tally(images.column("generator")),
        "dimensions": _tally(choices.column("dimension")),
        "sources": _tally(choices.column("source")),
        "annotators": len(columns.people),
        "images_per_choice": {row.of: row.choices for row in ties_by_size(columns)},
    }


def _tally(column: Any) -> dict[str, int]:
    counted = pc.value_counts(column.drop_null()).to_pylist()
    return dict(sorted((row["values"], row["counts"]) for row in counted))


def _key_findings(columns: Columns) -> list[Finding]:
    images, choices = columns.dataset.images, columns.dataset.choices
    found = []
    for what, column in (("image", images.column("image")), ("choice", choices.column("choice"))):
        again = _repeated(column)
        if len(again):
            message = f"{what} keys stand in the table more than once"
            told = names(column, again[:5])
            found.append(Finding.counted("error", "duplicate keys", len(again), told, message))
    unknown = np.flatnonzero(columns.row_of_image[columns.image] < 0)
    if len(unknown) and len(images):
        keys = names(columns.images, columns.image[unknown[:5]])
        where = columns.choice_names(columns.owner[unknown[:5]])
        told = [f"{key} in choice {choice}" for key, choice in zip(keys, where, strict=True)]
        message = "choices name images that are not in the table of images"
        found.append(Finding.counted("error", "unknown images", len(unknown), told, message))
    blank = np.array([not text.strip() for text in columns.prompts.to_pylist()], np.bool_)
    empty = np.flatnonzero(blank[columns.prompt_rows])
    if len(empty):
        told = names(images.column("image"), empty[:5])
        message = "images have an empty prompt"
        found.append(Finding.counted("warning", "empty prompts", len(empty), told, message))
    return found


def _repeated(column: Any) -> Any:
    """Rows whose key stood in an earlier row."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    # numbers grow where a key is new
    return np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1) == 0)

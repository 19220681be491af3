"""What others have printed, looked up by benchmark, and a scorer's own numbers put beside it.

The values stand in `published.toml` beside this file, each with its source, its protocol and how
sure it is. A value of another protocol is shown as such and never compared.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.errors import DataError
from palate.evaluation.joins import one_scorer, prompt_codes, scored_choices, values_of_choices
from palate.stats.breakdowns import Part, breakdown, facts_of, sizes_of
from palate.stats.intervals import Bootstrap
from palate.stats.protocols import PROTOCOLS, ProtocolAccuracy, accuracy_under, named

__all__ = [
    "PRINTED_AS",
    "BenchmarkSettings",
    "BenchmarkTable",
    "Published",
    "benchmark_scorer",
    "benchmarks",
    "published_beside",
    "published_value",
    "published_values",
]

Grade = Literal["A", "B", "C", "D"]

OTHER_PROTOCOLS: Final = (
    *("recall-filter", "correlation", "hps-benchmark", "wins", "win-rate", "means", "unstated"),
)
"""What a published value may be besides an accuracy of `palate.stats.protocols`."""

PRINTED_AS: Final = {
    "hps-v1": "HPS",
    "hps-v2": "HPS v2",
    "hps-v2.1": "HPS v2.1",
    "image-reward": "ImageReward",
    "pickscore": "PickScore",
    "mps": "MPS",
    "aesthetic": "Aesthetic",
    "clip-score": "CLIP ViT-L/14",
}
"""What papers call the scorers that Palate knows by name."""

_FILE: Final = Path(__file__).with_name("published.toml")


@dataclass(frozen=True, slots=True)
class Published:
    """One printed value: of whom, on what, by which protocol, from where, and how sure it is.

    `value` is in `unit` and `digits` is how many stand after the point; `share` is the value from 0
    to 1 where it is an accuracy. `part` is the style, metric or k of a table with several columns,
    else "". Grade A was read in the release's own data or code, B on an official page or in two
    sources that agree, C in one source at second hand; D was recalled and never verified.
    `superseded` values were replaced by their authors.
    """

    benchmark: str
    protocol: str
    name: str
    part: str
    value: float
    digits: int
    unit: str
    grade: Grade
    source: str
    note: str
    superseded: bool

    @property
    def share(self) -> float | None:
        """The value from 0 to 1, or None where it is neither in per cent nor a share."""
        return {"%": self.value / 100, "share": self.value}.get(self.unit)

    @property
    def rounding(self) -> float:
        """Half a unit of the last printed digit, in `unit`: the value may be off by so much."""
        return 0.5 * 10.0**-self.digits

    def printed(self) -> str:
        """The value with the digits that were printed."""
        return f"{self.value:.{self.digits}f}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "share": self.share, "rounding": self.rounding}


def published_values(
    benchmark: str | None = None,
    *,
    protocol: str | None = None,
    name: str | None = None,
    part: str | None = None,
    unverified: bool = False,
    superseded: bool = False,
) -> tuple[Published, ...]:
    """Look up published values, in the order of the file.

    What is not given is not asked for. Names are compared without case, spaces and signs. Values of
    grade D and superseded ones come only if asked for. Raises `DataError` for a benchmark that
    nothing was published on.
    """
    if benchmark is not None and benchmark not in benchmarks():
        raise DataError(f"no benchmark {benchmark!r}, expected one of {', '.join(benchmarks())}")
    return tuple(
        one
        for one in _read(_FILE)
        if (benchmark is None or one.benchmark == benchmark)
        and (protocol is None or one.protocol == protocol)
        and (name is None or _bare(one.name) == _bare(name))
        and (part is None or one.part == part)
        and (unverified or one.grade != "D")
        and (superseded or not one.superseded)
    )


def published_value(
    benchmark: str, protocol: str, name: str, *, part: str = "", unverified: bool = False
) -> Published:
    """Look up the one published value of a scorer or generator under a protocol.

    Of several the surest is taken, and of equally sure ones the first in the file. Raises
    `DataError` where there is none.
    """
    found = published_values(
        benchmark, protocol=protocol, name=name, part=part, unverified=unverified
    )
    if (best := surest(found)) is None:
        raise DataError(f"no published value of {name!r} on {benchmark} under {protocol}")
    return best


def published_beside(
    benchmark: str | None, protocol: str, scorer: str, part: str = ""
) -> Published | None:
    """What was printed for one of Palate's scorers under a protocol: the surest of several, or None.

    `scorer` is a name of the catalogue, with or without its profile after an @.
    """
    printed = PRINTED_AS.get(scorer.partition("@")[0])
    if benchmark is None or printed is None:
        return None
    return surest(published_values(benchmark, protocol=protocol, name=printed, part=part))


def surest(found: Iterable[Published]) -> Published | None:
    """Take the surest of several printed values, the first of equally sure ones, or None."""
    return min(found, key=attrgetter("grade"), default=None)


def benchmarks() -> tuple[str, ...]:
    """Names of the benchmarks with published values, in the order of the file."""
    return tuple(dict.fromkeys(one.benchmark for one in _read(_FILE)))


@cache
def _read(path: Path) -> tuple[Published, ...]:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["table"]
    return tuple(one for table in tables for one in _rows(table))


def _rows(table: dict[str, Any]) -> list[Published]:
    known = {*PROTOCOLS, *OTHER_PROTOCOLS}
    if table["protocol"] not in known:
        raise DataError(f"published.toml: unknown protocol {table['protocol']!r}")
    parts = table.get("parts", [""])
    rows = []
    for name, told in table["values"].items():
        texts = [told] if isinstance(told, str) else told
        if len(texts) != len(parts):
            raise DataError(f"published.toml: {name!r} has {len(texts)} values, not {len(parts)}")
        rows += [
            Published(
                benchmark=table["benchmark"],
                protocol=table["protocol"],
                name=name,
                part=part,
                value=float(text),
                digits=len(text.partition(".")[2]),
                unit=table["unit"],
                grade=table["grade"],
                source=table["source"],
                note=table.get("note", ""),
                superseded=table.get("superseded", False),
            )
            for part, text in zip(parts, texts, strict=True)
        ]
    return rows


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


@dataclass(frozen=True)
class BenchmarkSettings:
    """How a scorer is measured for a benchmark.

    `protocol` is a name of `palate.stats.protocols`, and `benchmark` the published values to stand
    beside the result (None: none). `by` is `dimension`, `source`, `size` or the name of a fact in
    the details of the choices or of their first images, such as `category`. `scale` and `threshold`
    are for the protocols that compare probabilities.
    """

    protocol: str
    benchmark: str | None = None
    scorer: str | None = None
    by: str | None = None
    scale: float | None = None
    threshold: float | None = None
    missing: Literal["fail", "leave-out"] = "fail"
    unverified: bool = False
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class BenchmarkTable:
    """A scorer's accuracy under a published protocol, part by part, beside what was published.

    `published` are the accuracies of the same protocol; `other` those on the same benchmark that
    were counted in another way, or do not say how, and so cannot be compared.
    """

    scorer: str
    result: ProtocolAccuracy
    parts: tuple[Part, ...]
    published: tuple[Published, ...]
    other: tuple[Published, ...]
    left_out: int
    settings: BenchmarkSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "scorer": self.scorer,
            "result": self.result.to_dict(),
            "parts": [part.to_dict() for part in self.parts],
            "published": [one.to_dict() for one in self.published],
            "other": [one.to_dict() for one in self.other],
            "left_out": self.left_out,
            "settings": asdict(self.settings),
        }

    def to_markdown(self) -> str:
        """Return the tables as Markdown: accuracies in per cent, highest first, then the parts."""
        return _ranking(self) + ("\n" + _parts(self.parts) if self.parts else "")


def benchmark_scorer(
    choices: Any, scores: Any, settings: BenchmarkSettings, *, images: Any = None
) -> BenchmarkTable:
    """Measure a scorer under a published protocol and put what was published beside it.

    `choices`, `scores` and `images` are tables; `images` is needed for a fact that only images
    have. The order of the choices does not matter, that within a choice is the order shown.
    """
    protocol = named(settings.protocol)
    scores = one_scorer(scores, settings.scorer)
    values = values_of_choices(choices, scores)
    kept = scored_choices(choices, values, scores, settings.missing)
    values = values[np.repeat(kept, list_lengths(choices.column("images")))]
    left_out, choices = int((~kept).sum()), choices.filter(pa.array(kept))
    offsets = np.concatenate([[0], np.cumsum(list_lengths(choices.column("images")))])
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy()
    columns = (values, ranks, offsets, prompt_codes(choices))
    options: dict[str, Any] = {
        "scale": settings.scale,
        "threshold": settings.threshold,
        "bootstrap": Bootstrap(settings.level, settings.resamples, settings.seed),
    }
    parts: tuple[Part, ...] = ()
    if settings.by is not None:
        labels = _labels(settings.by, choices, offsets, images)
        parts = breakdown(protocol, *columns, by=labels, **options)
    found: tuple[Published, ...] = ()
    if settings.benchmark is not None:
        found = published_values(settings.benchmark, unverified=settings.unverified)
    return BenchmarkTable(
        scorer=scores.column("scorer")[0].as_py(),
        result=accuracy_under(protocol, *columns, **options),
        parts=parts,
        published=tuple(one for one in found if one.protocol == protocol.name),
        other=tuple(one for one in found if one.protocol != protocol.name),
        left_out=left_out,
        settings=settings,
    )


def _labels(by: str, choices: Any, offsets: NDArray[np.int64], images: Any) -> Any:
    """One label per choice: a column, its size, or a fact of its details or its first image's."""
    if by == "size":
        return sizes_of(offsets)
    if by in ("dimension", "source"):
        return choices.column(by).to_pylist()
    own = facts_of(choices.column("details").to_pylist(), by, absent="")
    if images is not None:
        first = pc.list_flatten(choices.column("images")).combine_chunks()
        first = first.take(pa.array(offsets[:-1]))
        rows = pc.index_in(first, value_set=images.column("image").combine_chunks())
        details = images.column("details").combine_chunks().take(rows).to_pylist()
        own = [mine or its for mine, its in zip(own, facts_of(details, by, absent=""), strict=True)]
    if not any(own):
        raise DataError(f"no choice has {by!r} in its details, nor has its first image")
    return [label or "(none)" for label in own]


def _ranking(table: BenchmarkTable) -> str:
    result, estimate = table.result, table.result.accuracy.estimate
    bounds = f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"
    ours = [(result.value, f"**{table.scorer}**", f"{100 * result.value:.2f}", bounds)]
    ours += [
        (value, label, f"{100 * value:.2f}", "same choices")
        for label, value in (
            ("chance", result.chance),
            ("always first", result.always_first),
            ("always last", result.always_last),
            ("constant scorer", result.constant),
        )
    ]
    theirs = [
        (one.share, one.name, _percent(one), f"published, {one.grade}: {one.source}")
        for one in table.published
        if one.share is not None
    ]
    rows = sorted([*ours, *theirs], key=lambda row: (-row[0], row[1]))
    head = f"| {result.protocol.name} | % | |\n| --- | ---: | --- |\n"
    return head + "".join(f"| {name} | {value} | {told} |\n" for _, name, value, told in rows)


def _percent(one: Published) -> str:
    """The printed value in per cent, with no more digits than were printed."""
    digits = one.digits if one.unit == "%" else max(0, one.digits - 2)
    return f"{100 * (one.share or 0):.{digits}f}"


def _parts(parts: tuple[Part, ...]) -> str:
    lines = ["| part | choices | % | fair | chance | always first | always last |"]
    lines.append("| --- " + "| ---: " * 6 + "|")
    for part in parts:
        found = part.result
        told = ["–"] * 5
        if found is not None:
            values = (found.value, found.fair, found.chance, found.always_first, found.always_last)
            told = ["–" if value is None else f"{100 * value:.2f}" for value in values]
        lines.append(f"| {part.name} | {part.choices} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"

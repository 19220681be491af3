"""Scorers × benchmarks: one table, with what was published beside each measured value."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.duels import duels
from palate.data.tables import Dataset
from palate.errors import DataError
from palate.evaluation.benchmarks import Benchmark, as_counted, benchmark_of
from palate.evaluation.disagreement import Disagreement, disagreements
from palate.evaluation.joins import one_scorer, prompt_codes, scored_choices, values_of_choices
from palate.evaluation.published import (
    BenchmarkSettings,
    Published,
    benchmark_scorer,
    published_values,
)
from palate.stats.accuracy import pair_credit
from palate.stats.breakdowns import Part
from palate.stats.protocols import ProtocolAccuracy
from palate.stats.two_way.clusters import ClusterSettings, Comparison, compare_scorers

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


@dataclass(frozen=True)
class BoardSettings:
    """How scorers are measured against data sets.

    `benchmark` names the benchmark of all data sets (None: each by the source of its choices, any table
    of choices by pooled pairs). `by` breaks the accuracies down, as in `BenchmarkSettings`. `worst` is how
    many questions are kept on which a scorer and people disagree most.
    """

    benchmark: str | None = None
    by: str | None = None
    missing: Literal["fail", "leave-out"] = "fail"
    worst: int = 12
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class BoardRow:
    """One scorer on one benchmark and dimension, under one protocol.

    `published` is the printed value of the same scorer under the same protocol, `difference` the measured
    value less the printed one, both from 0 to 1.
    """

    data: str
    benchmark: str
    dimension: str
    scorer: str
    fingerprint: str
    unit: str
    main: bool
    result: ProtocolAccuracy
    parts: tuple[Part, ...]
    published: Published | None
    left_out: int

    @property
    def difference(self) -> float | None:
        """Measured less printed; None where nothing was printed."""
        share = None if self.published is None else self.published.share
        return None if share is None else self.result.value - share

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "data": self.data,
            "benchmark": self.benchmark,
            "dimension": self.dimension,
            "scorer": self.scorer,
            "fingerprint": self.fingerprint,
            "unit": self.unit,
            "main": self.main,
            "result": self.result.to_dict(),
            "parts": [part.to_dict() for part in self.parts],
            "published": None if self.published is None else self.published.to_dict(),
            "difference": self.difference,
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class Versus:
    """Two scorers on the same choices: pooled pairs, equal scores half right, clustered by prompt and person."""

    data: str
    dimension: str
    a: str
    b: str
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "data": self.data,
            "dimension": self.dimension,
            "a": self.a,
            "b": self.b,
            **self.comparison.to_dict(),
        }


@dataclass(frozen=True)
class Worst:
    """The questions on which one scorer and people disagree most."""

    data: str
    dimension: str
    scorer: str
    questions: tuple[Disagreement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        told = [question.to_dict() for question in self.questions]
        return {
            "data": self.data,
            "dimension": self.dimension,
            "scorer": self.scorer,
            "worst": told,
        }


@dataclass(frozen=True)
class Board:
    """Every scorer on every data set and dimension, and how they compare."""

    rows: tuple[BoardRow, ...]
    versus: tuple[Versus, ...]
    worst: tuple[Worst, ...]
    settings: BoardSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "versus": [one.to_dict() for one in self.versus],
            "worst": [one.to_dict() for one in self.worst],
            "settings": asdict(self.settings),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The leaderboard as text: header and rows, the main protocol of each benchmark first."""
        header = ["data", "dimension", "scorer", "protocol", "%", "interval", "chance"]
        header += ["published", "difference", "choices"]
        return header, [_cells(row) for row in self.rows]

    def to_markdown(self) -> str:
        """The leaderboard and the comparisons as Markdown."""
        header, rows = self.table()
        lines = [" | ".join(header), " | ".join("---" for _ in header)]
        lines += [" | ".join(row) for row in rows]
        text = "\n".join(f"| {line} |" for line in lines) + "\n"
        if self.versus:
            text += "\n| data | dimension | scorers | difference, % points | |\n| --- | --- | --- | --- | --- |\n"
        for one in self.versus:
            text += f"| {one.data} | {one.dimension} | {one.a} − {one.b} | {_gap(one)} | {_verdict(one)} |\n"
        return text

    def to_csv(self) -> str:
        """The leaderboard as CSV, shares from 0 to 1 with all digits."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        names = [
            "data",
            "benchmark",
            "dimension",
            "scorer",
            "fingerprint",
            "protocol",
            "main",
            "value",
        ]
        names += ["low", "high", "fair", "chance", "published", "difference", "choices", "counted"]
        writer.writerow(names)
        for row in self.rows:
            estimate = row.result.accuracy.estimate
            printed = None if row.published is None else row.published.share
            writer.writerow(
                [
                    *(row.data, row.benchmark, row.dimension, row.scorer, row.fingerprint),
                    *(row.result.protocol.name, row.main, row.result.value),
                    *(estimate.low, estimate.high, row.result.fair, row.result.chance),
                    *(printed, row.difference, row.result.choices, estimate.count),
                ]
            )
        return buffer.getvalue()


def measure_board(
    datasets: Sequence[tuple[str, Dataset]],
    scores: Sequence[Any],
    settings: BoardSettings | None = None,
) -> Board:
    """Measure every scorer in the tables of scores against every data set.

    A scorer with several dimensions is held against the choices of each of them. Scorers are compared on
    the choices that all of them scored. Raises `DataError` for a choice without scores, unless
    `missing="leave-out"`, and where a scorer has no score for any image of a data set.
    """
    settings = settings or BoardSettings()
    scorers = [own for table in scores for own in _scorers(table)]
    if not scorers:
        raise DataError("there are no scores")
    rows: list[BoardRow] = []
    versus: list[Versus] = []
    worst: list[Worst] = []
    for name, dataset in datasets:
        if not len(dataset.choices):
            raise DataError(f"{name}: holds no choices")
        benchmark = benchmark_of(dataset.choices, settings.benchmark)
        for dimension in sorted(dataset.choices.column("dimension").unique().to_pylist()):
            one = pc.equal(dataset.choices.column("dimension"), dimension)
            choices = as_counted(dataset.choices.filter(one), benchmark)
            where = (name, dimension)
            for own in scorers:
                rows += _rows(where, benchmark, choices, dataset.images, own, settings)
                worst.append(_worst(where, choices, own, settings))
            versus += _versus(where, choices, scorers, settings)
    return Board(tuple(rows), tuple(versus), tuple(worst), settings)


def _scorers(table: Any) -> Iterator[Any]:
    """The rows of each scorer in a table, by name and fingerprint."""
    kinds = (
        table.select(["scorer", "fingerprint"]).group_by(["scorer", "fingerprint"]).aggregate([])
    )
    for kind in sorted(kinds.to_pylist(), key=lambda one: (one["scorer"], one["fingerprint"])):
        same = pc.and_(
            pc.equal(table.column("scorer"), kind["scorer"]),
            pc.equal(table.column("fingerprint"), kind["fingerprint"]),
        )
        yield one_scorer(table.filter(same), None)


def _rows(
    where: tuple[str, str],
    benchmark: Benchmark,
    choices: Any,
    images: Any,
    scores: Any,
    settings: BoardSettings,
) -> Iterator[BoardRow]:
    name, dimension = where
    scorer = scores.column("scorer")[0].as_py()
    for protocol in (benchmark.protocol, *benchmark.also):
        asked = BenchmarkSettings(
            protocol=protocol,
            by=settings.by if protocol == benchmark.protocol else None,
            missing=settings.missing,
            level=settings.level,
            resamples=settings.resamples,
            seed=settings.seed,
        )
        found = benchmark_scorer(choices, scores, asked, images=images)
        yield BoardRow(
            data=name,
            benchmark=benchmark.name,
            dimension=dimension,
            scorer=scorer,
            fingerprint=scores.column("fingerprint")[0].as_py(),
            unit=scores.column("unit")[0].as_py(),
            main=protocol == benchmark.protocol,
            result=found.result,
            parts=found.parts,
            published=_published(benchmark, protocol, scorer),
            left_out=found.left_out,
        )


def _published(benchmark: Benchmark, protocol: str, scorer: str) -> Published | None:
    """What was printed for a scorer by the same protocol; the surest of several."""
    printed = PRINTED_AS.get(scorer.partition("@")[0])
    if benchmark.published is None or printed is None:
        return None
    found = published_values(benchmark.published, protocol=protocol, name=printed)
    return min(found, key=lambda one: one.grade, default=None)


def _values(choices: Any, scores: Any, missing: str) -> tuple[Any, NDArray[np.float64]]:
    """The choices whose images all have a score, and those scores, flat."""
    values = values_of_choices(choices, scores)
    kept = scored_choices(choices, values, scores, missing)
    flat = np.repeat(kept, list_lengths(choices.column("images")))
    return choices.filter(pa.array(kept)), values[flat]


def _worst(where: tuple[str, str], choices: Any, scores: Any, settings: BoardSettings) -> Worst:
    kept, values = _values(choices, scores, settings.missing)
    found = tuple(disagreements(kept, values, settings.worst))
    return Worst(*where, scores.column("scorer")[0].as_py(), found)


def _versus(
    where: tuple[str, str], choices: Any, scorers: Sequence[Any], settings: BoardSettings
) -> Iterator[Versus]:
    """Every two scorers on the choices that all of them scored."""
    if len(scorers) < 2:
        return
    values = [values_of_choices(choices, own) for own in scorers]
    lengths = list_lengths(choices.column("images"))
    owner = np.repeat(np.arange(len(lengths)), lengths)
    kept = np.ones(len(lengths), dtype=bool)
    for own in values:
        kept[owner[np.isnan(own)]] = False
    if not kept.any():
        return
    flat = np.repeat(kept, lengths)
    shared = choices.filter(pa.array(kept))
    pairs = duels(shared)
    earned = [_credit(own[flat], pairs) for own in values]
    decided = pairs.outcome != 0.5
    if not decided.any():
        return
    prompts = prompt_codes(shared)[pairs.choice][decided]
    people = np.asarray(shared.column("annotator").to_pylist(), dtype=object)[pairs.choice][decided]
    known = None if all(person is None for person in people) else people
    for (a, first), (b, second) in combinations(zip(scorers, earned, strict=True), 2):
        found = compare_scorers(
            first[decided],
            second[decided],
            prompts,
            known,
            settings=ClusterSettings(level=settings.level),
        )
        names = (a.column("scorer")[0].as_py(), b.column("scorer")[0].as_py())
        yield Versus(*where, *names, found)


def _credit(values: NDArray[np.float64], pairs: Any) -> NDArray[np.float64]:
    earned, _ = pair_credit(
        values[pairs.first_index], values[pairs.second_index], pairs.outcome, ties="half"
    )
    return earned


def _cells(row: BoardRow) -> list[str]:
    estimate, published, difference = row.result.accuracy.estimate, row.published, row.difference
    return [
        row.data,
        row.dimension,
        row.scorer,
        row.result.protocol.name,
        f"{100 * row.result.value:.2f}",
        f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}",
        f"{100 * row.result.chance:.1f}",
        "" if published is None else f"{published.printed()} ({published.grade})",
        "" if difference is None else f"{100 * difference:+.2f}",
        f"{row.result.choices:,}",
    ]


def _gap(one: Versus) -> str:
    found = one.comparison.difference
    return f"{100 * found.value:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"


def _verdict(one: Versus) -> str:
    better = one.comparison.better
    if better == "not separable":
        return "not separable"
    return f"{one.a if better == 'a' else one.b} is better"


def versus_rows(board: Board) -> list[list[str]]:
    """The comparisons of scorers as text."""
    return [[v.data, v.dimension, f"{v.a} − {v.b}", _gap(v), _verdict(v)] for v in board.versus]

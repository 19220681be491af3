"""Scorers × benchmarks: one table, with what was published beside each measured value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.duels import duels
from palate.data.tables import Dataset
from palate.errors import DataError
from palate.evaluation.benchmarks import Benchmark, as_counted, benchmark_of
from palate.evaluation.ceilings import HumanCeiling, ceilings_of
from palate.evaluation.disagreement import Disagreement, disagreements
from palate.evaluation.joins import one_scorer, prompt_codes, scored_choices, values_of_choices
from palate.evaluation.opinions import OpinionRow, opinion_rows, opinions_in
from palate.evaluation.published import (
    BenchmarkSettings,
    Published,
    benchmark_scorer,
    published_beside,
)
from palate.evaluation.retrieval import RetrievalRow, retrieval_rows
from palate.stats.accuracy import pair_credit
from palate.stats.breakdowns import Part
from palate.stats.intervals import Bootstrap
from palate.stats.protocols import ProtocolAccuracy
from palate.stats.two_way.clusters import ClusterSettings, Comparison, compare_scorers


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
    """Every scorer on every data set and dimension, what people reach there, and how scorers compare.

    `rows` are accuracies under protocols. `ceilings` are those of people on the same choices, `retrieval`
    is of choices between more than two images, and `opinions` of those that were made of mean opinions.
    """

    rows: tuple[BoardRow, ...]
    ceilings: tuple[HumanCeiling, ...]
    retrieval: tuple[RetrievalRow, ...]
    opinions: tuple[OpinionRow, ...]
    versus: tuple[Versus, ...]
    worst: tuple[Worst, ...]
    settings: BoardSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = ("rows", "ceilings", "retrieval", "opinions", "versus", "worst")
        told = {name: [one.to_dict() for one in getattr(self, name)] for name in names}
        return {**told, "settings": asdict(self.settings)}


def measure_board(
    datasets: Sequence[tuple[str, Dataset]],
    scores: Sequence[Any],
    settings: BoardSettings | None = None,
) -> Board:
    """Measure every scorer in the tables of scores against every data set.

    Tables of one scorer count as one, so that each data set may have been scored by itself. A scorer with
    several dimensions, such as MPS under several conditions, is held against the choices of each of them.
    Scorers are compared on the choices that all of them scored. Raises `DataError` for a choice without
    scores, unless `missing="leave-out"`, where a scorer has no score for any image of a data set, and where
    two tables of a scorer disagree.
    """
    settings = settings or BoardSettings()
    scorers = _scorers(scores)
    if not scorers:
        raise DataError("there are no scores")
    found: dict[str, list[Any]] = {
        name: [] for name in ("rows", "ceilings", "retrieval", "opinions", "versus", "worst")
    }
    for name, dataset in datasets:
        if not len(dataset.choices):
            raise DataError(f"{name}: holds no choices")
        benchmark = benchmark_of(dataset.choices, settings.benchmark)
        for dimension in sorted(dataset.choices.column("dimension").unique().to_pylist()):
            one = pc.equal(dataset.choices.column("dimension"), dimension)
            part = replace(dataset, choices=dataset.choices.filter(one))
            asked = _asked(scorers, dimension)
            _measure((name, dimension), benchmark, part, asked, settings, found)
    return Board(**{name: tuple(own) for name, own in found.items()}, settings=settings)


def _measure(
    where: tuple[str, str],
    benchmark: Benchmark,
    dataset: Dataset,
    scorers: Sequence[Any],
    settings: BoardSettings,
    found: dict[str, list[Any]],
) -> None:
    """Add what is measured on the choices of one data set and dimension to what was found."""
    bootstrap = Bootstrap(settings.level, settings.resamples, settings.seed)
    choices = as_counted(dataset.choices, benchmark)
    opinions = opinions_in(dataset.choices)
    for own in scorers:
        found["rows"] += _rows(where, benchmark, choices, dataset.images, own, settings)
        values = values_of_choices(choices, own)
        rows = scored_choices(choices, values, own, settings.missing)
        flat = np.repeat(rows, list_lengths(choices.column("images")))
        kept = (choices.filter(pa.array(rows)), values[flat])
        found["worst"].append(_worst(where, *kept, own, settings))
        found["retrieval"] += retrieval_rows(where, benchmark, *kept, own, bootstrap)
        if opinions is not None:
            given = (choices, values, own, opinions)
            found["opinions"] += opinion_rows(where, benchmark, *given, bootstrap)
    found["ceilings"] += ceilings_of(where, dataset.choices, benchmark, bootstrap)
    found["versus"] += _versus(where, choices, scorers, settings)


def _scorers(tables: Sequence[Any]) -> list[Any]:
    """The rows of each scorer, by name and fingerprint, from all tables: data sets may have been scored apart."""
    parts: dict[tuple[str, str], list[Any]] = {}
    for table in tables:
        kinds = table.select(["scorer", "fingerprint"]).group_by(["scorer", "fingerprint"])
        for kind in sorted(tuple(one.values()) for one in kinds.aggregate([]).to_pylist()):
            same = pc.and_(
                pc.equal(table.column("scorer"), kind[0]),
                pc.equal(table.column("fingerprint"), kind[1]),
            )
            parts.setdefault(kind, []).append(table.filter(same))
    return [_together(own) for own in parts.values()]


def _asked(scorers: Sequence[Any], dimension: str) -> list[Any]:
    """Of scorers of one name, those that judge this dimension, if any does: MPS is one scorer per condition."""
    judged = {
        own.column("scorer")[0].as_py()
        for own in scorers
        if dimension in own.column("dimension").unique().to_pylist()
    }
    return [
        own
        for own in scorers
        if own.column("scorer")[0].as_py() not in judged
        or dimension in own.column("dimension").unique().to_pylist()
    ]


def _together(parts: Sequence[Any]) -> Any:
    """One table of a scorer's parts. Raises `DataError` where they disagree about an image."""
    rows = pa.concat_tables(parts)
    if len(parts) > 1:
        values = rows.group_by(["image", "prompt", "dimension"]).aggregate(
            [
                ("value", "min"),
                ("value", "max"),
            ]
        )
        apart = values.filter(pc.not_equal(values.column("value_min"), values.column("value_max")))
        for row in apart.slice(0, 1).to_pylist():
            raise DataError(
                f"{rows.column('scorer')[0]} gives image {row['image']!r} {row['value_min']} in one table of scores"
                f" and {row['value_max']} in another, expected one score"
            )
    return one_scorer(rows, None)


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
    # what is printed as one accuracy is that of the overall choice
    printed = benchmark.published if dimension == "overall" else None
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
            published=published_beside(printed, protocol, scorer),
            left_out=found.left_out,
        )


def _worst(
    where: tuple[str, str], choices: Any, values: Any, scores: Any, settings: BoardSettings
) -> Worst:
    found = tuple(disagreements(choices, values, settings.worst))
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

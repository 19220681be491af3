"""The published benchmarks by name: whose choices they are, and by which protocol they are counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from palate.data.records import Choice
from palate.data.tables import to_rows, to_table
from palate.errors import DataError


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A set of choices with the protocol of the paper it is from.

    `prefix` is what the source of its choices begins with. `protocol` is counted first, `also` beside it.
    `published` names the table of published values on it, `retrieval` that of Recall@k and Filter@k; they
    are of the choices whose source holds the word `tested`. `agreed` takes the ranking that a record
    agreed on, instead of each person's own, as the official scripts do.
    """

    name: str
    title: str
    prefix: str
    protocol: str
    also: tuple[str, ...] = ()
    published: str | None = None
    retrieval: str | None = None
    tested: str = ""
    agreed: bool = False


BENCHMARKS: Final = {
    one.name: one
    for one in (
        Benchmark(
            *("hpd-v1", "HPD v1 test", "hpd-v1/", "hpd-v1-top1"),
            published="hpd-v1-test",
            tested="test",
        ),
        Benchmark(
            *("hpd-v2", "HPD v2 test", "hpd-v2/", "hps-v2-inversions"),
            also=("mps-hpd-v2", "pick-a-pic-no-ties"),
            published="hpd-v2-test",
            tested="test",
            agreed=True,
        ),
        Benchmark(
            *("image-reward", "ImageReward test", "image-reward", "image-reward-pairs"),
            also=("image-reward-macro", "pick-a-pic-no-ties"),
            published="image-reward-test",
            retrieval="image-reward-retrieval",
            tested="test",
        ),
        # the files of v1 and v2 have one form, and what was printed for v1 needs a threshold
        Benchmark(
            *("pick-a-pic", "Pick-a-Pic", "pick-a-pic", "pick-a-pic-no-ties"),
            published="pick-a-pic-v1-test",
            tested="test_unique",
        ),
        Benchmark(
            *("pick-a-pic-v2", "Pick-a-Pic v2", "pick-a-pic", "pick-a-pic-no-ties"),
            published="pick-a-pic-v2-test",
            tested="test_unique",
        ),
        Benchmark("mhp", "MHP", "mhp", "mhp-pairs", published="mhp-test", tested="test"),
        Benchmark(
            *("agiqa-3k", "AGIQA-3K", "agiqa-3k", "image-reward-pairs"), published="agiqa-3k"
        ),
        Benchmark(
            *("choices", "choices", "", "image-reward-pairs"),
            also=("hpd-v1-top1", "image-reward-macro"),
        ),
    )
}
"""Every benchmark by its name; `choices` takes any table."""


def benchmark_of(choices: Any, wanted: str | None = None) -> Benchmark:
    """Return the benchmark of a table of choices: the one that is named, or the one of its source.

    Where it is not named and a source is not that of the test set, such as a file for training, the
    benchmark comes without published values. Raises `DataError` for an unknown name, and for a table with
    choices from elsewhere.
    """
    if wanted is not None and wanted not in BENCHMARKS:
        raise DataError(f"no benchmark {wanted!r}, expected one of {', '.join(BENCHMARKS)}")
    sources = choices.column("source").unique().to_pylist()
    if wanted is None:
        for one in BENCHMARKS.values():
            if one.prefix and all(source.startswith(one.prefix) for source in sources):
                tested = all(one.tested in source for source in sources)
                return one if tested else replace(one, published=None, retrieval=None)
        return BENCHMARKS["choices"]
    found = BENCHMARKS[wanted]
    strangers = [source for source in sources if not source.startswith(found.prefix)]
    if strangers:
        raise DataError(
            f"choices from {strangers[0]!r} are not of {found.title}; leave the name of the benchmark out"
        )
    return found


def as_counted(choices: Any, benchmark: Benchmark) -> Any:
    """Return the choices as the benchmark counts them: all, or one agreed ranking per record."""
    if not benchmark.agreed:
        return choices
    return to_table(_agreed(choices), "choices")


def _agreed(choices: Any) -> Iterator[Choice]:
    """The agreed ranking of each record, once; a record without one is kept as it is."""
    seen: set[tuple[str, tuple[str, ...], str]] = set()
    for row in to_rows(choices, Choice):
        ranks = json.loads(row.details or "{}").get("rank")
        if not isinstance(ranks, list) or len(ranks) != len(row.images):
            yield row
            continue
        key = (row.prompt, row.images, row.dimension)
        if key in seen:
            continue
        seen.add(key)
        zero = int(min(ranks) == 0)
        yield Choice(
            choice=row.choice,
            prompt=row.prompt,
            images=row.images,
            ranks=tuple(rank + zero for rank in ranks),
            dimension=row.dimension,
            source=row.source,
            details=row.details,
        )


CHUNK: Final = 80
"""Prompts in a chunk of the HPS v2 benchmark; a style has ten."""


@dataclass(frozen=True, slots=True)
class StyleScore:
    """Mean score of a generator's images in one style, and the deviation of the means of chunks.

    Source: HPSv2, `hpsv2/evaluation.py`: the scores of a style in the order of its prompts are cut into
    ten chunks of 80, and the standard deviation (population) of the means of chunks is printed.
    """

    generator: str
    style: str
    images: int
    mean: float
    deviation: float
    chunks: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def benchmark_styles(images: Any, scores: Any) -> list[StyleScore]:
    """Score generators as the HPS v2 benchmark does: by style, in chunks of 80 prompts.

    `images` is a table whose keys are `model/style/00000.jpg` (see `palate data import hps-benchmark`) and
    `scores` a table of one scorer. Higher is better. The last row of a generator is the mean of all.
    Raises `DataError` where an image has no score.
    """
    keys = images.column("image").to_pylist()
    rows = pc.index_in(images.column("image"), value_set=scores.column("image").combine_chunks())
    values = np.asarray(
        pc.take(scores.column("value"), rows.combine_chunks()).to_numpy(zero_copy_only=False),
        dtype=np.float64,
    )
    if np.isnan(values).any():
        missing = keys[int(np.argmax(np.isnan(values)))]
        raise DataError(f"image {missing!r} has no score ({int(np.isnan(values).sum())} in all)")
    order = np.argsort(np.asarray(keys, dtype=object), kind="stable")
    groups: dict[tuple[str, str], list[float]] = {}
    for place in order:
        parts = keys[place].split("/")
        if len(parts) != 3:
            raise DataError(f"image {keys[place]!r} is not named model/style/number")
        groups.setdefault((parts[0], parts[1]), []).append(float(values[place]))
    found = []
    for generator in sorted({name for name, _ in groups}):
        own = {style: group for (name, style), group in groups.items() if name == generator}
        found += [_style(generator, style, group) for style, group in sorted(own.items())]
        everything = [value for group in own.values() for value in group]
        found.append(_style(generator, "all", everything))
    return found


def _style(generator: str, style: str, values: list[float]) -> StyleScore:
    chunks = [np.mean(values[start : start + CHUNK]) for start in range(0, len(values), CHUNK)]
    return StyleScore(
        generator=generator,
        style=style,
        images=len(values),
        mean=float(np.mean(values)),
        deviation=float(np.std(chunks)),
        chunks=len(chunks),
    )

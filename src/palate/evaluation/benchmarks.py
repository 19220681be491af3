"""The published benchmarks by name: whose choices they are, and by which protocol they are counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

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

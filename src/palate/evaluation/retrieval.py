"""Recall@k and Filter@k of a scorer on choices between more than two images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.evaluation.benchmarks import Benchmark
from palate.evaluation.joins import prompt_codes
from palate.evaluation.published import Published, published_beside
from palate.stats.accuracy import NothingDecidedError
from palate.stats.intervals import Bootstrap
from palate.stats.retrieval import Retrieval, filter_at, recall_at

FIRST: Final = (1, 2, 4)
"""The k that ImageReward prints."""

ANOTHER_SET: Final = "another test set, not comparable"
"""What stands beside a published value: the prompts it is of are lost, so it is compared with nothing."""


@dataclass(frozen=True)
class RetrievalRow:
    """Recall@k or Filter@k of one scorer on a data set and dimension.

    `published` is what was printed for the scorer on another test set, whose definition is not known
    either: it is shown, and no difference is taken.
    """

    data: str
    benchmark: str
    dimension: str
    scorer: str
    fingerprint: str
    result: Retrieval
    published: Published | None

    @property
    def measure(self) -> str:
        """The measure with its k, as papers write it."""
        return f"{self.result.measure}@{self.result.k}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        printed = None if self.published is None else self.published.to_dict()
        return {
            "data": self.data,
            "benchmark": self.benchmark,
            "dimension": self.dimension,
            "scorer": self.scorer,
            "fingerprint": self.fingerprint,
            "result": self.result.to_dict(),
            "published": None if printed is None else printed | {"of": ANOTHER_SET},
        }


def retrieval_rows(
    where: tuple[str, str],
    benchmark: Benchmark,
    choices: Any,
    values: NDArray[np.float64],
    scores: Any,
    bootstrap: Bootstrap,
) -> Iterator[RetrievalRow]:
    """Measure Recall@k and Filter@k for k = 1, 2 and 4 on the choices between more than two images.

    `values` is the score of every image of every choice, flat; `scores` is the table they are from. A k
    that no choice with a decision has more images than is left out.
    """
    lengths = list_lengths(choices.column("images"))
    kept = lengths > 2
    if not kept.any():
        return
    flat = np.repeat(kept, lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy()[flat]
    columns = (values[flat], ranks, offsets, prompt_codes(choices)[kept])
    scorer = scores.column("scorer")[0].as_py()
    for measured in (recall_at, filter_at):
        for k in FIRST:
            try:
                found = measured(k, *columns, bootstrap=bootstrap)
            except NothingDecidedError:
                continue
            part = f"{found.measure}@{k}"
            printed = published_beside(benchmark.retrieval, "recall-filter", scorer, part)
            yield RetrievalRow(
                data=where[0],
                benchmark=benchmark.name,
                dimension=where[1],
                scorer=scorer,
                fingerprint=scores.column("fingerprint")[0].as_py(),
                result=found,
                published=printed if where[1] == "overall" else None,
            )

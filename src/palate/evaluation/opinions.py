"""A scorer against mean opinions: rank correlation over all images, and within each prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.errors import DataError
from palate.evaluation.benchmarks import Benchmark
from palate.evaluation.joins import prompt_codes
from palate.evaluation.published import Published, published_beside
from palate.stats.correlation import (
    Correlation,
    Measure,
    OverallCorrelation,
    correlation_by_prompt,
    overall_correlation,
)
from palate.stats.intervals import Bootstrap
from palate.stats.numbers import finite
from palate.stats.opinions import MeanOpinions, mean_opinions

MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)


@dataclass(frozen=True)
class OpinionRow:
    """One correlation of a scorer with the mean opinions of a data set and dimension, from -1 to 1.

    `within` is the mean over prompts, None where no prompt has an order in both. `left_out` counts the
    images without a score. `published` is what was printed for the scorer over all images; where its
    `protocol` is "unstated" the source does not say over which, and no difference is taken.
    """

    data: str
    benchmark: str
    dimension: str
    scorer: str
    fingerprint: str
    measure: Measure
    overall: OverallCorrelation
    within: Correlation | None
    ratings: int
    left_out: int
    published: Published | None

    @property
    def difference(self) -> float | None:
        """Measured over all images, less printed; None where there is no such pair of numbers."""
        if self.published is None or self.published.protocol != "correlation":
            return None
        return finite(self.overall.value - self.published.value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "data": self.data,
            "benchmark": self.benchmark,
            "dimension": self.dimension,
            "scorer": self.scorer,
            "fingerprint": self.fingerprint,
            "measure": self.measure,
            "overall": self.overall.to_dict(),
            "within_prompt": None if self.within is None else self.within.to_dict(),
            "ratings": self.ratings,
            "left_out": self.left_out,
            "published": None if self.published is None else self.published.to_dict(),
            "difference": self.difference,
        }


def opinions_in(choices: Any) -> MeanOpinions | None:
    """Mean opinions of the images of choices whose details hold ratings or means; None if none do."""
    details = choices.column("details")
    held = pc.or_(pc.match_substring(details, '"means"'), pc.match_substring(details, '"ratings"'))
    if not pc.any(held).as_py():
        return None
    found = mean_opinions(choices.filter(held))
    return found if found.rows else None


def opinion_rows(
    where: tuple[str, str],
    benchmark: Benchmark,
    choices: Any,
    values: NDArray[np.float64],
    scores: Any,
    opinions: MeanOpinions,
    bootstrap: Bootstrap,
) -> Iterator[OpinionRow]:
    """Correlate scores with mean opinions: Kendall's tau-b, Spearman's rho and Pearson's r.

    `values` is the score of every image of every choice, flat, not a number where there is none; `scores`
    is the table they are from. An image counts once, in however many choices it stands.
    """
    given, means, prompts = _columns(choices, values, opinions)
    known = np.isfinite(given)
    if not known.any():
        raise DataError(f"{where[0]}, {where[1]}: no image with a mean opinion has a score")
    columns = (given[known], means[known], prompts[known])
    scorer = scores.column("scorer")[0].as_py()
    for measure in MEASURES:
        part = f"{where[1]}, {measure}"
        printed = published_beside(benchmark.published, "correlation", scorer, part)
        yield OpinionRow(
            data=where[0],
            benchmark=benchmark.name,
            dimension=where[1],
            scorer=scorer,
            fingerprint=scores.column("fingerprint")[0].as_py(),
            measure=measure,
            overall=overall_correlation(*columns, measure=measure, level=bootstrap.level),
            within=_within(*columns, measure, bootstrap),
            ratings=opinions.ratings,
            left_out=int((~known).sum()),
            published=printed or published_beside(benchmark.published, "unstated", scorer, part),
        )


def _columns(
    choices: Any, values: NDArray[np.float64], opinions: MeanOpinions
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Score, mean opinion and prompt of every image that has an opinion."""
    images = pa.array([row.image for row in opinions.rows], pa.string())
    flat = pc.list_flatten(choices.column("images")).combine_chunks()
    # the first place at which each image was shown
    places = pc.index_in(images, value_set=flat).to_numpy()
    owner = np.repeat(np.arange(len(choices)), list_lengths(choices.column("images")))
    means = np.array([row.mean for row in opinions.rows])
    return values[places], means, prompt_codes(choices)[owner[places]]


def _within(
    scores: NDArray[np.float64],
    means: NDArray[np.float64],
    prompts: NDArray[np.int64],
    measure: Measure,
    bootstrap: Bootstrap,
) -> Correlation | None:
    try:
        return correlation_by_prompt(scores, means, prompts, measure=measure, bootstrap=bootstrap)
    except DataError:  # no prompt has an order: one image each, or a constant scorer
        return None

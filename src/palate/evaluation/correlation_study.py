"""Do Inception Score, FID, CLIP score and others follow what people choose? The HPS paper's question, with a test.

The paper compares images that people chose with images they did not: Inception Score 16.27 against 16.23, FID 38.2
against 37.7. Whether such a gap says anything is answered by what it would be if the choices had nothing to do with
the images: the images that were shown together change places at random, and everything is counted again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.errors import DataError, SettingsError
from palate.evaluation.distribution import (
    PER_SPLIT,
    Kernel,
    factor,
    factors_distance,
    frechet_cautions,
    inception_score,
)
from palate.evaluation.joins import one_scorer, scored_choices, values_of_choices
from palate.evaluation.looks import Looks
from palate.evaluation.relabelling import Rows, Shown, decided_choices
from palate.stats.accuracy import top1
from palate.stats.intervals import Bootstrap, expanded_tail, mean_estimate
from palate.stats.slopes import holm

Better = Literal["higher", "lower", "distance"]


@dataclass(frozen=True)
class CorrelationSettings:
    """How chosen images are compared with the others.

    `draws`: how often one not chosen image of every choice is drawn for the sets that must be of equal size; the
    values are averaged. `relabellings` make the null distribution and `resamples` of prompts the intervals.
    `dimension` names that of the choices if there are several. `missing` says what happens to a choice with an image
    that was not looked at or not scored. `level` is that of intervals, and 1 - `level` that of the test.
    """

    draws: int = 1
    relabellings: int = 499
    resamples: int = 200
    level: float = 0.95
    dimension: str | None = None
    missing: Literal["fail", "leave-out"] = "fail"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings under which nothing can be separable."""
        if self.draws < 1:
            raise SettingsError(f"draws is {self.draws}, expected at least 1")
        if self.relabellings < math.ceil(1 / (1 - self.level)) - 1:
            raise SettingsError(
                f"{self.relabellings} relabellings cannot reach the level {self.level},"
                f" expected at least {math.ceil(1 / (1 - self.level)) - 1}"
            )
        Bootstrap(self.level, self.resamples, self.seed)


@dataclass(frozen=True, slots=True)
class Contrast:
    """One measure of the chosen and of the other images, and what it would be without any choice.

    `difference` is chosen minus others; where the measure is a distance between both sets, it is that distance and
    there is no value of each, nor an interval. `null_mean`, `null_low` and `null_high` are the mean and the middle
    `level` of the relabellings. `p_value` counts relabellings at least as extreme (for a distance: as large), the
    data themselves among them; `adjusted` is Holm's correction for the number of measures. `accuracy` is the top-1
    accuracy of a scorer, None for measures of whole sets.
    """

    measure: str
    better: Better
    chosen: float | None
    others: float | None
    difference: float
    low: float | None
    high: float | None
    null_mean: float
    null_low: float
    null_high: float
    p_value: float
    adjusted: float
    level: float
    accuracy: float | None = None

    @property
    def separable(self) -> bool:
        """Whether the difference is more than relabelling explains."""
        return self.adjusted <= 1 - self.level + 1e-12

    @property
    def verdict(self) -> str:
        """What the measure has to do with the choices, in a few words."""
        if not self.separable:
            return "not separable"
        if self.better == "distance":
            return "the sets differ"
        return "follows" if (self.difference > 0) == (self.better == "higher") else "goes against"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "separable": self.separable, "verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class CorrelationStudy:
    """Every measure of the chosen and of the other images of the same choices.

    `left_out` counts choices by the reason why they do not count. `cautions` say what the numbers cannot tell.
    """

    contrasts: tuple[Contrast, ...]
    choices: int
    prompts: int
    images: int
    left_out: dict[str, int]
    cautions: tuple[str, ...]
    settings: CorrelationSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "contrasts": [contrast.to_dict() for contrast in self.contrasts],
            "choices": self.choices,
            "prompts": self.prompts,
            "images": self.images,
            "left_out": dict(self.left_out),
            "cautions": list(self.cautions),
            "settings": asdict(self.settings),
        }

    def to_text(self) -> str:
        """Write the study as a table, its cautions below."""
        head = (
            "measure",
            "chosen",
            "others",
            "difference",
            "by relabelling",
            "p",
            "top-1",
            "verdict",
        )
        rows = [head, *(_cells(contrast) for contrast in self.contrasts)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        about = f"{self.choices:,} choices of {self.prompts:,} prompts, {self.images:,} images"
        out = [f"{count:,} choices left out: {why}" for why, count in self.left_out.items()]
        return "\n".join(
            [about, *out, "", *lines, *([""] if self.cautions else []), *self.cautions]
        )


def _cells(row: Contrast) -> tuple[str, ...]:
    def told(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    interval = "" if row.low is None else f" [{told(row.low)}, {told(row.high)}]"
    null = f"{told(row.null_low)} to {told(row.null_high)}"
    return (
        *(row.measure, told(row.chosen), told(row.others), told(row.difference) + interval),
        *(null, f"{row.adjusted:.3f}", told(row.accuracy), row.verdict),
    )


def correlation_study(
    choices: Any,
    looks: Looks | None = None,
    scores: Sequence[Any] = (),
    reference: NDArray[Any] | None = None,
    settings: CorrelationSettings | None = None,
) -> CorrelationStudy:
    """Compare chosen with not chosen images by every measure there is, and test whether they differ.

    `choices` is a table of one dimension; those with one best image count. `looks` is what an extractor saw of their images, and gives
    FID and KID, and the Inception Score where it knows classes; `scores` are tables of one scorer each; `reference`
    are features (images × dims) of real images by the same extractor, without which FID and KID are between the chosen
    and the others. For measures of whole sets one other image of every choice is drawn, so that both have one image per
    choice. A scorer is compared with the mean of all others of the choice.

    The null distribution: images that were shown together, directly or through others, change places at random, for
    all people alike. It is exact at any size if choices and images have nothing to do with each other. Intervals
    resample prompts and are centred on the value, since resampling adds a bias of its own to IS, FID and KID. The
    order of rows, and of the images of a choice, does not matter. Raises `DataError` where nothing can be compared.
    """
    settings = settings or CorrelationSettings()
    if looks is None and not scores:
        raise DataError("nothing to compare by: neither features nor scores were given")
    kept, values, left_out = _usable(choices, looks, scores, settings)
    shown = Shown(kept, settings.draws, settings.seed)
    contrasts = [
        *_of_sets(shown, looks, reference, settings),
        *_of_scorers(shown, values, scores, settings),
    ]
    adjusted = holm([contrast.p_value for contrast in contrasts])
    return CorrelationStudy(
        contrasts=tuple(
            replace(c, adjusted=float(p)) for c, p in zip(contrasts, adjusted, strict=True)
        ),
        choices=len(kept),
        prompts=shown.prompt_count,
        images=len(set(shown.keys)),
        left_out=left_out,
        cautions=_cautions(shown, looks, reference),
        settings=settings,
    )


def _usable(
    choices: Any, looks: Looks | None, scores: Sequence[Any], settings: CorrelationSettings
) -> tuple[Any, list[NDArray[np.float64]], dict[str, int]]:
    """Leave out the choices that cannot count, and bring the rest and its scores into one order."""
    decided, unclear = decided_choices(choices, settings.dimension)
    owner = np.repeat(np.arange(len(decided)), list_lengths(decided.column("images")))
    seen = np.ones(len(decided), dtype=bool)
    if looks is not None:
        seen = _looked_at(decided, owner, looks, settings.missing)
    scored, found = np.ones(len(decided), dtype=bool), []
    for table in scores:
        rows = one_scorer(table, None)
        found.append(values_of_choices(decided, rows))
        scored &= scored_choices(decided, found[-1], rows, settings.missing)
    kept = seen & scored
    left_out = {
        "no single best image": unclear,
        "an image that was not looked at": int((~seen).sum()),
        "an image without a score": int((seen & ~scored).sum()),
    }
    left_out = {why: count for why, count in left_out.items() if count}
    if kept.sum() < 2:
        told = f"{int(kept.sum())} of {len(decided) + unclear} choices can be compared, expected at least 2"
        why = "; ".join(f"{count} have {reason}" for reason, count in left_out.items())
        raise DataError(f"{told}: {why}" if why else told)
    return decided.filter(pa.array(kept)), [column[kept[owner]] for column in found], left_out


def _looked_at(choices: Any, owner: Rows, looks: Looks, missing: str) -> NDArray[np.bool_]:
    """Which choices have all their images among the looks; raise for the others if asked to."""
    images = pc.list_flatten(choices.column("images")).to_pylist()
    known = set(looks.keys)
    seen = np.array([image in known for image in images], dtype=bool)
    if missing == "fail" and not seen.all():
        image = images[int(np.argmin(seen))]
        why = looks.faults.get(image, "it is not among the images looked at")
        raise DataError(f"image {image!r} was not looked at: {why}")
    return np.asarray(np.bincount(owner, weights=~seen) == 0)


def _of_sets(
    shown: Shown,
    looks: Looks | None,
    reference: NDArray[Any] | None,
    settings: CorrelationSettings,
) -> Iterator[Contrast]:
    """Compare the sets by what an extractor saw of them."""
    if looks is None:
        return
    place = {key: row for row, key in enumerate(looks.keys)}
    rows = np.array([place[key] for key in shown.keys], dtype=np.int64)
    features = looks.features[rows]

    def test(measure: str, better: Better, function: Callable[..., float]) -> Contrast:
        return _contrast(shown, measure, better, function, settings)

    if looks.probabilities is not None:
        chances = looks.probabilities[rows]
        yield test("Inception Score", "higher", lambda a: inception_score(chances[a]).value)
    kernel = Kernel(features, reference)
    if reference is None:
        yield test(
            *("FID of chosen to others", "distance"),
            lambda a, b: factors_distance(*factor(features[a]), *factor(features[b])),
        )
        yield test("KID of chosen to others", "distance", kernel.distance)
        return
    real = factor(reference)
    yield test(
        *("FID to the reference", "lower"),
        lambda a: factors_distance(*factor(features[a]), *real),
    )
    yield test("KID to the reference", "lower", kernel.to_reference)


def _contrast(
    shown: Shown,
    measure: str,
    better: Better,
    function: Callable[..., float],
    settings: CorrelationSettings,
) -> Contrast:
    """Compare the chosen with the drawn others by a function of one set, or of both for a distance."""

    def each(chosen: Rows, others: Sequence[Rows]) -> tuple[float | None, float | None, float]:
        if better == "distance":
            return None, None, float(np.mean([function(chosen, drawn) for drawn in others]))
        left, right = function(chosen), float(np.mean([function(drawn) for drawn in others]))
        return left, right, left - right

    chosen, others, gap = each(shown.chosen, shown.others)
    null = [
        each(nodes[shown.chosen], [nodes[drawn] for drawn in shown.others])[2]
        for nodes in shown.relabellings(settings.relabellings)
    ]
    bounds: tuple[float | None, float | None] = (None, None)
    if better != "distance" and shown.prompt_count > 1:
        again = [
            each(shown.chosen[rows], [drawn[rows] for drawn in shown.others])[2]
            for rows in shown.resamples(settings.resamples)
        ]
        tail = expanded_tail(shown.prompt_count, settings.level)
        low, high = gap + np.quantile(again, [tail, 1 - tail]) - np.mean(again)
        bounds = (float(low), float(high))
    return _tested(measure, better, (chosen, others, gap), bounds, null, settings)


def _of_scorers(
    shown: Shown,
    values: Sequence[NDArray[np.float64]],
    scores: Sequence[Any],
    settings: CorrelationSettings,
) -> Iterator[Contrast]:
    """Compare the chosen with the mean of all others of each choice, by every scorer."""
    bootstrap = Bootstrap(settings.level, max(settings.resamples, 2000), settings.seed)
    offsets = np.append(shown.starts, len(shown.flat))
    for column, table in zip(values, scores, strict=True):
        sorted_column = column[shown.order]
        of_node = np.empty(len(shown.keys))
        of_node[shown.flat] = sorted_column

        def each(nodes: Rows, of_node: NDArray[np.float64] = of_node) -> Any:
            chosen = of_node[nodes[shown.chosen]]
            total = np.add.reduceat(of_node[nodes[shown.flat]], shown.starts)
            return chosen, (total - chosen) / (shown.lengths - 1)

        chosen, others = each(np.arange(len(of_node)))
        found = mean_estimate(chosen - others, shown.prompts, bootstrap=bootstrap)
        null = [
            float(np.subtract(*each(nodes)).mean())
            for nodes in shown.relabellings(settings.relabellings)
        ]
        right = top1(sorted_column, shown.ranks, offsets, bootstrap=Bootstrap(resamples=100))
        name = str(table.column("scorer")[0])
        bounds = (found.low, found.high) if math.isfinite(found.low) else (None, None)
        means = (float(chosen.mean()), float(others.mean()), found.value)
        tested = _tested(name, "higher", means, bounds, null, settings)
        yield replace(tested, accuracy=right.value)


def _tested(
    measure: str,
    better: Better,
    found: tuple[float | None, float | None, float],
    bounds: tuple[float | None, float | None],
    null: Sequence[float],
    settings: CorrelationSettings,
) -> Contrast:
    """Hold a difference against the null distribution; equal values count as extreme, rounding aside."""
    drawn, value, level = np.asarray(null), found[2], settings.level
    slack = 1e-9 * max(abs(value), float(np.abs(drawn).max()))
    as_far = drawn if better == "distance" else np.abs(drawn)
    beyond = as_far >= (value if better == "distance" else abs(value)) - slack
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    p_value = (1 + int(beyond.sum())) / (1 + len(drawn))
    middle = (float(drawn.mean()), float(low), float(high))
    return Contrast(measure, better, *found, *bounds, *middle, p_value, p_value, level)


def _cautions(shown: Shown, looks: Looks | None, reference: NDArray[Any] | None) -> tuple[str, ...]:
    """Say what the numbers cannot tell at this size."""
    told, count = [], len(shown.chosen)
    if looks is not None:
        least = count if reference is None else len(reference)
        found = frechet_cautions(count, least, looks.features.shape[1])
        told += [line for line in found if not line.startswith("sets of")]
        if looks.probabilities is not None and count < PER_SPLIT:
            told.append(f"{count:,} images in each set: an Inception Score of so few is too low")
    if shown.prompt_count < 30:
        told.append(
            f"{shown.prompt_count} prompts: intervals that resample fewer than 30 are rough"
        )
    return tuple(told)

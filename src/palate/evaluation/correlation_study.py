"""Do Inception Score, FID, CLIP score and others follow what people choose? The HPS paper's question, with a test.

The paper compares images that people chose with images they did not: Inception Score 16.27 against 16.23, FID 38.2
against 37.7. Whether such a gap says anything is answered by what it would be if the choices had nothing to do with
the images: the images that were shown together change places at random, and everything is counted again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.errors import DataError
from palate.evaluation.contrasts import (
    Better,
    Contrast,
    CorrelationSettings,
    CorrelationStudy,
    printed_in_hps,
)
from palate.evaluation.distribution import (
    PER_SPLIT,
    Kernel,
    factor,
    factors_distance,
    frechet_cautions,
    inception_score,
)
from palate.evaluation.joins import one_scorer, scored_choices, values_of_choices
from palate.evaluation.looks import Looks, same_extractor
from palate.evaluation.relabelling import Rows, Shown, decided_choices
from palate.runs import track
from palate.stats.accuracy import top1
from palate.stats.intervals import Bootstrap, expanded_tail, mean_estimate
from palate.stats.slopes import holm

__all__ = ["Contrast", "CorrelationSettings", "CorrelationStudy", "correlation_study"]


def correlation_study(
    choices: Any,
    looks: Looks | None = None,
    scores: Sequence[Any] = (),
    reference: Looks | NDArray[Any] | None = None,
    settings: CorrelationSettings | None = None,
) -> CorrelationStudy:
    """Compare chosen with not chosen images by every measure there is, and test whether they differ.

    `choices` is a table of one dimension; those with one best image count. `looks` is what an extractor saw of their
    images, and gives FID and KID, and the Inception Score where it knows classes; `scores` are tables of one scorer
    each; `reference` is what the same extractor saw of real images, or its features (images × dims), without which FID
    and KID are between the chosen and the others. For measures of whole sets one other image of every choice is drawn, so that both have one image per
    choice. A scorer is compared with the mean of all others of the choice.

    The null distribution: images that were shown together, directly or through others, change places at random, for
    all people alike. It is exact at any size if choices and images have nothing to do with each other. Intervals
    resample prompts and are centred on the value, since resampling adds a bias of its own to IS, FID and KID. The
    order of rows, and of the images of a choice, does not matter. Raises `DataError` where nothing can be compared, and
    for a reference by another extractor.
    """
    settings = settings or CorrelationSettings()
    if looks is None and not scores:
        raise DataError("nothing to compare by: neither features nor scores were given")
    real = _reference(looks, reference)
    faults = reference.left_out("reference images") if isinstance(reference, Looks) else ()
    kept, values, left_out = _usable(choices, looks, scores, settings)
    shown = Shown(kept, settings.draws, settings.seed)
    contrasts = [
        *_of_sets(shown, looks, real, settings),
        *_of_scorers(shown, values, scores, settings),
    ]
    seen_by = None if looks is None else looks.seen_by
    adjusted = holm([contrast.p_value for contrast in contrasts])
    return CorrelationStudy(
        contrasts=tuple(
            replace(c, adjusted=float(p)) for c, p in zip(contrasts, adjusted, strict=True)
        ),
        choices=len(kept),
        prompts=shown.prompt_count,
        images=len(set(shown.keys)),
        left_out=left_out,
        cautions=(*_cautions(shown, looks, real), *_too_few(settings, len(contrasts)), *faults),
        settings=settings,
        features=None if seen_by is None else seen_by.name,
        printed=printed_in_hps() if seen_by is not None and seen_by.published else {},
    )


def _reference(looks: Looks | None, reference: Looks | NDArray[Any] | None) -> NDArray[Any] | None:
    """Give the features of the reference, which the same extractor must have seen."""
    if reference is None or looks is None:
        return None
    real = reference if isinstance(reference, Looks) else Looks((), reference, None, {})
    same_extractor(looks, real)
    return real.features


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
        for nodes in _counted(shown.relabellings, settings.relabellings, f"{measure}: relabelling")
    ]
    bounds: tuple[float | None, float | None] = (None, None)
    if better != "distance" and shown.prompt_count > 1:
        again = [
            each(shown.chosen[rows], [drawn[rows] for drawn in shown.others])[2]
            for rows in _counted(shown.resamples, settings.resamples, f"{measure}: resampling")
        ]
        tail = expanded_tail(shown.prompt_count, settings.level)
        low, high = gap + np.quantile(again, [tail, 1 - tail]) - np.mean(again)
        bounds = (float(low), float(high))
    return _tested(measure, better, (chosen, others, gap), bounds, null, settings)


def _counted(draw: Callable[[int], Iterable[Rows]], count: int, label: str) -> Iterator[Rows]:
    """Draw so often and show the progress: with many images each draw takes seconds."""
    return track(draw(count), label, count)


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


def _too_few(settings: CorrelationSettings, measures: int) -> Iterator[str]:
    """Say where the smallest p-value there can be, corrected, is above that of the level."""
    least = math.ceil(measures / (1 - settings.level) - 1e-9) - 1
    if settings.relabellings < least:
        yield (
            f"{settings.relabellings} relabellings cannot make {measures} measures separable,"
            f" expected at least {least}"
        )


def _cautions(shown: Shown, looks: Looks | None, reference: NDArray[Any] | None) -> tuple[str, ...]:
    """Say what the numbers cannot tell at this size."""
    told, count = [], len(shown.chosen)
    if looks is not None:
        least = count if reference is None else len(reference)
        found = frechet_cautions(count, least, looks.features.shape[1])
        told += [line for line in found if not line.startswith("sets of")]
        if looks.probabilities is not None and count < PER_SPLIT:
            told.append(f"{count:,} images in each set: an Inception Score of so few is too low")
        if looks.seen_by is not None:
            told += looks.seen_by.cautions()
    if shown.prompt_count < 30:
        told.append(
            f"{shown.prompt_count} prompts: intervals that resample fewer than 30 are rough"
        )
    return tuple(told)

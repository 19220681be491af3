"""What a score means as a probability: one scale, fitted on choices and judged on other prompts.

The model is the softmax over the images of a choice, P(i) = exp(scale · s_i) / Σ exp(scale · s_j);
for two images it is the logistic of scale · (s_1 - s_2). The temperature is 1 / scale. Guo et al. 2017,
"On calibration of modern neural networks", fit it by maximum likelihood, as is done here.
Groups are columns, as in `palate.stats.accuracy`. Scores: higher is better. Ranks: the lowest is the best.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.calibrations.choice_model import (
    Block,
    ChoiceModel,
    Floats,
    HumanTies,
    choice_blocks,
    compared_duels,
    decided,
    flat_choices,
    outcome_of,
    pair_blocks,
)
from palate.stats.calibrations.curve import Interval, Reliability, brier, cluster_mean, reliability
from palate.stats.intervals import Column, cluster_codes

__all__ = [
    "Calibration",
    "CalibrationSettings",
    "Losses",
    "Quality",
    "ScaleFit",
    "calibrate_choices",
    "calibrate_pairs",
    "calibration_table",
    "shares",
]

RankRule = Literal["first", "pairs"]


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """How a scale is fitted and judged.

    `rule` says what of a choice counts: `first`, the first choice of Plackett and Luce (which image was put
    first among all), or `pairs`, every duel. `human_ties`: k images put first count 1/k each (`half`; in a
    duel one half each), or are left out (`drop`). `before` is the scale that is used today, such as 100 for
    a cosine. `folds` parts of the prompts are each judged by the scale of the others. `bound` is the largest
    scale allowed, times the typical difference between two scores; without one, answers that no finite scale
    fits best are refused. `bins` and `level` are those of the reliability curves.
    """

    rule: RankRule = "first"
    human_ties: HumanTies = "half"
    before: float = 1.0
    folds: int = 5
    bound: float | None = None
    bins: int = 10
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that give no result."""
        if self.folds < 2:
            raise DataError(f"{self.folds} folds, expected at least 2 to judge on other prompts")
        if self.bound is not None and not 0 < self.bound < math.inf:
            raise DataError(f"a bound of {self.bound}, expected a number above 0")
        if not math.isfinite(self.before):
            raise DataError(f"a scale of {self.before} before, expected a finite number")


@dataclass(frozen=True, slots=True)
class ScaleFit:
    """The scale of most likelihood, per unit of the score, with its standard error and interval.

    `standard_error` is the sandwich over prompts (G / (G - 1) for G prompts), with the t interval from
    `low` to `high`; `model_error` takes the answers for independent. All are None where `bounded` says that
    the scale is the bound. `typical` is the root mean square difference between two scores of one choice.
    """

    scale: float
    standard_error: float | None
    model_error: float | None
    low: float | None
    high: float | None
    bounded: bool
    typical: float

    @property
    def temperature(self) -> float | None:
        """What a score is divided by; None for a scale of 0 or below, which turns the order round."""
        return 1 / self.scale if self.scale > 0 else None


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean negative log-likelihood of an answer in nats; lower is better.

    `chance` is a scale of 0. `after` is fitted and judged on the same answers, `held_out` on other prompts.
    `gain` is before - held_out with its interval over prompts; above zero, calibrating helps.
    """

    chance: float
    before: float
    after: float
    held_out: float
    gain: Interval


@dataclass(frozen=True, slots=True)
class Quality:
    """How good probabilities are: Brier score, and the reliability of every image's share."""

    brier: Interval
    by_count: Reliability
    by_width: Reliability


@dataclass(frozen=True, slots=True)
class Calibration:
    """A scorer's scale, fitted on choices, and how good its probabilities are before and after.

    `answers` counts choices (or duels) that counted, `left_out` those without a decision that counts.
    `fold_scales` are the scales that judged the prompts of each fold. `held_out` is the quality of these.
    """

    kind: Literal["choices", "pairs"]
    fit: ScaleFit
    fold_scales: tuple[float, ...]
    losses: Losses
    before: Quality
    held_out: Quality
    answers: int
    prompts: int
    left_out: int
    settings: CalibrationSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found = asdict(self)
        found["fit"]["temperature"] = self.fit.temperature
        return found


def calibrate_choices(
    scores: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    settings: CalibrationSettings | None = None,
) -> Calibration:
    """Fit the scale of a scorer on choices and judge it on prompts that it was not fitted on.

    `scores` and `ranks` are flat; choice i owns `offsets[i]:offsets[i + 1]`. `prompts` has one label per
    choice (None: every choice is its own). Under `pairs`, equal ranks below the first of a choice with only
    two ranks are left out: who picks one of four says nothing of the other three. A choice whose images all
    tie counts as a tie of all (`half`) or is left out. Raises `DataError` where no finite scale fits best:
    the scorer is never wrong (or never right), or gives all images of each choice the same score.
    """
    settings = settings or CalibrationSettings()
    values, places, bounds = flat_choices(scores, ranks, offsets)
    codes = cluster_codes(prompts, len(bounds) - 1)
    if settings.rule == "pairs":
        *duels, kept = compared_duels(places, bounds)
        choice, left, right = (column[kept] for column in duels)
        won = outcome_of(places[left], places[right])
        blocks = pair_blocks(values[left], values[right], won)
        return _calibrate("choices", blocks, codes[choice], settings, int((~kept).sum()))
    return _calibrate("choices", list(choice_blocks(values, places, bounds)), codes, settings)


def calibrate_pairs(
    first: Column,
    second: Column,
    outcome: Column,
    prompts: Column | None = None,
    settings: CalibrationSettings | None = None,
) -> Calibration:
    """Fit the scale of a scorer on duels: P(first is better) = logistic(scale · (first - second)).

    `first` and `second` are the two scores of each duel; `outcome` is 1 (first better), 0, or 0.5 for the
    person's tie, which counts one half for each or is left out. Raises `DataError` as `calibrate_choices`.
    """
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    won = np.asarray(outcome, dtype=np.float64)
    if not left.shape == right.shape == won.shape or left.ndim != 1:
        raise DataError(f"duels of {left.shape}, {right.shape} and {won.shape} do not match")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise DataError("a score is not a finite number")
    if not np.isin(won, (0.0, 0.5, 1.0)).all():
        raise DataError("an outcome is not 1, 0 or 0.5")
    codes = cluster_codes(prompts, len(won))
    settings = settings or CalibrationSettings()
    return _calibrate("pairs", pair_blocks(left, right, won), codes, settings)


def shares(scores: Column, offsets: Column, scale: float = 1.0) -> Floats:
    """Return the probability that each image is put first in its choice, flat: a softmax of scale · score."""
    values, _, bounds = flat_choices(scores, np.ones(len(scores), dtype=np.int64), offsets)
    starts, sizes = bounds[:-1], np.diff(bounds)
    logits = scale * values
    raised = np.exp(logits - np.repeat(np.maximum.reduceat(logits, starts), sizes))
    found: Floats = raised / np.repeat(np.add.reduceat(raised, starts), sizes)
    return found


def calibration_table(found: Calibration) -> str:
    """Write a calibration as a small text table: the scale, losses before and after, and the errors."""
    fit, losses = found.fit, found.losses
    error = "at its bound" if fit.standard_error is None else f"± {fit.standard_error:.3g}"
    warm = "none" if fit.temperature is None else f"{fit.temperature:.4g}"
    lines = [
        f"{found.answers:,} answers on {found.prompts:,} prompts, {found.left_out:,} left out",
        f"scale {fit.scale:.4g} {error}, temperature {warm}",
        f"{'':22}{'before':>10}{'held out':>10}",
        f"{'nats per answer':22}{losses.before:>10.4f}{losses.held_out:>10.4f}",
    ]
    for name, kind in (("Brier score", "brier"), ("calibration error", "error")):
        pair = (
            quality.brier.value if kind == "brier" else quality.by_count.error
            for quality in (found.before, found.held_out)
        )
        lines.append(f"{name:22}" + "".join(f"{value:>10.4f}" for value in pair))
    noise = found.held_out.by_count.error_if_calibrated
    if noise is not None:
        lines.append(f"{'… of chance alone':22}{'':>10}{noise:>10.4f}")
    lines.append(f"chance alone: {losses.chance:.4f} nats per answer")
    return "\n".join(lines)


def _calibrate(
    kind: Literal["choices", "pairs"],
    blocks: list[Block],
    codes: NDArray[np.int64],
    settings: CalibrationSettings,
    silent: int = 0,
) -> Calibration:
    """Fit and judge; `codes` has the cluster of every answer, `silent` counts duels that nobody answered."""
    blocks = [decided(block, settings.human_ties) for block in blocks]
    blocks = [block for block in blocks if len(block[0])]
    used = sum(len(block[0]) for block in blocks)
    if not used:
        raise DataError(f"none of {len(codes)} answers has a decision that can be counted")
    left_out = len(codes) - used + silent
    codes = codes[np.concatenate([rows for rows, _, _ in blocks])]
    present = np.bincount(codes) > 0
    codes, total = (np.cumsum(present) - 1)[codes], int(present.sum())
    if total < 2:
        raise DataError("all answers are about one prompt, expected two to judge on another one")
    model = ChoiceModel([(values, targets) for _, values, targets in blocks])
    scale, bounded = model.fit(settings.bound)
    folds, fold = _fold_scales(model, codes, settings, scale)
    today = np.full(used, settings.before)
    after, held = model.parts(np.full(used, scale)), folds[fold]
    return Calibration(
        kind=kind,
        fit=_fitted(scale, after, codes, model.typical, settings.level, bounded=bounded),
        fold_scales=tuple(float(value) for value in folds),
        losses=_losses(model, today, held, after[0], codes, settings.level),
        before=_quality(model, today, codes, settings),
        held_out=_quality(model, held, codes, settings),
        answers=used,
        prompts=total,
        left_out=left_out,
        settings=settings,
    )


def _fold_scales(
    model: ChoiceModel, codes: NDArray[np.int64], settings: CalibrationSettings, start: float
) -> tuple[Floats, NDArray[np.int64]]:
    """Scale that was fitted without each fold, and the fold of every answer; a prompt is in one fold."""
    total = int(codes.max()) + 1
    count = min(settings.folds, total)
    fold = (np.random.default_rng(settings.seed).permutation(total) % count)[codes]
    scales = []
    for number in range(count):
        try:
            scales.append(model.kept(fold != number).fit(settings.bound, start)[0])
        except DataError as fault:
            raise DataError(f"without fold {number + 1} of {count}: {fault}") from None
    return np.array(scales), fold


def _fitted(
    scale: float,
    parts: tuple[Floats, Floats, Floats],
    codes: NDArray[np.int64],
    typical: float,
    level: float,
    *,
    bounded: bool,
) -> ScaleFit:
    from scipy.special import stdtrit

    information = float(parts[2].sum())
    if bounded or information <= 0:
        return ScaleFit(scale, None, None, None, None, bounded, typical)
    sums = np.bincount(codes, weights=parts[1])
    total = len(sums)
    error = math.sqrt(float((sums**2).sum()) * total / (total - 1)) / information
    half = float(stdtrit(total - 1, (1 + level) / 2)) * error
    model_error = 1 / math.sqrt(information)
    return ScaleFit(scale, error, model_error, scale - half, scale + half, bounded, typical)


def _losses(
    model: ChoiceModel,
    today: Floats,
    held: Floats,
    after: Floats,
    codes: NDArray[np.int64],
    level: float,
) -> Losses:
    chance, before, apart = (
        model.parts(scales)[0] for scales in (np.zeros(len(codes)), today, held)
    )
    return Losses(
        chance=float(chance.mean()),
        before=float(before.mean()),
        after=float(after.mean()),
        held_out=float(apart.mean()),
        gain=cluster_mean(before - apart, codes, level),
    )


def _quality(
    model: ChoiceModel, scales: Floats, codes: NDArray[np.int64], settings: CalibrationSettings
) -> Quality:
    found = list(model.probabilities(scales))
    share = np.concatenate([share.ravel() for share, _ in found])
    target = np.concatenate([target.ravel() for _, target in found])
    ends = np.cumsum([share.shape[1] for share, _ in found])[:-1]
    own = zip(found, np.split(codes, ends), strict=True)
    owner = np.concatenate([np.tile(part, len(share)) for (share, _), part in own])
    options: dict[str, Any] = {"bins": settings.bins, "level": settings.level}
    return Quality(
        brier=brier(share, target, owner, level=settings.level),
        by_count=reliability(share, target, owner, by="count", **options),
        by_width=reliability(share, target, owner, by="width", **options),
    )

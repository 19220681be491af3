"""What one arm changes against another, and what that says of an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from palate.evaluation.arms.measures import Kind, Measure
from palate.stats.intervals import Bootstrap, Difference, paired_difference
from palate.stats.wins import WinRate, win_rate

Array: TypeAlias = NDArray[Any]
Answer = Literal["better", "score alone", "unconfirmed", "disputed", "worse", "not separable"]

CLEAR: Final = 0.05
"""Diversity falls clearly where the whole interval lies below minus this share of what it was."""

FEW: Final = 20
"""With fewer prompts no answer is given without a caution."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One measure of an arm minus that of another at the same prompts and seeds; `wins` for scorers alone."""

    measure: str
    kind: Kind
    difference: Difference
    wins: WinRate | None

    @property
    def direction(self) -> int:
        """Say which way it went: 1 and -1 where the whole interval lies above or below 0, else 0."""
        its = self.difference.estimate
        return int(its.low > 0) - int(its.high < 0)

    @property
    def falls_clearly(self) -> bool:
        """Whether the whole interval lies below minus `CLEAR` of the other arm's mean."""
        return self.difference.estimate.high < -CLEAR * abs(self.difference.mean_b)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **self.difference.to_dict(),
            "direction": self.direction,
            "win_rate": None if self.wins is None else self.wins.to_dict(),
        }


def measure_effect(
    measure: Measure,
    a: Float[Array, "prompts images"],
    b: Float[Array, "prompts images"],
    bootstrap: Bootstrap | None = None,
) -> Effect:
    """Compare two arms: the mean over prompts of a - b, and for a scorer how often a wins.

    Image i of a prompt started from the same noise in both. A prompt counts once in the difference, whatever its
    number of images; each pair of images is one comparison in the win rate, with ties counted half. Intervals draw
    whole prompts again.
    """
    difference = paired_difference(a.mean(axis=1), b.mean(axis=1), bootstrap=bootstrap)
    wins = None
    if measure.is_scorer:
        prompts = np.repeat(np.arange(len(a)), a.shape[1])
        wins = win_rate(a.ravel(), b.ravel(), prompts, bootstrap=bootstrap)
    return Effect(measure.name, measure.kind, difference, wins)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the effects of one arm against the original say together.

    `rises` tells of the labelling scorer; the names are those of the watching scorers that rise or fall with their
    whole interval, of the others nothing can be said. `poorer` names the measures of diversity that fall clearly.
    """

    rises: int
    confirm: tuple[str, ...]
    fall: tuple[str, ...]
    watching: int
    poorer: tuple[str, ...]

    @property
    def answer(self) -> Answer:
        """Say in a word whether the arm is better than the original."""
        if self.rises <= 0:
            return "worse" if self.rises < 0 else "not separable"
        if self.watching and len(self.fall) == self.watching:
            return "score alone"
        if not self.confirm:
            return "unconfirmed"
        return "disputed" if self.fall else "better"


def read_effects(effects: Sequence[Effect]) -> Reading:
    """Read the effects of one arm against the original."""
    watching = [one for one in effects if one.kind == "watching"]
    return Reading(
        rises=next(one for one in effects if one.kind == "labelling").direction,
        confirm=tuple(one.measure for one in watching if one.direction > 0),
        fall=tuple(one.measure for one in watching if one.direction < 0),
        watching=len(watching),
        poorer=tuple(
            one.measure for one in effects if one.kind == "diversity" and one.falls_clearly
        ),
    )


@dataclass(frozen=True, slots=True)
class Warned:
    """One thing to beware of, the arms that show it, and a sentence."""

    kind: Literal["score alone", "unconfirmed", "disputed", "less diverse"]
    arms: tuple[str, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"kind": self.kind, "arms": list(self.arms), "sentence": self.sentence}


def warn(readings: Mapping[str, Reading], told: Mapping[str, str]) -> list[Warned]:
    """Warn of arms whose score rises where nothing else does, and of those that lost diversity.

    Args:
        readings: by the name of the arm; the original and what is made without the adapter are not among them.
        told: what each arm is called.
    """
    found: list[Warned] = []
    for kind in ("score alone", "unconfirmed", "disputed"):
        arms = tuple(name for name, one in readings.items() if one.answer == kind)
        if arms:
            where = _listed([told[name] for name in arms])
            sentence = _sentence(kind, where, [readings[name] for name in arms])
            found.append(Warned(kind, arms, sentence))
    arms = tuple(name for name, one in readings.items() if one.poorer)
    if arms:
        how = _listed(dict.fromkeys(name for arm in arms for name in readings[arm].poorer))
        where = _listed([told[name] for name in arms])
        sentence = f"the images of a prompt differ less than the original's ({how}): {where}"
        found.append(Warned("less diverse", arms, sentence))
    return found


def _sentence(kind: str, where: str, readings: Sequence[Reading]) -> str:
    falling = _listed(dict.fromkeys(name for one in readings for name in one.fall))
    if kind == "score alone":
        return f"the score rises and everything else falls ({falling}): {where}"
    if kind == "disputed":
        return f"the score rises, and of the watching scorers some rise and some fall ({falling}): {where}"
    if not readings[0].watching:
        return f"the score rises and no other scorer was asked; --watch names one: {where}"
    also = f" ({falling} falls)" if falling else ""
    return f"the score rises and no watching scorer confirms it{also}: {where}"


def _with_and(names: Sequence[str]) -> str:
    """Write names as a sentence has them."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _listed(names: Sequence[str] | Mapping[str, None]) -> str:
    return "; ".join(names)


VERDICTS: Final[Mapping[str, str]] = {
    "better": "better: the labelling scorer says so, confirmed by {confirm}",
    "score alone": "not shown to be better: its score rises and everything else falls",
    "unconfirmed": "not shown to be better: its score rises, and no other scorer confirms it",
    "disputed": "disputed: its score rises, confirmed by {confirm} and denied by {fall}",
    "worse": "worse by the very scorer that labelled",
    "not separable": "not separable from the original by the scorer that labelled",
}


def verdict(reading: Reading, effect: Effect, arm: str) -> str:
    """Say in a sentence whether the main arm is better, with the figures of the labelling scorer."""
    its = effect.difference.estimate
    words = VERDICTS[reading.answer].format(
        confirm=_with_and(reading.confirm), fall=_with_and(reading.fall)
    )
    if np.isnan(its.low):
        figures = f"{its.value:+.3g}, without an interval for one prompt"
    else:
        level = f"{100 * its.bootstrap.level:g} %"
        figures = f"{its.value:+.3g}, {level} interval {its.low:+.3g} to {its.high:+.3g}"
    return f"{arm} is {words} ({effect.measure} {figures})."

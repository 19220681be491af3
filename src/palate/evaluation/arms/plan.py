"""Which arms are made to judge an adapter, and which of them are compared with which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from palate.errors import SettingsError
from palate.generation.generate import GenerateSettings
from palate.stats.intervals import Bootstrap

RUN: Final = "arms"
"""The first part of every seed: not that of `generate`, so that no labelled image's noise is used again."""

ORIGINAL: Final = "original"
_NAMED: Final = {0.0: ORIGINAL, 1.0: "adapted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmsSettings:
    """How an adapter is judged.

    `strengths` are those of the sweep. `identifier` becomes the negative prompt of half of the arms: None takes what
    the adapter's file names, and an empty one leaves two arms. The rest is that of the intervals.
    """

    strengths: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5)
    identifier: str | None = None
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse strengths that are no numbers, or two that are equal, and settings that give no interval."""
        Bootstrap(self.level, self.resamples, self.seed)
        if not all(math.isfinite(one) for one in self.strengths):
            raise SettingsError(f"strengths are {_told(self.strengths)}, expected finite numbers")
        if len(set(self.strengths)) < len(self.strengths):
            raise SettingsError(f"strengths are {_told(self.strengths)}, expected each once")

    @property
    def bootstrap(self) -> Bootstrap:
        """How intervals are made."""
        return Bootstrap(self.level, self.resamples, self.seed)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to make the images: how much of the adapter, and which negative prompt."""

    name: str
    """That of its folder."""
    told: str
    strength: float
    negative: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The arms in the order in which they are made, and what is read from them.

    `main` is the arm that is used in the end: the adapter with its identifier as negative prompt, if it has one.
    `pairs` are the comparisons between two arms of which none is the original. `sweep` are the names of the arms of
    rising strength, all with the negative prompt of `main`.
    """

    arms: tuple[Arm, ...]
    four: tuple[str, ...]
    main: str
    pairs: tuple[tuple[str, str], ...]
    sweep: tuple[str, ...]

    def __getitem__(self, name: str) -> Arm:
        """Give an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def against(self) -> tuple[tuple[str, str], ...]:
        """List every comparison: each arm with the original, then the pairs."""
        others = [arm.name for arm in self.arms if arm.name != ORIGINAL]
        return (*((name, ORIGINAL) for name in others), *self.pairs)


def plan_arms(identifier: str, strengths: Sequence[float] = ()) -> Plan:
    """Plan the arms of an adapter: four with an identifier, two without, and those of the sweep.

    Arms of the sweep that equal another are that other: at strength 1 the adapted one, at strength 0 the original,
    each with the same negative prompt as the rest of the sweep.
    """
    with_negative = [_arm(strength, identifier) for strength in (0.0, 1.0)]
    plain = [_arm(strength, "") for strength in (0.0, 1.0)]
    four = [plain[0], with_negative[0], plain[1], with_negative[1]] if identifier else plain
    sweep = [_arm(strength, identifier) for strength in sorted(strengths)]
    named = {arm.name: arm for arm in (*four, *sweep)}
    # arms of one strength share a generator in memory, and stand together
    arms = sorted(named.values(), key=lambda arm: (arm.strength != 0, arm.strength != 1))
    pairs = []
    if identifier:
        last = with_negative[1].name
        pairs = [(last, plain[1].name), (last, with_negative[0].name)]
    return Plan(
        arms=tuple(arms),
        four=tuple(arm.name for arm in four),
        main=four[-1].name,
        pairs=tuple(pairs),
        sweep=tuple(arm.name for arm in sweep),
    )


def _arm(strength: float, negative: str) -> Arm:
    known = _NAMED.get(strength)
    if known is None:
        # all digits, so that two strengths never share a name
        shown = repr(strength).removesuffix(".0")
        return Arm(f"strength-{shown}", f"adapter at {shown}", strength, negative)
    if not negative:
        return Arm(known, known, strength, "")
    return Arm(f"{known}-negative", f"{known}, identifier as negative", strength, negative)


def arm_settings(arm: Arm, settings: GenerateSettings) -> GenerateSettings:
    """Give the settings of one arm; all but the negative prompt are the same in every arm."""
    return replace(settings, negative_prompt=arm.negative)


def refuse_settings(settings: GenerateSettings, identifier: str) -> None:
    """Refuse what no arm could be made with, before the first one is made."""
    if settings.negative_prompt is not None:
        raise SettingsError(
            f"negative_prompt is {settings.negative_prompt!r}, expected none: the arms set it themselves"
        )
    if settings.best_of is not None:
        raise SettingsError(
            "best_of is set, expected none: arms are compared image by image, each from the same noise"
        )
    if identifier and settings.guidance <= 1:
        raise SettingsError(
            f"guidance is {settings.guidance}, which cannot use the identifier {identifier!r} as negative prompt; "
            "expected a guidance above 1, or an empty identifier"
        )


def _told(strengths: Sequence[float]) -> str:
    return ", ".join(f"{one:g}" for one in strengths)

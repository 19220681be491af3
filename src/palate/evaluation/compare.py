"""Compare two generators by the scores of their images on the same prompts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow.compute as pc

from palate.errors import DataError
from palate.evaluation.joins import one_scorer
from palate.stats.intervals import (
    RESAMPLED,
    Bootstrap,
    Difference,
    paired_difference,
)
from palate.stats.wins import WinRate, WinTies, win_rate

Key = tuple[str, str]

FEW: Final = 20
"""With fewer prompts no decision is told without a caution."""


@dataclass(frozen=True)
class CompareSettings:
    """How two tables of scores are paired and compared.

    `pair`: "prompt" compares the mean score of each prompt; "order" pairs the first image of a
    prompt with the first, the second with the second, as they stand in the tables; "image" pairs
    equal image keys. `ties` and `tolerance` are the rules of `palate.stats.wins.win_rate`.
    """

    pair: Literal["prompt", "order", "image"] = "prompt"
    dimension: str | None = None
    ties: WinTies = "half"
    tolerance: float = 0.0
    missing: Literal["fail", "leave-out"] = "fail"
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that give no interval, or no ties."""
        Bootstrap(self.level, self.resamples, self.seed)
        if not 0 <= self.tolerance < math.inf:
            raise DataError(f"a tolerance of {self.tolerance:g} for ties, expected 0 or more")


@dataclass(frozen=True)
class Comparison:
    """Scores a against scores b, paired: the difference a - b and how often a wins."""

    scorer: str
    fingerprint: str
    dimension: str
    unit: str
    prompts: int
    pairs: int
    difference: Difference
    win_rate: WinRate
    left_out: int
    settings: CompareSettings

    @property
    def decision(self) -> Literal["first", "second", "not separable"]:
        """Which table has the higher scores, by the interval of the difference."""
        its = self.difference.estimate
        if its.low > 0:
            return "first"
        return "second" if its.high < 0 else "not separable"

    def cautions(self) -> list[str]:
        """Why the decision may not hold, a sentence each."""
        told = []
        its, rate = self.difference.estimate, self.win_rate.estimate
        if self.prompts < FEW:
            told.append(
                f"{self.prompts:,} prompt{'s' * (self.prompts > 1)} only: below {FEW} prompts the interval is "
                "rough, and other prompts may say the opposite"
            )
        if its.low == its.high:
            told.append(
                "the difference is the same on every prompt, so that its interval is a point"
            )
        if rate.method != RESAMPLED:
            told.append(f"one side wins everywhere; the interval of its win rate is {rate.method}")
        return told

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        needed = prompts_needed(self)
        return {
            "scorer": self.scorer,
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "unit": self.unit,
            "prompts": self.prompts,
            "pairs": self.pairs,
            "difference": self.difference.to_dict(),
            "win_rate": self.win_rate.to_dict(),
            "left_out": self.left_out,
            "decision": self.decision,
            "cautions": self.cautions(),
            "prompts_needed": None if needed is None else asdict(needed),
            "settings": asdict(self.settings),
        }


def compare_scores(a: Any, b: Any, settings: CompareSettings | None = None) -> Comparison:
    """Compare two generators by the scores of their images on the same prompts.

    `a` and `b` are tables of scores by the same scorer (same fingerprint, dimension and unit).
    Intervals resample prompts. Raises `DataError` where they do not match, or where a prompt or an
    image is in one table only or has no value, unless `missing="leave-out"`.
    """
    settings = settings or CompareSettings()
    a, b = (_one_dimension(one_scorer(side, None), settings.dimension) for side in (a, b))
    for column in ("scorer", "fingerprint", "dimension", "unit"):
        left, right = a.column(column)[0].as_py(), b.column(column)[0].as_py()
        if left != right:
            hint = "; two scorers stand side by side on a board" if column == "scorer" else ""
            raise DataError(
                f"scores with {column} {left!r} cannot be compared with {right!r}, expected the images of two "
                f"generators under one scorer{hint}"
            )
    values_a, values_b = _units(a, settings), _units(b, settings)
    shared = sorted(values_a.keys() & values_b.keys())
    left_out = len(values_a.keys() ^ values_b.keys())
    failed = [key for key in shared if np.isnan([values_a[key], values_b[key]]).any()]
    if settings.missing == "fail":
        _refuse_unpaired(values_a, values_b, failed, settings.pair)
    shared = [key for key in shared if key not in set(failed)]
    if not shared:
        raise DataError(f"the two tables of scores share no {settings.pair} with values")
    left = np.array([values_a[key] for key in shared])
    right = np.array([values_b[key] for key in shared])
    prompts = [key[0] for key in shared]
    bootstrap = Bootstrap(settings.level, settings.resamples, settings.seed)
    return Comparison(
        scorer=a.column("scorer")[0].as_py(),
        fingerprint=a.column("fingerprint")[0].as_py(),
        dimension=a.column("dimension")[0].as_py(),
        unit=a.column("unit")[0].as_py(),
        prompts=len(set(prompts)),
        pairs=len(shared),
        difference=paired_difference(left, right, prompts, bootstrap=bootstrap),
        win_rate=win_rate(
            left,
            right,
            prompts,
            ties=settings.ties,
            tolerance=settings.tolerance,
            bootstrap=bootstrap,
        ),
        left_out=left_out + len(failed),
        settings=settings,
    )


@dataclass(frozen=True)
class Needed:
    """How many prompts find a difference, with the bounds that its interval leaves.

    `value` is for the difference as measured, `low` for the largest that its interval holds, and `high` for
    the smallest: None where the interval holds 0, as then no number of prompts is sure to do.
    """

    value: int
    low: int
    high: int | None


def prompts_needed(found: Comparison, power: float = 0.8) -> Needed | None:
    """Prompts at which a difference as large as this one is found with this power; None at no difference.

    The standard error, taken from the width of the interval, shrinks with the square root of the number of
    prompts: n · ((z of the level + z of the power) · error / difference)². The difference itself is only
    known to its interval, and the number with it: twice the difference needs a quarter of the prompts.
    """
    from scipy.special import ndtri

    its = found.difference.estimate
    if not its.value or not np.isfinite(its.high - its.low) or its.high == its.low:
        return None
    level = float(ndtri((1 + its.bootstrap.level) / 2))
    error = (its.high - its.low) / (2 * level)
    scale = its.clusters * ((level + float(ndtri(power))) * error) ** 2
    near, far = sorted((abs(its.low), abs(its.high)))
    held = its.low <= 0 <= its.high
    count = [int(np.ceil(scale / gap**2)) for gap in (its.value, far)]
    return Needed(count[0], count[1], None if held else int(np.ceil(scale / near**2)))


def _one_dimension(scores: Any, wanted: str | None) -> Any:
    names = scores.column("dimension").unique().to_pylist()
    if wanted is None and len(names) > 1:
        raise DataError(f"the scores have the dimensions {', '.join(names)}; name one of them")
    if wanted is not None and wanted not in names:
        raise DataError(f"no scores on {wanted!r}; there are scores on {', '.join(names)}")
    name = names[0] if wanted is None else wanted
    return scores.filter(pc.equal(scores.column("dimension"), name))


def _units(scores: Any, settings: CompareSettings) -> dict[Key, float]:
    """Value of each unit that is paired; not a number where a score failed."""
    units: dict[Key, list[float]] = {}
    seen: dict[str, int] = {}
    columns = (scores.column(name).to_pylist() for name in ("prompt", "image", "value"))
    for prompt, image, value in zip(*columns, strict=True):
        place = seen[prompt] = seen.get(prompt, -1) + 1
        key = (prompt, {"prompt": "", "order": f"{place:09d}", "image": image}[settings.pair])
        units.setdefault(key, []).append(np.nan if value is None else value)
    return {key: float(np.mean(values)) for key, values in units.items()}


def _refuse_unpaired(
    a: dict[Key, float], b: dict[Key, float], failed: list[Key], pair: str
) -> None:
    for side, own, other in (("first", a, b), ("second", b, a)):
        only = sorted(own.keys() - other.keys())
        if only:
            what = {"prompt": "prompts", "order": "places", "image": "images"}[pair]
            raise DataError(
                f"{len(only)} {what} are in the {side} table of scores only, first {_told(only[0])}"
            )
    if failed:
        raise DataError(
            f"{len(failed)} pairs have an image that could not be scored, first {_told(failed[0])}"
        )


def _told(key: Key) -> str:
    prompt, inner = key
    of = f"prompt {prompt[:60]!r}"
    if not inner:
        return of
    return f"image {int(inner) + 1} of {of}" if inner.isdigit() else f"{inner!r} of {of}"

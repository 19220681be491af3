"""What may be said of an order: which items are certainly better, and which cannot be told apart.

Sorting strengths always gives an order, true or not. Here all differences have intervals that hold at once,
and an item stands before another only where the interval of their difference says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.stats.numbers import finite
from palate.stats.rankings.likelihood import Codes, Floats
from palate.stats.rankings.strengths import Strengths, quantile

Simultaneous = Literal["max-t", "bonferroni"]
Verdict = Literal["higher", "lower", "not separable"]

_BLOCK: Final = 4_000_000
_MOST_GROUPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class SeparationSettings:
    """How intervals of all pairs are made to hold at once.

    `max-t` (recommended) draws the largest of all standardised differences from their joint normal (or
    Student's) distribution: `draws` times, from `seed`. `bonferroni` divides the error by the number of pairs, and
    is wider. `level` is the chance that all intervals cover.
    """

    method: Simultaneous = "max-t"
    level: float = 0.95
    draws: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that give no interval."""
        if not 0 < self.level < 1:
            raise DataError(f"intervals of level {self.level}, expected between 0 and 1")
        if self.draws < 1000:
            raise DataError(f"{self.draws} draws, expected at least 1000 for an interval")


@dataclass(frozen=True, slots=True, eq=False)
class Separation:
    """All differences of strengths with intervals that hold at once, and what follows from them.

    `difference[a, b]` is the strength of item a minus that of b, with `low` and `high`;
    `better[a, b]` says that a is certainly better. `rank_low` is 1 + the number of items certainly
    better, `rank_high` the number of items minus those certainly worse: the true rank of every item
    lies there with the probability `level`, for all at once. `critical` times a standard error is half an interval.
    """

    items: tuple[Any, ...]
    difference: Floats
    low: Floats
    high: Floats
    better: NDArray[np.bool_]
    rank_low: Codes
    rank_high: Codes
    critical: float
    settings: SeparationSettings

    def compare(self, one: Any, other: Any) -> Verdict:
        """Whether one item is certainly higher or lower than another, or cannot be told from it."""
        places = []
        for item in (one, other):
            if item not in self.items:
                raise DataError(f"there is no item {item!r} among the {len(self.items)}")
            places.append(self.items.index(item))
        if self.better[places[0], places[1]]:
            return "higher"
        return "lower" if self.better[places[1], places[0]] else "not separable"

    def tiers(self) -> tuple[tuple[Any, ...], ...]:
        """Items from the best down, cut only where everyone above is certainly better than all below.

        Within a tier items stand in the order of their labels: no order is claimed.
        """
        place = np.argsort(-self.difference.mean(axis=1), kind="stable")
        better = self.better[np.ix_(place, place)]
        cuts = [0]
        cuts += [k for k in range(1, len(place)) if better[:k, k:].all()]
        cuts.append(len(place))
        return tuple(
            tuple(self.items[at] for at in sorted(place[start:stop].tolist()))
            for start, stop in pairwise(cuts)
        )

    def groups(self) -> tuple[tuple[Any, ...], ...]:
        """Largest groups of items that cannot be told apart: two share one exactly where they cannot.

        An item may stand in several. They are the letters of a "compact letter display". From the
        group with the best items down.
        """
        alike = ~(self.better | self.better.T)
        np.fill_diagonal(alike, val=False)
        masks = [_mask(np.flatnonzero(row)) for row in alike]
        found = [_members(group) for group in _cliques(masks, (1 << len(masks)) - 1)]
        strength = self.difference.mean(axis=1)
        found.sort(key=lambda group: (-float(strength[group].mean()), group))
        return tuple(tuple(self.items[at] for at in group) for group in found)

    def sentence(self) -> str:
        """The order in words: `>` where it is certain, commas where items are not separable."""
        told = [", ".join(map(str, tier)) for tier in self.tiers()]
        if len(told) == 1 and len(self.items) > 1:
            return f"not separable into an order: {told[0]}"
        return " > ".join(f"({t})" if "," in t else t for t in told)

    def to_markdown(self) -> str:
        """Return a table of rank intervals; equal intervals stand by label, not by strength."""
        lines = ["| item | rank | certainly better than | certainly worse than |"]
        lines.append("| --- | --- | ---: | ---: |")
        for at in np.lexsort((np.arange(len(self.items)), self.rank_high, self.rank_low)).tolist():
            low, high = int(self.rank_low[at]), int(self.rank_high[at])
            rank = str(low) if low == high else f"{low} to {high}"
            lines.append(
                f"| {self.items[at]} | {rank} | {int(self.better[at].sum())} | "
                f"{int(self.better[:, at].sum())} |"
            )
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a bound that is not finite is None."""
        return {
            "method": self.settings.method,
            "level": self.settings.level,
            "draws": self.settings.draws if self.settings.method == "max-t" else None,
            "seed": self.settings.seed if self.settings.method == "max-t" else None,
            "critical": finite(self.critical),
            "sentence": self.sentence(),
            "tiers": [list(tier) for tier in self.tiers()],
            "items": [
                {"item": item, "rank_low": int(low), "rank_high": int(high)}
                for item, low, high in zip(self.items, self.rank_low, self.rank_high, strict=True)
            ],
            "difference": self.difference.tolist(),
            "low": [[finite(value) for value in row] for row in self.low],
            "high": [[finite(value) for value in row] for row in self.high],
        }


def separate(found: Strengths, settings: SeparationSettings | None = None) -> Separation:
    """Say which items are certainly better than which, with intervals of all pairs that hold at once.

    Difference ± critical · standard error, with the covariance of the fit. Items that never met, not even
    through others, are never separable. Degrees of freedom are those of the fit. A rank interval is 1 +
    the number certainly better to n - the number certainly worse (Klein, Wright and Wieczorek 2020, "A
    joint confidence region for an overall ranking of populations").
    """
    rules = settings or SeparationSettings()
    error = found.difference_errors()
    difference = found.strengths[:, None] - found.strengths[None, :]
    critical = critical_value(found, rules)
    half = np.where(np.isfinite(error), critical * np.where(np.isfinite(error), error, 0), np.inf)
    np.fill_diagonal(half, 0.0)
    # Rounding must not separate equal strengths whose difference has no error at all.
    better = difference - half > 1e-12
    np.fill_diagonal(better, val=False)
    count = len(found.items)
    return Separation(
        items=found.items,
        difference=difference,
        low=difference - half,
        high=difference + half,
        better=better,
        rank_low=1 + better.sum(axis=0),
        rank_high=count - better.sum(axis=1),
        critical=critical,
        settings=rules,
    )


def critical_value(found: Strengths, settings: SeparationSettings | None = None) -> float:
    """How many standard errors make half an interval, so that the intervals of all pairs hold at once."""
    rules = settings or SeparationSettings()
    first, second = np.triu_indices(len(found.items), 1)
    error = found.difference_errors()[first, second]
    real = np.isfinite(error) & (error > 0)
    first, second, error = first[real], second[real], error[real]
    if not len(error):
        return 0.0
    if rules.method == "bonferroni":
        return quantile(1 - (1 - rules.level) / len(error), found.freedom)
    largest = _largest(found, (first, second, error), rules)
    return float(np.quantile(largest, rules.level, method="higher"))


def _largest(
    found: Strengths, pairs: tuple[Codes, Codes, Floats], settings: SeparationSettings
) -> Floats:
    """Draws of the largest standardised difference of all pairs when nothing differs."""
    first, second, error = pairs
    values, vectors = np.linalg.eigh(found.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    rng = np.random.default_rng(settings.seed)
    normal = rng.standard_normal((settings.draws, len(root))) @ root.T
    if math.isfinite(found.freedom):
        chi = rng.chisquare(found.freedom, settings.draws) / found.freedom
        normal /= np.sqrt(chi)[:, None]
    block = max(1, _BLOCK // len(error))
    return np.concatenate(
        [
            (np.abs(part[:, first] - part[:, second]) / error).max(axis=1)
            for part in np.split(normal, range(block, settings.draws, block))
        ]
    )


def _mask(places: Codes) -> int:
    found = 0
    for place in places.tolist():
        found |= 1 << place
    return found


def _members(mask: int) -> list[int]:
    return [place for place in range(mask.bit_length()) if mask >> place & 1]


def _cliques(masks: list[int], everyone: int) -> Iterator[int]:
    """The largest groups in which all are alike (Bron and Kerbosch 1973, with a pivot)."""
    left = [(0, everyone, 0)]
    given = 0
    while left:
        group, may, gone = left.pop()
        if not may and not gone:
            given += 1
            if given > _MOST_GROUPS:
                raise DataError(
                    f"more than {_MOST_GROUPS} groups of items that cannot be told apart"
                )
            yield group
            continue
        pivot = max(_members(may | gone), key=lambda place: (masks[place] & may).bit_count())
        for place in _members(may & ~masks[pivot]):
            left.append((group | 1 << place, may & masks[place], gone & masks[place]))
            may &= ~(1 << place)
            gone |= 1 << place

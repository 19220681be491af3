"""Agreement on answers whose names mean nothing: which of two images is better, which of n is the best.

The value of such an answer is a place among images sorted by key, so that renaming an image would change the
shares of the values, and with them every coefficient that is corrected for chance. Here the values of a
question count as interchangeable: each has the mean of their shares, and names and orders change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.stats.agreements.answers import TIE, Answers
from palate.stats.agreements.coefficients import (
    Coefficient,
    Measure,
    agreed_beside,
    beyond_chance,
    coefficient_of,
    less_than_chance,
)
from palate.stats.agreements.units import Units, ratio
from palate.stats.intervals import Bootstrap

Floats = NDArray[np.float64]


def nameless_agreement(
    answers: Answers, *, two_way: bool = False, bootstrap: Bootstrap | None = None
) -> tuple[Coefficient, ...]:
    """Percent agreement, Fleiss' kappa, Gwet's AC1 and Krippendorff's alpha of pairs or of best images.

    A question with n images has n interchangeable answers, and a tie of a pair is one more, of its own
    name. With s the share of ties, chance is s² + (1 - s)² / n in Fleiss' kappa, and likewise in the
    others; questions of different n are counted apart and averaged. Without ties, kappa and AC1 are both
    (P - 1/n) / (1 - 1/n) (Bennett, Alpert and Goldstein 1954), and so is alpha but for its n - 1. Where
    some pair ties there is alpha on an `ordinal` scale too, on which a tie lies halfway: with three levels
    it is that of the `interval` scale.
    """
    width = int(answers.options.max(initial=2)) + 1
    is_pair = answers.kind == "pair"
    values = 2 * answers.values if is_pair else answers.options * width + answers.values
    units = Units.of(answers.items, values, answers.raters, answers.prompts, numbers=True)
    kinds, merge = _kinds_of(units.levels, width, is_pair=is_pair)
    units = replace(units, merge=merge)
    by_shares, by_spread = agreed_beside(kinds.chance), agreed_beside(kinds.spread_chance)
    measures = [
        Measure("percent agreement", ("agreeing", "pairs"), "share", by_shares, lambda p, _: p),
        Measure("Fleiss' kappa", ("agreement", "one"), "share", by_shares, beyond_chance),
        Measure("Gwet's AC1", ("agreement", "one"), "share", by_spread, beyond_chance),
        _alpha("nominal", ("disagreement", "size"), kinds.disagreements),
    ]
    if is_pair and answers.ties:
        measures.append(_alpha("ordinal", ("spread", "size"), kinds.distances))
    categories = int(kinds.answers.max())
    return tuple(
        coefficient_of(units, measure, two_way=two_way, bootstrap=bootstrap, categories=categories)
        for measure in measures
    )


def _alpha(scale: str, places: tuple[str, ...], parts: Any) -> Measure:
    return Measure(f"Krippendorff's alpha, {scale}", places, "count", parts, less_than_chance)


def _kinds_of(levels: NDArray[Any], width: int, *, is_pair: bool) -> tuple[_Kinds, Floats]:
    """Read the kinds of questions from the values, and which values fold into one column."""
    sizes = np.full(len(levels), 2) if is_pair else (levels // width).astype(np.int64)
    options, kind = np.unique(sizes, return_inverse=True)
    member = np.eye(len(options))[kind]
    tied = member * ((levels == 2 * TIE) & is_pair)[:, None]
    kinds = _Kinds(options * 1.0, options + 1.0 * tied.any(axis=0))
    return kinds, np.concatenate([member - tied, tied], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Kinds:
    """Questions by their number of interchangeable answers (`options`), and of all `answers`, ties included.

    Sums have a column per kind for what was decided, and then one per kind for its ties.
    """

    options: Floats
    answers: Floats

    def fold(self, sums: Floats) -> tuple[Floats, Floats]:
        """Sums of each kind, and the sum of the squares of its values, the names of which mean nothing."""
        decided, ties = np.split(sums, 2, axis=-1)
        return decided + ties, ties**2 + decided**2 / self.options

    def chance(self, shares: Floats) -> Floats:
        """Chance in Fleiss' kappa: the squares of the shares, kind by kind."""
        whole, squares = self.fold(shares)
        return np.asarray(np.nansum(ratio(squares, whole), axis=-1), dtype=np.float64)

    def spread_chance(self, shares: Floats) -> Floats:
        """Chance in AC1: s (1 - s) over the shares, by the number of other answers."""
        whole, squares = self.fold(shares)
        spread = np.nan_to_num(whole - ratio(squares, whole))
        return np.asarray((spread / (self.answers - 1)).sum(axis=-1), dtype=np.float64)

    def disagreements(self, scalars: Floats, sums: Floats) -> tuple[Floats, Floats]:
        """Observed and expected disagreement of alpha on a nominal scale."""
        whole, squares = self.fold(sums)
        apart = np.nan_to_num(whole - ratio(squares - whole, whole - 1))
        return ratio(scalars[:, 0], scalars[:, 1]), ratio(apart.sum(axis=-1), scalars[:, 1])

    def distances(self, scalars: Floats, sums: Floats) -> tuple[Floats, Floats]:
        """The same of squared distances of -1, 0 and 1, whose mean is 0 whichever image is the first."""
        decided = np.split(sums, 2, axis=-1)[0].sum(axis=-1)
        return ratio(scalars[:, 0], scalars[:, 1]), ratio(2 * decided, scalars[:, 1] - 1)

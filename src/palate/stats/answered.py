"""Which pairs of a choice people compared: who only picks the best leaves the order of the others open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.duels import Duels, duels
from palate.stats.calibrations.choice_model import compared_duels, picks_of


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """The duels of choices, `kept` where people compared the two images, and which choices are `picks`.

    A pick is a choice between more than two images with a best and a rest only: its losers have equal ranks
    because nobody asked for their order.
    """

    duels: Duels
    kept: NDArray[np.bool_]
    picks: NDArray[np.bool_]

    @property
    def silent(self) -> int:
        """The number of duels that nobody answered."""
        return int((~self.kept).sum())


def answered_duels(choices: Any) -> Answered:
    """Take choices apart into duels, and tell the ties of people from pairs that nobody compared.

    Equal ranks below the best of a pick say nothing (`compared_duels`). Where the details hold ratings or
    means of the images, the ranks are made of these, so that equal ones are ties in every place.
    """
    lengths, pairs = list_lengths(choices.column("images")), duels(choices)
    if not (lengths > 2).any():
        # two images were compared, even where they tie
        return Answered(pairs, np.ones(len(pairs), dtype=bool), np.zeros(len(lengths), dtype=bool))
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy().astype(np.int64)
    rated = _rated(choices.column("details"))
    *_, compared = compared_duels(ranks, bounds)
    picks = picks_of(ranks, bounds) & ~rated & (lengths > 2)
    return Answered(pairs, compared | rated[pairs.choice], picks)


def _rated(details: Any) -> NDArray[np.bool_]:
    """Which choices keep the ratings, or means, that their ranks come from."""
    told = pc.match_substring_regex(details, '"(ratings|means)": *\\[')
    return np.asarray(pc.fill_null(told, fill_value=False).to_numpy(zero_copy_only=False), bool)

"""Does the place of an image decide whether it is chosen?

People pick what stands last, or first, more often than chance explains. A scorer that knows the
order then looks better than it is.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from palate.data.checks import list_lengths
from palate.errors import DataError


@dataclass(frozen=True)
class Share:
    """A share of choices with its interval (Wilson 1927)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SlotShares:
    """How often each place was chosen, among choices between `size` images.

    Only choices with one best image count; `ties` is the number of the others. `p_value` is that
    of the chi-square test against equal shares: small means that places differ.
    """

    size: int
    choices: int
    ties: int
    counts: tuple[int, ...]
    shares: tuple[Share, ...]
    p_value: float


@dataclass(frozen=True)
class PositionBias:
    """What picking by place alone gets, next to chance.

    A pick is right if the person put it first, alone or in a tie; choices that tie all their
    images are left out. Chance is the mean of k/n, where k of n images were put first.
    """

    choices: int
    chance: float
    always_first: Share
    always_last: Share
    sizes: tuple[SlotShares, ...]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def position_bias(choices: Any, level: float = 0.95) -> PositionBias | None:
    """Measure position bias in a table of choices; None where no choice has a decision.

    The intervals take choices for independent.
    """
    lengths = list_lengths(choices.column("images"))
    if not len(lengths):
        return None
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy()
    owner = np.repeat(np.arange(len(lengths)), lengths)
    best = ranks == np.minimum.reduceat(ranks, starts)[owner]
    firsts = np.add.reduceat(best.astype(np.int64), starts)
    decided = firsts < lengths
    count = int(decided.sum())
    if not count:
        return None
    place = np.arange(len(ranks)) - starts[owner]
    winner = place[np.minimum.reduceat(np.where(best, np.arange(len(ranks)), len(ranks)), starts)]
    return PositionBias(
        choices=count,
        chance=float((firsts / lengths)[decided].mean()),
        always_first=share(int(best[starts][decided].sum()), count, level),
        always_last=share(int(best[starts + lengths - 1][decided].sum()), count, level),
        sizes=tuple(
            _slots(int(size), winner[lengths == size], firsts[lengths == size], level)
            for size in np.unique(lengths)
        ),
        level=level,
    )


def share(successes: int, count: int, level: float = 0.95) -> Share:
    """Return successes of count as a share with its Wilson interval; no trials give 0 to 1."""
    if not count:
        return Share(0.0, 0.0, 1.0)
    low, high = wilson(float(successes), count, level)
    return Share(successes / count, low, high)


def wilson(successes: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of independent trials (Wilson 1927); half successes are allowed.

    >>> [round(bound, 4) for bound in wilson(5.0, 10)]
    [0.2366, 0.7634]
    """
    from scipy.special import ndtri

    if count < 1 or not 0 <= successes <= count:
        raise DataError(f"{successes} successes in {count} trials give no share")
    z2 = float(ndtri((1 + level) / 2)) ** 2
    share = successes / count
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def _slots(size: int, winner: Any, firsts: Any, level: float) -> SlotShares:
    counts = np.bincount(winner[firsts == 1], minlength=size)
    total = int(counts.sum())
    return SlotShares(
        size=size,
        choices=total,
        ties=int((firsts > 1).sum()),
        counts=tuple(int(number) for number in counts),
        shares=tuple(share(int(number), total, level) for number in counts),
        p_value=_equal_shares(counts),
    )


def _equal_shares(counts: Any) -> float:
    """p-value of Pearson's chi-square test that all places are chosen equally often."""
    # scipy.stats has both, but takes a second to import
    from scipy.special import chdtrc

    total = counts.sum()
    if not total:
        return 1.0
    expected = total / len(counts)
    return float(chdtrc(len(counts) - 1, ((counts - expected) ** 2 / expected).sum()))

"""Who beats whom: wins between methods on the prompts that they share, from people's rankings.

The shape of ImageReward's tables: the number of wins of every method over all others, and its win
rate against a baseline. A win is an image ranked before an image of another method in one choice.
Wins of a method depend on who else was ranked; the rate against a baseline does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.duels import pair_index
from palate.errors import DataError
from palate.stats.accuracy import Groups
from palate.stats.intervals import Bootstrap, Column, Estimate, cluster_codes, paired
from palate.stats.two_way.estimates import share_estimate

Counts = NDArray[np.int64]
WinTies = Literal["half", "drop", "loss"]


@dataclass(frozen=True, slots=True)
class WinRate:
    """Share of pairs that a wins, with its interval and the rule for ties."""

    estimate: Estimate
    wins: int
    ties: int
    losses: int
    tie_rule: WinTies
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "rate": self.estimate.to_dict(),
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "tie_rule": self.tie_rule,
            "tolerance": self.tolerance,
        }


def win_rate(
    a: Column,
    b: Column,
    clusters: Column | None = None,
    *,
    ties: WinTies = "half",
    tolerance: float = 0.0,
    bootstrap: Bootstrap | None = None,
) -> WinRate:
    """Share of pairs in which a is higher than b, with the interval of `share_estimate`.

    Values at most `tolerance` apart tie: a tie counts `half`, is left out (`drop`), or counts as
    a `loss` of a. Raises `DataError` where no pair is left.
    """
    left, right = paired(a, b)
    gap = left - right
    tied = np.abs(gap) <= tolerance
    won = (gap > 0) & ~tied
    credit = np.where(tied, 0.5 if ties == "half" else 0.0, won.astype(np.float64))
    kept = ~tied if ties == "drop" else np.ones(len(gap), dtype=bool)
    if not kept.any():
        raise DataError(f"all {len(gap)} pairs tie, and the rule drops ties: no win rate")
    codes = cluster_codes(clusters, len(gap))
    return WinRate(
        estimate=share_estimate(credit[kept], codes[kept], bootstrap=bootstrap),
        wins=int(won.sum()),
        ties=int(tied.sum()),
        losses=int((~won & ~tied).sum()),
        tie_rule=ties,
        tolerance=tolerance,
    )


@dataclass(frozen=True, slots=True)
class MethodWins:
    """One method: its pairs against all others, and its win rate against the baseline.

    `rate` is None for the baseline itself, without a baseline, and for a method that met it nowhere
    (or only in ties that are dropped).
    """

    method: str
    wins: int
    ties: int
    losses: int
    prompts: int
    rate: WinRate | None

    @property
    def pairs(self) -> int:
        """In how many pairs the method stood."""
        return self.wins + self.ties + self.losses

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "method": self.method,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "pairs": self.pairs,
            "prompts": self.prompts,
            "rate": None if self.rate is None else self.rate.to_dict(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class WinTable:
    """Wins of every method, most wins first; methods with equal wins stand by name.

    `wins[a, b]` says how often method `names[a]` was ranked before `names[b]`; `ties` is its like
    for equal ranks and has each tie on both sides. `own` counts pairs within one method, which are
    left out.
    """

    name: str
    rows: tuple[MethodWins, ...]
    names: tuple[str, ...]
    wins: Counts
    ties: Counts
    baseline: str | None
    tie_rule: WinTies
    choices: int
    own: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "choices": self.choices,
            "baseline": self.baseline,
            "tie_rule": self.tie_rule,
            "own": self.own,
            "rows": [row.to_dict() for row in self.rows],
            "names": list(self.names),
            "wins": self.wins.tolist(),
            "ties": self.ties.tolist(),
        }

    def to_markdown(self) -> str:
        """Return the table as ImageReward prints it: method, #wins and win rate in per cent."""
        told = "win rate" if self.baseline is None else f"win rate over {self.baseline}"
        level = next((r.rate.estimate.bootstrap.level for r in self.rows if r.rate), 0.95)
        lines = [
            f"| method | #wins | {told} | {100 * level:g} % interval |",
            "| --- | ---: | ---: | --- |",
        ]
        for row in self.rows:
            if row.rate is None:
                lines.append(f"| {row.method} | {row.wins} | – | – |")
                continue
            one = row.rate.estimate
            bounds = f"{100 * one.low:.1f} to {100 * one.high:.1f}"
            lines.append(f"| {row.method} | {row.wins} | {100 * one.value:.2f} | {bounds} |")
        return "\n".join(lines) + "\n"


def win_counts(
    methods: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    baseline: str | None = None,
    ties: WinTies = "half",
    name: str = "all",
    bootstrap: Bootstrap | None = None,
) -> WinTable:
    """Count the wins between methods over all pairs of every choice.

    `methods` names the method of every image and `ranks` its rank in its choice (the lowest is the
    best); both are flat, and choice i owns the entries `offsets[i]:offsets[i + 1]`. Two methods
    meet only where one choice holds both, so that they are compared on shared prompts. Equal ranks
    are no win for either; in the rate against the `baseline` they count `half`, are left out
    (`drop`), or count as a `loss`. Which of these the ImageReward paper used is not confirmed.
    Ranks are taken for a ranking: leave out the losers of a pick, whom nobody compared (`answered_duels`).
    Two images of one method in a choice are not compared with each other. The interval of a rate
    resamples `prompts` (one label per choice; None: every choice is its own). Raises `DataError`
    where no two methods meet, and for a baseline that is not among the methods.
    """
    labels = np.asarray(methods)
    groups = Groups(np.zeros(labels.shape), ranks, offsets)
    names, codes = np.unique(labels, return_inverse=True)
    if baseline is not None and baseline not in names.tolist():
        raise DataError(f"no image is by {baseline!r}; there are {', '.join(map(str, names))}")
    meetings = _meetings(codes, groups)
    if not len(meetings.choice):
        raise DataError(f"no two methods meet in {len(groups.sizes)} choices")
    clusters = cluster_codes(prompts, len(groups.sizes))
    wins, level = meetings.tables(len(names))
    met = meetings.prompts(len(names), clusters)
    other = -1 if baseline is None else names.tolist().index(baseline)
    near = meetings.of(other)
    rows = []
    for code, method in enumerate(names.tolist()):
        rate = None
        if baseline is not None and code != other:
            rate = _rate(near, code, clusters, (ties, bootstrap))
        won, lost, drawn = wins[code].sum(), wins[:, code].sum(), level[code].sum()
        numbers = (int(won), int(drawn), int(lost), int(met[code]))
        rows.append(MethodWins(str(method), *numbers, rate))
    rows.sort(key=lambda row: (-row.wins, row.method))
    told = tuple(str(method) for method in names.tolist())
    return WinTable(
        *(name, tuple(rows), told, wins, level, baseline, ties, len(groups.sizes)),
        own=meetings.own,
    )


def win_counts_by(
    labels: Column,
    methods: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    **settings: Any,
) -> tuple[WinTable, ...]:
    """Count wins in every category of prompts by itself, in the sorted order of the `labels`.

    `labels` has one category per choice; the settings are those of `win_counts`. A category in
    which no two methods meet, or which the baseline is missing from, raises `DataError`.
    """
    bounds, own = np.asarray(offsets, dtype=np.int64), np.asarray(labels)
    sizes = bounds[1:] - bounds[:-1]
    if own.shape != sizes.shape:
        raise DataError(f"{len(sizes)} choices but labels of shape {own.shape}")
    who, order = np.asarray(methods), np.asarray(ranks)
    clusters = None if prompts is None else np.asarray(prompts)
    tables = []
    for name in np.unique(own).tolist():
        rows = own == name
        kept, cuts = np.repeat(rows, sizes), np.concatenate([[0], np.cumsum(sizes[rows])])
        columns = (who[kept], order[kept], cuts, None if clusters is None else clusters[rows])
        tables.append(win_counts(*columns, name=str(name), **settings))
    return tuple(tables)


@dataclass(frozen=True, slots=True, eq=False)
class _Meetings:
    """Every pair of images of two methods: its choice, the two methods, and who won (1, 0, 0.5)."""

    choice: Counts
    left: Counts
    right: Counts
    outcome: NDArray[np.float64]
    own: int

    def tables(self, count: int) -> tuple[Counts, Counts]:
        """How often each beat each, and how often each tied with each."""
        there = self.left * count + self.right
        back = self.right * count + self.left
        shape, size = (count, count), count * count
        won = np.bincount(there[self.outcome == 1], minlength=size)
        lost = np.bincount(back[self.outcome == 0], minlength=size)
        tied = self.outcome == 0.5
        level = np.bincount(np.concatenate([there[tied], back[tied]]), minlength=size)
        return (won + lost).reshape(shape), level.reshape(shape)

    def prompts(self, count: int, clusters: Counts) -> Counts:
        """On how many prompts each method met another."""
        labels = clusters[self.choice]
        seen = np.zeros((count, int(clusters.max()) + 1), dtype=bool)
        seen[self.left, labels] = True
        seen[self.right, labels] = True
        counts: Counts = seen.sum(axis=1, dtype=np.int64)
        return counts

    def of(self, code: int) -> _Meetings:
        """The pairs of one method with any other."""
        kept = (self.left == code) | (self.right == code)
        left, right = self.left[kept], self.right[kept]
        return _Meetings(self.choice[kept], left, right, self.outcome[kept], self.own)


def _meetings(codes: Counts, groups: Groups) -> _Meetings:
    choice, first, second = pair_index(groups.sizes)
    first, second = groups.starts[choice] + first, groups.starts[choice] + second
    left, right = codes[first], codes[second]
    before, after = groups.ranks[first], groups.ranks[second]
    outcome = np.where(before == after, 0.5, (before < after).astype(np.float64))
    kept = left != right
    own = int((~kept).sum())
    return _Meetings(choice[kept], left[kept], right[kept], outcome[kept], own)


def _rate(near: _Meetings, code: int, clusters: Counts, options: tuple[Any, Any]) -> WinRate | None:
    """Win rate of one method over the other of `near`; None if they met in dropped ties only."""
    ties, bootstrap = options
    there = near.left == code
    met = there | (near.right == code)
    won = np.where(there, near.outcome, 1 - near.outcome)[met]
    if not met.any() or (ties == "drop" and (won == 0.5).all()):
        return None
    labels = clusters[near.choice[met]]
    return win_rate(won, np.full(len(won), 0.5), labels, ties=ties, bootstrap=bootstrap)

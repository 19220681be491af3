"""The leaderboard as a plot: scorers with intervals, what people reach, and what costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from palate.evaluation.board import BoardRow
from palate.evaluation.ceilings import HumanCeiling
from palate.evaluation.report import SERIES, SOFT, _new_plot, _svg

_PEOPLE: Final = SERIES[2]


@dataclass(frozen=True, slots=True)
class _Bar:
    """One line of the plot in per cent; without `value` only the bar, without `ends` only the point."""

    name: str
    colour: str
    value: float | None = None
    ends: tuple[float, float] | None = None


def plot_leaderboard(rows: Sequence[BoardRow], ceiling: HumanCeiling | None) -> str:
    """Draw the scorers of one data set and dimension under its main protocol as SVG, the best on top.

    `ceiling` is what people reach under the same count. Blue intervals lie apart from chance, which is the
    dashed line; green is of people, and the green line is one person against the rest. Hollow points have
    no interval.
    """
    chance = 100 * rows[0].result.chance
    protocol = rows[0].result.protocol.name
    people = [] if ceiling is None else list(_of_people(ceiling, protocol))
    bars = [*_of_scorers(rows, chance), *people, *_of_places(rows[0])]
    figure, axes = _new_plot(6.8, 0.75 + 0.3 * len(bars))
    for place, bar in enumerate(bars):
        if bar.ends is not None:
            axes.plot(bar.ends, [place, place], color=bar.colour, linewidth=2)
        if bar.value is not None:
            face = "white" if bar.ends is None else bar.colour
            style = {"color": bar.colour, "markerfacecolor": face, "markersize": 5}
            axes.plot([bar.value], [place], "o", **style)
    axes.axvline(chance, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    if ceiling is not None and ceiling.ceilings is not None:
        axes.axvline(100 * ceiling.ceilings.rest.value, color=_PEOPLE, linewidth=0.9, alpha=0.6)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlabel(f"% ({protocol})")
    return _svg(figure)


def _of_scorers(rows: Sequence[BoardRow], chance: float) -> Iterator[_Bar]:
    for row in sorted(rows, key=lambda one: -one.result.value):
        its = row.result.accuracy.estimate
        low, high = 100 * its.low, 100 * its.high
        colour = SERIES[0] if low > chance or high < chance else SOFT
        yield _Bar(row.scorer, colour, 100 * its.value, (low, high))


def _of_people(ceiling: HumanCeiling, protocol: str) -> Iterator[_Bar]:
    for one in ceiling.published:
        if one.protocol == protocol and one.share is not None:
            yield _Bar(f"{one.name}, published", _PEOPLE, 100 * one.share)
    if ceiling.ceilings is None:
        return
    rest, perfect = ceiling.ceilings.rest.estimate, ceiling.ceilings.perfect
    ends = (100 * rest.low, 100 * rest.high)
    yield _Bar("one person against the rest", _PEOPLE, 100 * rest.value, ends)
    likely = None if perfect.likely is None else 100 * perfect.likely.value
    ends = (100 * perfect.lowest.value, 100 * perfect.highest.value)
    yield _Bar("perfect scorer, lowest to highest", _PEOPLE, likely, ends)


def _of_places(row: BoardRow) -> Iterator[_Bar]:
    yield _Bar("always first", SOFT, 100 * row.result.always_first)
    yield _Bar("always last", SOFT, 100 * row.result.always_last)

"""The sweep as curves: what a measure does as more of the adapter is applied."""

from __future__ import annotations

from collections.abc import Sequence

from palate.evaluation.report import LINE, SERIES, SOFT, _new_plot, _svg

Point = tuple[float, float, float | None, float | None]


def plot_sweep(points: Sequence[Point], *, up: str, colour: str = SERIES[0]) -> str:
    """Draw differences from the original over strengths (strength, difference, low, high) as SVG.

    The band is the interval; without bounds there is none. The dashed line is the original.
    """
    figure, axes = _new_plot(4.6, 2.7)
    strengths = [strength for strength, *_ in points]
    known = [(s, low, high) for s, _, low, high in points if low is not None and high is not None]
    if known:
        across, low, high = zip(*known, strict=True)
        axes.fill_between(across, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.vlines(across, low, high, color=colour, linewidth=1.6)
    axes.plot(strengths, [value for _, value, *_ in points], "o-", color=colour, markersize=4)
    axes.axhline(0, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.axvline(1, color=LINE, linewidth=1.2, zorder=0.5)
    axes.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
    axes.set_xlabel("strength of the adapter")
    axes.set_ylabel(up)
    return _svg(figure)

"""Small charts for the page of an audit, as SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 720
_ROW: Final = 24
_LABEL: Final = 190
_TOLD: Final = 170
_HEIGHT: Final = 150.0


@dataclass(frozen=True)
class Bar:
    """A value with a name and a text, and the interval around it where there is one."""

    label: str
    value: float
    told: str
    low: float | None = None
    high: float | None = None
    marked: bool = False


def bar_chart(
    bars: Sequence[Bar], label: str, line: float | None = None, line_told: str = ""
) -> str:
    """Draw bars from 0 with whiskers, one a row, and a broken line at `line` (such as chance)."""
    top = max([bar.high or bar.value for bar in bars] + [line or 0.0, 1e-9])
    left = min(_LABEL, 24 + 7 * max((len(bar.label) for bar in bars), default=0))
    room = _WIDTH - left - _TOLD
    head = 20 if line is not None else 4
    height = float(head + _ROW * len(bars) + 4)
    parts = [_open(height, label)]
    for row, bar in enumerate(bars):
        parts.append(_bar(bar, left, float(head + row * _ROW), room / top))
    if line is not None:
        x = left + line * room / top
        parts += [
            f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{head - 2}" y2="{height - 2:g}"/>',
            (
                f'<text class="faint" x="{x:.1f}" y="{head - 7}" text-anchor="middle">'
                f"{escape(line_told)}</text>"
            ),
        ]
    return "".join([*parts, "</svg>"])


def _bar(bar: Bar, left: int, y: float, scale: float) -> str:
    middle = y + _ROW / 2
    kind = "bar marked" if bar.marked else "bar"
    parts = [
        (
            f'<text x="{left - 10}" y="{middle + 4:.1f}" text-anchor="end">'
            f"{escape(shortened(bar.label, 28))}<title>{escape(bar.label)}</title></text>"
        ),
        (
            f'<rect class="{kind}" x="{left}" y="{y + 4:.1f}" '
            f'width="{max(bar.value * scale, 1):.1f}" height="{_ROW - 8}" rx="2"/>'
        ),
    ]
    if bar.low is not None and bar.high is not None:
        low, high = left + bar.low * scale, left + bar.high * scale
        parts.append(
            f'<path class="whisker" d="M{low:.1f} {middle - 4:.1f}v8m0 -4H{high:.1f}m0 -4v8"/>'
        )
    parts.append(
        f'<text class="told" x="{_WIDTH - _TOLD + 14}" y="{middle + 4:.1f}">'
        f"{escape(bar.told)}</text>"
    )
    return "".join(parts)


def histogram(
    bins: Sequence[tuple[str, int]],
    label: str,
    axis: str,
    limit: float | None = None,
    limit_told: str = "",
) -> str:
    """Draw counts side by side; `limit` is where a line stands, in bins from the left."""
    most = max([count for _, count in bins] + [1])
    left, base, head = 56, _HEIGHT - 34, 22
    step = min(90.0, (_WIDTH - left - 8) / max(1, len(bins)))
    parts = [_open(_HEIGHT, label)]
    for share in (0.5, 1.0):
        y = base - share * (base - head)
        parts.append(
            f'<line class="grid" x1="{left}" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        if most > 1 or share == 1:
            parts.append(
                f'<text class="faint" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{most * share:,.10g}</text>"
            )
    every = -(-len(bins) // 12)
    for k, (name, count) in enumerate(bins):
        x, high = left + k * step, count / most * (base - head)
        over = limit is not None and k + 0.5 > limit
        parts.append(
            f'<rect class="bar{" marked" if over else ""}" x="{x + 1:.1f}" y="{base - high:.1f}" '
            f'width="{max(step - 2, 1):.1f}" height="{max(high, 1 if count else 0):.1f}">'
            f"<title>{escape(name)}: {count:,}</title></rect>"
        )
        if k % every == 0:
            parts.append(
                f'<text class="faint" x="{x + step / 2:.1f}" y="{base + 14:g}" '
                f'text-anchor="middle">{escape(name)}</text>'
            )
    if limit is not None and limit <= len(bins):
        x = left + limit * step
        parts += [
            f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{head - 6}" y2="{base:g}"/>',
            (
                f'<text class="faint" x="{x:.1f}" y="{head - 10}" text-anchor="middle">'
                f"{escape(limit_told)}</text>"
            ),
        ]
    parts.append(
        f'<text class="faint" x="{_WIDTH - 8}" y="{_HEIGHT - 3:g}" text-anchor="end">'
        f"{escape(axis)}</text></svg>"
    )
    return "".join(parts)


def _open(height: float, label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'


def shortened(text: str, most: int) -> str:
    """Cut a text that is too long, with an ellipsis for the rest.

    >>> shortened("a long name", 7)
    'a long…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"

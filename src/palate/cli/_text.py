"""Small plain-text tables, which can be read, copied and searched."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """Align rows under a header; columns named in `right` (by number) are set to the right.

    >>> print(text_table(["a", "n"], [["x", "1"], ["yy", "20"]], right="1"))
    a    n
    x    1
    yy  20
    """
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[k]) for row in table) for k in range(len(header))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if str(k) in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def percent(value: float, low: float | None = None, high: float | None = None) -> str:
    """Write a share as percent, with its interval where there is one.

    >>> percent(0.318, 0.277, 0.361)
    '31.8 % (27.7 to 36.1)'
    """
    text = f"{100 * value:.1f} %"
    if low is None or high is None or low != low or high != high:  # noqa: PLR0124 - not a number
        return text
    return f"{text} ({100 * low:.1f} to {100 * high:.1f})"


def plural(count: int, noun: str) -> str:
    """Write a number with its noun.

    >>> plural(1, "image"), plural(1968, "image")
    ('1 image', '1,968 images')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")

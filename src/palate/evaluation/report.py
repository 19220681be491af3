"""Self-contained HTML reports: pictures and plots inside one file that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from palate import __version__
from palate.runs import write_atomic

Array: TypeAlias = NDArray[Any]

INK, SOFT, LINE = "#1d2129", "#5b6472", "#dfe3e8"
SERIES = ("#1f6feb", "#d9730d", "#17784a", "#8250df", "#b3362b")
PAGES = Path(__file__).parent / "pages"


def write_report(template: Path, out: Path, facts: Mapping[str, object]) -> None:
    """Fill a page that extends `base.html` and write it whole or not at all.

    Args:
        template: the Jinja2 page; what it prints is escaped unless it says `| safe`.
        out: the HTML file to write.
        facts: what the page may name; `title` is needed.
    """
    import jinja2

    places = jinja2.FileSystemLoader([template.parent, PAGES])
    pages = jinja2.Environment(
        loader=places,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = pages.get_template(template.name).render(version=__version__, **facts)
    write_atomic(out, text)


def picture_uri(pixels: UInt8[Array, "height width 3"]) -> str:
    """Put a picture into a page: a `data:` address of its PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    across: str,
    up: str,
    lines: Mapping[str, float] | None = None,
) -> str:
    """Draw named curves of (x, y) points, with named level lines for comparison, as SVG."""
    figure, axes = _new_plot(6.2, 3.1)
    for (name, points), colour in zip(curves.items(), SERIES, strict=False):
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(x, y, color=colour, label=name, linewidth=1.8)
    for name, level in (lines or {}).items():
        axes.axhline(level, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            name,
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(4, -3),
            textcoords="offset points",
            color=SOFT,
            fontsize=8,
        )
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def plot_points(
    x: Float[Array, "points"],
    y: Float[Array, "points"],
    *,
    across: str,
    up: str,
    groups: Sequence[str] | None = None,
) -> str:
    """Draw points, coloured by their group where groups are given, as SVG."""
    figure, axes = _new_plot(6.2, 3.6)
    names = sorted(set(groups)) if groups is not None else [""]
    of = np.array(groups) if groups is not None else np.full(len(x), "")
    for name, colour in zip(names, (*SERIES,), strict=False):
        axes.scatter(
            x[of == name], y[of == name], s=9, alpha=0.55, color=colour, label=name, linewidths=0
        )
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if groups is not None:
        axes.legend(frameon=False, fontsize=8, markerscale=1.6)
    return _svg(figure)


def plot_intervals(
    rows: Sequence[tuple[str, float, float, float]], *, across: str, level: float
) -> str:
    """Draw one estimate with its interval per row (name, estimate, low, high), as SVG."""
    figure, axes = _new_plot(6.2, 0.75 + 0.38 * len(rows))
    for place, (_, estimate, low, high) in enumerate(rows):
        apart = low > level or high < level
        colour = SERIES[0] if apart else SOFT
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot([estimate], [place], "o", color=colour, markersize=5)
    axes.axvline(level, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(across)
    return _svg(figure)


def plot_band(
    rows: Sequence[tuple[str, float, float, float, bool]], *, across: str, band: tuple[float, float]
) -> str:
    """Draw one estimate with its interval per row (name, estimate, low, high, whether it stands out) over a band."""
    figure, axes = _new_plot(6.2, 0.75 + 0.38 * len(rows))
    axes.axvspan(*band, color=LINE, alpha=0.7, linewidth=0)
    axes.axvline(sum(band) / 2, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    for place, (_, estimate, low, high, apart) in enumerate(rows):
        colour = SERIES[0] if apart else SOFT
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot([estimate], [place], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(across)
    return _svg(figure)


def _new_plot(width: float, height: float) -> tuple[Any, Any]:
    """A plot in the report's style; made without pyplot, so no display or global state is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=SOFT, labelsize=8, length=0)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "palate"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def plot_counts(
    values: Mapping[str, Float[Array, "values"]], *, across: str, up: str = "images"
) -> str:
    """Draw how values are distributed, one outline per name, as SVG."""
    figure, axes = _new_plot(6.2, 2.6)
    whole = np.concatenate([np.asarray(own) for own in values.values()])
    edges = np.histogram_bin_edges(whole, bins=min(40, max(8, int(np.sqrt(len(whole))))))
    for (name, own), colour in zip(values.items(), SERIES, strict=False):
        counts, _ = np.histogram(own, edges)
        axes.stairs(counts, edges, color=colour, label=name, linewidth=1.6, fill=False)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if len(values) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure)

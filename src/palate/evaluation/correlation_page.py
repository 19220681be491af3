"""The page of a correlation study: differences against what chance makes of them, the table, and example pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from palate.data.audit.page import thumbnail_uri
from palate.data.tables import Dataset, image_path
from palate.errors import ImageError
from palate.evaluation.contrasts import Contrast, CorrelationStudy, printed_in_hps, printed_note
from palate.evaluation.relabelling import decided_choices
from palate.evaluation.report import PAGES, plot_band, write_report

_EXAMPLES: Final = 6
_OTHERS: Final = 3


def write_correlation_page(study: CorrelationStudy, dataset: Dataset, out: Path) -> None:
    """Write a study as one HTML file with its pictures inside.

    `dataset` holds the choices that were studied; the pictures of some of them, drawn by the seed, stand on the page,
    and an image without a file is named instead.
    """
    rows = [
        {**contrast.texts(), "printed": study.printed.get(contrast.measure, ("", ""))}
        for contrast in study.contrasts
    ]
    facts = {
        "title": "Do measures follow what people choose?",
        "about": study.about(),
        "level": f"{study.settings.level:.0%}",
        "relabellings": f"{study.settings.relabellings:,}",
        "plot": _plot(study),
        "has_distance": any(one.better == "distance" for one in study.contrasts),
        "rows": rows,
        "cautions": study.cautions,
        "printed": printed_in_hps(),
        "beside": bool(study.printed),
        "printed_note": printed_note(),
        "examples": _examples(study, dataset),
    }
    write_report(PAGES / "correlation.html", out, facts)


def _plot(study: CorrelationStudy) -> str:
    """Every measure on one scale: the middle of its null distribution is 0, the ends are -1 and 1, right is with people."""
    rows = [(one.measure, *against_null(one), one.separable) for one in study.contrasts]
    return plot_band(
        rows,
        across="← against people · 1 is half the width of the band · with people →",
        band=(-1.0, 1.0),
    )


def against_null(row: Contrast) -> tuple[float, float, float]:
    """Difference, low and high end of its interval, on the scale on which the null interval goes from -1 to 1.

    The sign is that of following people: a lower FID of the chosen images is positive. Without an interval its ends are
    the difference. Where relabelling changes nothing, all three are 0.
    """
    middle, half = (row.null_high + row.null_low) / 2, (row.null_high - row.null_low) / 2
    ends = (row.difference, row.low, row.high)
    values = [row.difference if value is None else value for value in ends]
    if half <= 1e-12 * max(map(abs, values)):
        return 0.0, 0.0, 0.0
    sign = -1 if row.better == "lower" else 1
    at, *interval = [sign * (value - middle) / half for value in values]
    return at, min(interval), max(interval)


def _examples(study: CorrelationStudy, dataset: Dataset) -> list[dict[str, Any]]:
    """Some choices of different prompts: the image that was chosen, and the first of the others as shown."""
    if not len(dataset.images):
        return []
    decided, _ = decided_choices(dataset.choices, study.settings.dimension)
    prompts = decided.column("prompt").to_pylist()
    picked: dict[str, int] = {}
    for row in np.random.default_rng((study.settings.seed, 3)).permutation(len(prompts)):
        picked.setdefault(prompts[row], int(row))
    rows = list(picked.values())[:_EXAMPLES]
    files = {row["image"]: row for row in dataset.images.select(["image", "path"]).to_pylist()}
    return [
        _example(choice, files, dataset.folder)
        for choice in decided.take(pa.array(rows, pa.int64())).to_pylist()
    ]


def _example(choice: dict[str, Any], files: dict[str, Any], folder: Path) -> dict[str, Any]:
    best = min(choice["ranks"])
    shown = sorted(
        zip(choice["ranks"], choice["images"], strict=True), key=lambda pair: pair[0] != best
    )
    cells = [
        {"image": image, "uri": _picture(files.get(image), folder), "chosen": rank == best}
        for rank, image in shown[: 1 + _OTHERS]
    ]
    return {"prompt": choice["prompt"], "cells": cells, "more": len(shown) - len(cells)}


def _picture(row: Any, folder: Path) -> str | None:
    """A small JPEG inside the page; None where there is no file or it does not open."""
    if row is None or row["path"] is None:
        return None
    try:
        return thumbnail_uri(image_path(row, folder))
    except ImageError:
        return None

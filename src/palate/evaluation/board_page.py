"""The page of a board: leaderboards with intervals, categories, distributions, and where scorers fail."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from palate.data.checks import list_lengths
from palate.data.duels import duels
from palate.data.images import open_image
from palate.data.tables import Dataset, image_path
from palate.errors import ImageError
from palate.evaluation.board import Board, BoardRow
from palate.evaluation.board_plots import plot_leaderboard
from palate.evaluation.board_tables import (
    BoardTable,
    accuracy_table,
    ceiling_table,
    opinion_table,
    retrieval_table,
    versus_table,
)
from palate.evaluation.joins import values_of_choices
from palate.evaluation.report import PAGES, plot_counts, plot_curves, plot_intervals, write_report

_SIDE: Final = 160
_SHOWN: Final = 6
_STEPS: Final = 8


def write_board_page(
    board: Board, datasets: Sequence[tuple[str, Dataset]], scores: Sequence[Any], out: Path
) -> None:
    """Write a board as one HTML file with its pictures inside.

    `datasets` and `scores` are those that were measured; pictures come from the data sets' files, and an
    image without a file is named instead.
    """
    facts = {
        "title": "Scorers and people",
        "leaderboard": accuracy_table(board.rows),
        "versus": versus_table(board.versus),
        "sections": [_section(board, name, dataset, scores) for name, dataset in datasets],
        "level": f"{board.settings.level:.0%}",
    }
    write_report(PAGES / "board.html", out, facts)


def _section(board: Board, name: str, dataset: Dataset, scores: Sequence[Any]) -> dict[str, Any]:
    """One data set: plots per dimension, and the questions on which scorers and people disagree."""
    main = [row for row in board.rows if row.data == name and row.main]
    paths = {
        row["image"]: row
        for row in dataset.images.select(["image", "path"]).to_pylist()
        if row["path"] is not None
    }
    dimensions = list(dict.fromkeys(row.dimension for row in main))
    return {
        "name": name,
        "choices": f"{len(dataset.choices):,}",
        "prompts": f"{len(dataset.choices.column('prompt').unique()):,}",
        "images": f"{len(dataset.images):,}",
        "boards": [_board(board, name, dimension) for dimension in dimensions],
        "parts": [
            (row.dimension, row.scorer, _parts(row)) for row in main if _parts(row) is not None
        ],
        "distributions": _distributions(dataset, scores),
        "curves": _curves(dataset, scores),
        "worst": [
            {
                "dimension": one.dimension,
                "scorer": one.scorer,
                "questions": [
                    _question(question, paths, dataset.folder)
                    for question in one.questions[:_SHOWN]
                ],
            }
            for one in board.worst
            if one.data == name and one.questions
        ],
    }


def _board(board: Board, name: str, dimension: str) -> dict[str, Any]:
    """The leaderboard of one dimension as a plot, what people reach, and what else was measured."""

    def own(rows: Sequence[Any]) -> list[Any]:
        return [row for row in rows if (row.data, row.dimension) == (name, dimension)]

    main = [row for row in own(board.rows) if row.main]
    ceilings = own(board.ceilings)
    protocol = main[0].result.protocol.name
    beside = next((one for one in ceilings if protocol in one.protocols), None)
    tables = [
        ceiling_table(ceilings),
        retrieval_table(own(board.retrieval)),
        opinion_table(own(board.opinions)),
    ]
    return {
        "dimension": dimension,
        "plot": plot_leaderboard(main, beside),
        "reason": "" if beside is None else beside.reason,
        "tables": [_narrow(table) for table in tables if table.rows],
    }


def _narrow(table: BoardTable) -> BoardTable:
    """The table without the data set and the dimension, which its heading says."""
    return replace(
        table,
        header=table.header[2:],
        rows=tuple(row[2:] for row in table.rows),
        numeric=tuple(place - 2 for place in table.numeric),
    )


def _parts(row: BoardRow) -> str | None:
    drawn = [
        (
            f"{part.name} ({part.choices:,})",
            100 * part.result.value,
            100 * part.result.accuracy.estimate.low,
            100 * part.result.accuracy.estimate.high,
        )
        for part in row.parts
        if part.result is not None
    ]
    return plot_intervals(drawn, across="%", level=100 * row.result.chance) if drawn else None


def _distributions(dataset: Dataset, scores: Sequence[Any]) -> list[tuple[str, str]]:
    """How the scores of the shown images are distributed, chosen and others, per scorer."""
    found = []
    for name, unit, values, best in _valued(dataset, scores):
        parts: Mapping[str, Any] = {"put first": values[best], "others": values[~best]}
        parts = {part: own for part, own in parts.items() if len(own)}
        found.append((name, plot_counts(parts, across=unit, up="images shown")))
    return found


def _curves(dataset: Dataset, scores: Sequence[Any]) -> str | None:
    """How often people agree with the scorer, by how far apart it puts two images."""
    pairs = duels(dataset.choices)
    decided = pairs.outcome != 0.5
    curves = {}
    for name, _, values, _ in _valued(dataset, scores):
        gap = (values[pairs.first_index] - values[pairs.second_index])[decided]
        right = np.where(gap > 0, pairs.outcome[decided] == 1, pairs.outcome[decided] == 0)
        known = np.isfinite(gap) & (gap != 0)
        if known.sum() < 2 * _STEPS:
            continue
        order = np.argsort(np.abs(gap[known]), kind="stable")
        steps = np.array_split(right[known][order], _STEPS)
        curves[name] = [
            (100 * (k + 0.5) / _STEPS, 100 * float(step.mean())) for k, step in enumerate(steps)
        ]
    if not curves:
        return None
    return plot_curves(
        curves,
        across="pairs by the difference of their scores, percentile",
        up="% agree with people",
        lines={"chance": 50.0},
    )


def _valued(dataset: Dataset, scores: Sequence[Any]) -> list[tuple[str, str, Any, Any]]:
    """Name, unit, score of every image shown, and whether it was put first."""
    import pyarrow.compute as pc

    choices = dataset.choices
    lengths = list_lengths(choices.column("images"))
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy()
    best = ranks == np.repeat(np.minimum.reduceat(ranks, starts), lengths)
    found = []
    for table in scores:
        for name in table.column("scorer").unique().to_pylist():
            own = table.filter(pc.equal(table.column("scorer"), name))
            values = values_of_choices(choices, own)
            kept = np.isfinite(values)
            if kept.all():
                found.append((name, str(own.column("unit")[0]), values, best))
    return found


def _question(question: Any, paths: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    top = max(question.scores)
    most = max(question.votes)
    cells = [
        {
            "image": image,
            "uri": _thumbnail(paths.get(image), folder),
            "votes": f"{round(votes, 1):g} of {question.people}",
            "score": f"{score:.4g}",
            "people": votes == most,
            "scorer": score == top,
        }
        for image, votes, score in zip(
            question.images, question.votes, question.scores, strict=True
        )
    ]
    return {"prompt": question.prompt, "gap": f"{question.gap:.1f}", "cells": cells}


def _thumbnail(row: Any, folder: Path) -> str | None:
    """A small JPEG inside the page; None where the file is not there or does not open."""
    if row is None:
        return None
    try:
        picture = open_image(image_path(row, folder))
    except ImageError:
        return None
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

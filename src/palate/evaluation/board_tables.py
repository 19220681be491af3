"""A board as tables: for the terminal, as Markdown, for its page and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from palate.evaluation.board import Board, BoardRow, Versus
from palate.evaluation.ceilings import COUNTED, HumanCeiling
from palate.evaluation.opinions import OpinionRow
from palate.evaluation.published import Published
from palate.evaluation.retrieval import ANOTHER_SET, FIRST, RetrievalRow
from palate.stats.numbers import finite

NONE: Final = "none"
"""What stands for a number that is not there."""

_PLACE: Final = ("data", "dimension")
_COLUMNS: Final = (
    *("data", "benchmark", "dimension", "kind", "scorer", "fingerprint", "protocol", "measure"),
    *("main", "value", "low", "high", "fair", "chance", "always_first", "always_last"),
    *("published", "difference", "choices", "counted", "note"),
)


@dataclass(frozen=True)
class BoardTable:
    """Text cells under a header, a title above, and notes below; `numeric` columns are set to the right.

    The first two columns of a board's tables are the data set and the dimension.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """The table as Markdown."""
        marks = ["---:" if place in self.numeric else "---" for place in range(len(self.header))]
        lines = [" | ".join(row) for row in (self.header, tuple(marks), *self.rows)]
        text = "\n".join(f"| {line} |" for line in lines) + "\n"
        return text + "".join(f"\n{note}\n" for note in self.notes)


def board_tables(board: Board) -> list[BoardTable]:
    """Every table of a board that has rows, the leaderboard first."""
    found = [
        accuracy_table(board.rows),
        ceiling_table(board.ceilings),
        retrieval_table(board.retrieval),
        opinion_table(board.opinions),
        versus_table(board.versus),
    ]
    return [table for table in found if table.rows]


def board_markdown(board: Board) -> str:
    """The tables of a board as Markdown, each under its title."""
    return "\n".join(f"## {table.title}\n\n{table.to_markdown()}" for table in board_tables(board))


def accuracy_table(rows: Iterable[BoardRow]) -> BoardTable:
    """The leaderboard: each scorer under each protocol, beside what costs nothing and what was printed."""
    header = ("scorer", "protocol", "%", "interval", "chance", "first", "last", "choices")
    cells = []
    for row in rows:
        result, its = row.result, row.result.accuracy.estimate
        baselines = (result.chance, result.always_first, result.always_last)
        cells.append(
            (
                *(row.data, row.dimension, row.scorer, result.protocol.name),
                *(_share(result.value, 2), _between(its.low, its.high)),
                *(_share(one) for one in baselines),
                f"{result.choices:,}",
                "" if row.published is None else printed_with_grade(row.published),
                "" if row.difference is None else f"{100 * row.difference:+.2f}",
            )
        )
    return BoardTable(
        "Accuracy",
        (*_PLACE, *header, "published", "difference"),
        tuple(cells),
        numeric=(4, 6, 7, 8, 9),
        notes=("first and last always pick the image at that place.",) if cells else (),
    )


def ceiling_table(ceilings: Iterable[HumanCeiling]) -> BoardTable:
    """What people reach, or why that is not known, and what was printed for people."""
    header = (*_PLACE, "agreement on", "ceiling", "%", "interval", "answers")
    cells, notes = [], []
    for one in ceilings:
        place = (one.data, one.dimension, COUNTED[one.counts])
        if one.ceilings is None:
            cells.append((*place, f"{NONE}: {one.reason}", NONE, "", ""))
        cells += [
            (*place, name, _share(value), _between(low, high), f"{count:,}")
            for name, value, low, high, count in one.rows()
        ]
        cells += [
            (*place, f"{own.name}, published, {own.protocol}", printed_with_grade(own), "", "")
            for own in one.published
        ]
        notes += [f"{one.data}, {one.dimension}, {place[2]}: {note}." for note in one.notes]
    return BoardTable("Human ceilings", header, tuple(cells), numeric=(4, 6), notes=tuple(notes))


def retrieval_table(rows: Iterable[RetrievalRow]) -> BoardTable:
    """Recall@k and Filter@k side by side: a row per scorer, then chance, counts and printed values."""
    measures = tuple(f"{measure}@{k}" for measure in ("recall", "filter") for k in FIRST)
    places: dict[tuple[str, str], dict[tuple[str, str], dict[str, RetrievalRow]]] = {}
    for row in rows:
        scorers = places.setdefault((row.data, row.dimension), {})
        scorers.setdefault((row.scorer, row.fingerprint), {})[row.measure] = row
    cells: list[tuple[str, ...]] = []
    notes: dict[str, None] = {}
    for place, scorers in places.items():
        told = [line for (name, _), own in scorers.items() for line in _retrieved(name, own)]
        # what several scorers share, such as chance on the same choices, is said once
        told = sorted(dict.fromkeys(told), key=lambda line: line[0])
        for _, name, line in told:
            values = dict(line)
            cells.append((*place, name, *(values.get(one, NONE) for one in measures)))
        printed = [row.published for own in scorers.values() for row in own.values()]
        notes |= dict.fromkeys(source_note(one) for one in printed if one is not None)
    title = "Recall@k and Filter@k, %"
    if any(NONE in line for line in cells):
        notes = {"none: no choice has more than k images, or nothing was printed.": None} | notes
    return BoardTable(title, (*_PLACE, "scorer", *measures), tuple(cells), notes=tuple(notes))


_Line = tuple[int, str, tuple[tuple[str, str], ...]]


def _retrieved(name: str, own: dict[str, RetrievalRow]) -> Iterator[_Line]:
    """Lines of one scorer, in the order in which they stand: measured, chance, counted, printed."""
    estimates = {measure: row.result.estimate for measure, row in own.items()}
    measured = {
        measure: f"{_share(its.value)} ({_between(its.low, its.high)})"
        for measure, its in estimates.items()
    }
    yield 0, name, tuple(measured.items())
    chance = {measure: _share(row.result.chance) for measure, row in own.items()}
    yield 1, "chance", tuple(chance.items())
    counts = {measure: f"{its.count:,}" for measure, its in estimates.items()}
    yield 2, "choices", tuple(counts.items())
    printed = {
        measure: printed_with_grade(row.published) for measure, row in own.items() if row.published
    }
    if printed:
        yield 3, f"{name}, published, {ANOTHER_SET}", tuple(printed.items())


def opinion_table(rows: Iterable[OpinionRow]) -> BoardTable:
    """Correlations with mean opinions, over all images and within each prompt."""
    header = ("scorer", "correlation", "all images", "interval", "within prompt", "interval")
    cells = []
    notes: dict[str, None] = {}
    for row in rows:
        whole, within = row.overall, None if row.within is None else row.within.estimate
        cells.append(
            (
                *(row.data, row.dimension, row.scorer, whole.measure),
                *(_number(whole.value), _bounds(whole.low, whole.high)),
                NONE if within is None else _number(within.value),
                "" if within is None else _bounds(within.low, within.high),
                f"{whole.count:,}",
                "" if row.published is None else printed_with_grade(row.published),
                "" if row.difference is None else f"{row.difference:+.3f}",
            )
        )
        if row.published is not None:
            notes[source_note(row.published)] = None
    return BoardTable(
        "Correlation with mean opinions",
        (*_PLACE, *header, "images", "published", "difference"),
        tuple(cells),
        numeric=(4, 6, 8),
        notes=tuple(notes),
    )


def versus_table(versus: Iterable[Versus]) -> BoardTable:
    """Which scorers can be told apart on the choices that all of them scored."""
    cells = [(one.data, one.dimension, f"{one.a} − {one.b}", *_verdict(one)) for one in versus]
    header = (*_PLACE, "scorers", "difference, % points", "verdict")
    return BoardTable("Are two scorers different?", header, tuple(cells))


def _verdict(one: Versus) -> tuple[str, str]:
    its = one.comparison.difference
    gap = f"{100 * its.value:+.2f} ({100 * its.low:+.2f} to {100 * its.high:+.2f})"
    better = {"a": f"{one.a} is better", "b": f"{one.b} is better"}
    return gap, better.get(one.comparison.better, "not separable")


def _share(value: float, digits: int = 1) -> str:
    return NONE if math.isnan(value) else f"{100 * value:.{digits}f}"


def _between(low: float, high: float) -> str:
    return NONE if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"


def _number(value: float) -> str:
    return NONE if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # no -0.000


def _bounds(low: float, high: float) -> str:
    return NONE if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def printed_with_grade(one: Published) -> str:
    """A printed value with its grade, marked where its source does not say how it was counted."""
    return f"{one.printed()} ({one.grade}{', unstated' if one.protocol == 'unstated' else ''})"


def source_note(one: Published) -> str:
    """Where a printed value is from, in a sentence."""
    note = f" ({one.note})" if one.note else ""
    return f"Published for {one.name}: {one.source}{note}."


# ------------------------------------------------------------------------------------- CSV


def board_csv(board: Board) -> str:
    """Everything that was measured as CSV, one number a row, with all digits; shares are from 0 to 1.

    `kind` is accuracy, ceiling, retrieval or correlation. What is not known is empty, and `note` says why.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in board.rows:
        writer.writerow(_accuracy_line(row))
    for ceiling in board.ceilings:
        writer.writerows(_ceiling_lines(ceiling))
    for found in board.retrieval:
        writer.writerow(_retrieval_line(found))
    for opinion in board.opinions:
        writer.writerows(_opinion_lines(opinion))
    return buffer.getvalue()


def _where(kind: str, row: Any, **more: Any) -> dict[str, Any]:
    names = ("data", "benchmark", "dimension", "scorer", "fingerprint")
    return {"kind": kind, **{name: getattr(row, name, "") for name in names}, **more}


def _estimate(value: float, low: float, high: float, count: int) -> dict[str, Any]:
    numbers = {"value": finite(value), "low": finite(low), "high": finite(high)}
    return {**numbers, "counted": count}


def _accuracy_line(row: BoardRow) -> dict[str, Any]:
    result, its = row.result, row.result.accuracy.estimate
    return _where(
        "accuracy",
        row,
        protocol=result.protocol.name,
        measure=result.accuracy.measure,
        main=row.main,
        fair=result.fair,
        chance=result.chance,
        always_first=result.always_first,
        always_last=result.always_last,
        published=None if row.published is None else row.published.share,
        difference=row.difference,
        choices=result.choices,
        **_estimate(result.value, its.low, its.high, its.count),
    )


def _ceiling_lines(one: HumanCeiling) -> Iterator[dict[str, Any]]:
    told = {"protocol": " ".join(one.protocols), "note": "; ".join(one.notes)}
    of = COUNTED[one.counts]
    if one.ceilings is None:
        yield _where("ceiling", one, **told | {"measure": of, "note": one.reason})
    for name, value, low, high, count in one.rows():
        numbers = _estimate(value, low, high, count)
        yield _where("ceiling", one, measure=f"{of}, {name}", **told, **numbers)
    for own in one.published:
        printed = {"protocol": own.protocol, "published": own.share, "note": own.source}
        yield _where("ceiling", one, measure=own.name, **printed)


def _retrieval_line(row: RetrievalRow) -> dict[str, Any]:
    its, printed = row.result.estimate, row.published
    return _where(
        "retrieval",
        row,
        measure=row.measure,
        chance=row.result.chance,
        published=None if printed is None else printed.share,
        note="" if printed is None else f"published: {ANOTHER_SET}",
        choices=its.count + row.result.left_out,
        **_estimate(its.value, its.low, its.high, its.count),
    )


def _opinion_lines(row: OpinionRow) -> Iterator[dict[str, Any]]:
    whole, printed = row.overall, row.published
    unstated = printed is not None and printed.protocol == "unstated"
    yield _where(
        "correlation",
        row,
        measure=f"{row.measure}, all images",
        published=None if printed is None else printed.value,
        difference=finite(row.difference),
        note="published: how it was counted is not stated" if unstated else "",
        **_estimate(whole.value, whole.low, whole.high, whole.count),
    )
    measure = f"{row.measure}, within prompt"
    if row.within is None:
        yield _where("correlation", row, measure=measure, note="no prompt has an order in both")
        return
    its = row.within.estimate
    told = _estimate(its.value, its.low, its.high, its.count)
    yield _where("correlation", row, measure=measure, **told)

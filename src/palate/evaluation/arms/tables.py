"""What the arms of an adapter found as tables: for the terminal, as Markdown, for the page and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from palate.evaluation.arms.plan import ORIGINAL
from palate.evaluation.board_tables import BoardTable

Found: TypeAlias = Mapping[str, Any]
"""What `compare_arms` gives and ``arms.json`` holds."""

NONE: Final = "–"
_COLUMNS: Final = (
    *("arm", "against", "strength", "negative", "measure", "kind", "unit", "mean", "mean_against"),
    *("difference", "low", "high", "win_rate", "win_low", "win_high", "prompts"),
)
_KINDS: Final = {"labelling": "labelled", "watching": "watches", "diversity": "", "statistic": ""}


def arms_tables(found: Found) -> list[BoardTable]:
    """Give every table: the arms against the original, the other comparisons, and the sweep."""
    return [table for table in (four_table(found), pair_table(found), sweep_table(found)) if table]


def four_table(found: Found) -> BoardTable:
    """The arms against the original, whose means stand in the first column."""
    others = [name for name in found["four"] if name != ORIGINAL]
    title = "The arms against the original, at the same prompts and seeds"
    return _table(found, title, [(name, ORIGINAL) for name in others], means=ORIGINAL)


def pair_table(found: Found) -> BoardTable | None:
    """What the identifier adds once adapted, and what the adapter adds where both have the identifier."""
    pairs = [(one["arm"], one["against"]) for one in found["effects"]]
    pairs = [pair for pair in pairs if pair[1] != ORIGINAL]
    title = "Arms against each other"
    return _table(found, title, pairs, full=True) if pairs else None


def sweep_table(found: Found) -> BoardTable | None:
    """The arms of rising strength against the original."""
    pairs = [(name, ORIGINAL) for name in found["sweep"]]
    negative = ", identifier as negative" if found["identifier"] else ""
    title = f"How much of the adapter{negative}: difference from the original"
    return _table(found, title, pairs, strengths=True) if pairs else None


def _table(
    found: Found,
    title: str,
    pairs: Sequence[tuple[str, str]],
    *,
    means: str | None = None,
    full: bool = False,
    strengths: bool = False,
) -> BoardTable:
    """Measures down, comparisons across; below a scorer stands how often the first arm wins."""
    arms = {arm["name"]: arm for arm in found["arms"]}
    header = ["measure"] + ([arms[means]["told"]] if means else [])
    for a, b in pairs:
        told = f"{arms[a]['strength']:g}" if strengths else arms[a]["told"]
        header.append(f"{told}, against {arms[b]['told']}" if full else told)
    rows = []
    for measure in found["measures"]:
        effects = [effect_of(found, *pair, measure["name"]) for pair in pairs]
        first = [f"{arms[means]['means'][measure['name']]:.4g}"] if means else []
        name = " ".join(filter(None, [measure["name"], _role(measure)]))
        rows.append((name, *first, *(difference_text(one) for one in effects)))
        if measure["scorer"] is not None:
            rows.append(("  wins", *[""] * len(first), *(wins_text(one) for one in effects)))
    level = f"{100 * found['asked']['level']:g} %"
    note = f"{level} intervals over {found['prompts']:,} prompts; * the interval leaves out 0"
    return BoardTable(title, tuple(header), tuple(rows), notes=(note,))


def _role(measure: Mapping[str, Any]) -> str:
    word = _KINDS[measure["kind"]]
    return f"({word})" if word else ""


def effect_of(found: Found, arm: str, against: str, measure: str) -> dict[str, Any] | None:
    """Give one effect; None where an arm is compared with itself."""
    for one in found["effects"]:
        if (one["arm"], one["against"]) == (arm, against):
            effect: dict[str, Any] = one["measures"][measure]
            return effect
    return None


def difference_text(effect: Mapping[str, Any] | None) -> str:
    """Write a difference with its interval, and a star where that leaves out 0."""
    if effect is None:
        return NONE
    its = effect["a_minus_b"]
    star = " *" if effect["direction"] else ""
    return f"{interval_text(its['value'], its['low'], its['high'])}{star}"


def interval_text(value: float, low: float | None, high: float | None) -> str:
    """Write a signed number with its interval, to two digits of the interval's width.

    >>> interval_text(0.00605, -0.0228, 0.0154)
    '+0.006 (-0.023 to +0.015)'
    """
    if low is None or high is None:
        return f"{value:+.3g}"
    digits = "3g"
    if high > low:
        digits = f"{min(9, max(0, 1 - math.floor(math.log10(high - low))))}f"
    return f"{value:+.{digits}} ({low:+.{digits}} to {high:+.{digits}})"


def wins_text(effect: Mapping[str, Any] | None) -> str:
    """Write a win rate with its interval, in per cent."""
    if effect is None or effect["win_rate"] is None:
        return NONE
    rate = effect["win_rate"]["rate"]
    if rate["low"] is None:
        return f"{100 * rate['value']:.1f} %"
    return f"{100 * rate['value']:.1f} % ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})"


def arms_markdown(found: Found) -> str:
    """The verdict, the warnings and every table as Markdown."""
    lines = [f"# {found['adapter']['name']}", "", found["verdict"]["sentence"], ""]
    lines += [f"- **warning**: {one['sentence']}" for one in found["warnings"]]
    lines += [f"- caution: {one}" for one in found["cautions"]]
    tables = [f"## {table.title}\n\n{table.to_markdown()}" for table in arms_tables(found)]
    return "\n".join([*lines, "", *tables])


def arms_csv(found: Found) -> str:
    """One row for each comparison and measure."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_rows(found))
    return text.getvalue()


def _csv_rows(found: Found) -> Iterator[dict[str, Any]]:
    arms = {arm["name"]: arm for arm in found["arms"]}
    measures = {one["name"]: one for one in found["measures"]}
    for one in found["effects"]:
        for name, effect in one["measures"].items():
            rate = (effect["win_rate"] or {}).get("rate", {})
            its, arm = effect["a_minus_b"], arms[one["arm"]]
            yield {
                **{key: one[key] for key in ("arm", "against")},
                **{key: arm[key] for key in ("strength", "negative")},
                "measure": name,
                **{key: measures[name][key] for key in ("kind", "unit")},
                "mean": effect["mean_a"],
                "mean_against": effect["mean_b"],
                "difference": its["value"],
                **{key: its[key] for key in ("low", "high")},
                "win_rate": rate.get("value"),
                **{f"win_{key}": rate.get(key) for key in ("low", "high")},
                "prompts": found["prompts"],
            }

"""Put the figures of a full run of the loop into docs/miniature.md.

python docs/write_miniature.py runs/loop/result.json    # keeps a copy in benchmarks/miniature.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "miniature.md"
KEPT = ROOT / "benchmarks" / "miniature.json"
START, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def interval(value: dict[str, float], digits: int = 3, *, sign: bool = False) -> str:
    """An estimate with its 95 % interval."""
    form = f"{{:{'+' if sign else ''}.{digits}f}}"
    low, high = form.format(value["low"]), form.format(value["high"])
    return f"{form.format(value['estimate'])} [{low}, {high}]"


def percent(value: dict[str, float] | None) -> str:
    """A share with its 95 % interval."""
    if value is None:
        return "–"
    low, high = 100 * value["low"], 100 * value["high"]
    return f"{100 * value['estimate']:.1f} % [{low:.1f}, {high:.1f}]"


def figures(found: dict[str, Any]) -> str:
    """The tables of a run, as Markdown."""
    settings = found["settings"]
    lines = [
        (
            f"{settings['seeds']} training seeds, {settings['evaluation_prompts']:,} evaluation prompts,"
            f" {found['choices']['count']:,} choices of {found['choices']['people']} people;"
            " 95 % intervals over prompts."
        ),
        "",
        (
            f"| expected top-1 on {settings['test_prompts']} held-out prompts, images by | the renderer |"
            " the generator |"
        ),
        "| --- | --- | --- |",
    ]
    pair = [found["classifier"][maker] for maker in ("drawn", "generated")]
    cells = {
        "guessing": [f"{facts['guessing']:.3f}" for facts in pair],
        "always the last place": [f"{facts['always_last_place']:.3f}" for facts in pair],
        "the tiny CLIP, zero-shot": [interval(facts["zero_shot"]["accuracy"]) for facts in pair],
        "**the trained classifier**": [interval(facts["trained"]["accuracy"]) for facts in pair],
        "the best that any scorer can reach": [interval(f["best_possible"]) for f in pair],
    }
    lines += [f"| {name} | {' | '.join(of)} |" for name, of in cells.items()]
    lines += [
        "",
        "| arm | utility | difference from the original | HPS | prompts won in votes | lost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {arm['name']} | {arm['utility']:.3f} | {interval(arm['difference'], sign=True)} |"
        f" {interval(arm['score_difference'], 2, sign=True)} | {percent(arm['won'])} |"
        f" {percent(arm['lost'])} |"
        for arm in found["arms"]
    ]
    lines += [
        "",
        "| seed | classifier | difference, adapted with the negative identifier | won in votes |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['seed']} | {interval(row['accuracy'])} | {interval(row['difference'], sign=True)} |"
        f" {percent(row['won'])} |"
        for row in found["by_seed"]
    ]
    lines += [
        "",
        "| the identifier in the prompt, against none | difference in utility |",
        "| --- | --- |",
    ]
    lines += [
        f"| {maker} | {interval(costs['difference'], sign=True)} |"
        for maker, costs in found["identifier_costs"].items()
    ]
    negative = interval(found["against_original_negative"]["difference"], sign=True)
    lines += [
        f"| adapted against original, both with the negative identifier | {negative} |",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write the page; with a file named, keep that run's findings first."""
    if len(sys.argv) > 1:
        KEPT.write_text(Path(sys.argv[1]).read_text(encoding="utf-8"), encoding="utf-8")
    found = json.loads(KEPT.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    PAGE.write_text(before + START + figures(found) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()

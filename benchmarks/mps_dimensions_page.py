"""Put the kept figures of mps_dimensions.py into docs/mps-training.md.

python benchmarks/mps_dimensions_page.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from readers_page import filled, kept

PAGE = Path(__file__).parent.parent / "docs" / "mps-training.md"
Facts = dict[str, Any]


def mps_page(page: str, facts: Facts) -> str:
    """Give docs/mps-training.md with its figures."""
    return filled(page, {"dimensions": lines(facts), "masks": mask_lines(facts)})


def lines(facts: Facts) -> list[str]:
    """Accuracy of every scorer on every dimension, then the differences."""
    found = facts["dimensions"]
    rows = {
        "guessing": dict.fromkeys(found, "0.500"),
        "the tiny CLIP before": _cells(found, "before"),
        "CLIP trained on overall": _cells(found, "clip_overall"),
        "CLIP trained on this dimension": _cells(found, "clip_same"),
        "**the MPS, this dimension's condition**": _cells(found, "own"),
        "the MPS, the other three conditions": _cells(found, "wrong"),
        "an MPS of plain words, this dimension's condition": _cells(found, "plain_own"),
        "the best that any scorer can reach": _cells(found, "best"),
    }
    over = {
        "its own condition over the other three": "own_over_wrong",
        "the same with plain words": "plain_own_over_wrong",
        "the MPS over the CLIP trained on overall": "own_over_clip_overall",
        "the MPS over the CLIP trained on this dimension": "own_over_clip_same",
    }
    return [
        f"{facts['date']}, {facts['seeds']} seeds of the MPS, {facts['plain_seeds']} of that of plain words and {facts['clip_seeds']} of each CLIP,",
        f"{facts['choices']:,} choices on {facts['prompts']:,} prompts,",
        f"{facts['held_pairs']:,} held-out pairs of {facts['held_prompts']:,} evaluation prompts; 95 % intervals over prompts.",
        f"{facts['steps']} steps of the MPS; {facts['processor_seconds'] / 60:.0f} minutes of one core in all.",
        "",
        _row(["expected accuracy on", *found]),
        _row(["---"] * (1 + len(found))),
        *(_row([name, *cells.values()]) for name, cells in rows.items()),
        "",
        _row(["difference", *found]),
        _row(["---"] * (1 + len(found))),
        *(
            _row([label, *(_signed(one[name]) for one in found.values())])
            for label, name in over.items()
        ),
        "",
        *condition_lines(found),
    ]


def condition_lines(found: Facts) -> list[str]:
    """Every dimension (row) under every condition (column)."""
    return [
        _row(["the MPS on, under the condition of", *found]),
        _row(["---"] * (1 + len(found))),
        *(
            _row([name, *(f"{one['by_condition'][condition]['value']:.3f}" for condition in found)])
            for name, one in found.items()
        ),
    ]


def mask_lines(facts: Facts) -> list[str]:
    """How often the kept tokens say the condition, and how often they are those of overall's."""
    names = list(facts["dimensions"])
    head = [_row(["---"] * (1 + len(names)))]

    def rows(what: str) -> list[str]:
        return [
            _row([label, *(f"{100 * told[what][name]:.0f} %" for name in names)])
            for label, told in facts["masks"].items()
        ]

    return [
        _row(["the kept tokens name the condition", *names]),
        *head,
        *rows("named"),
        "",
        _row(["the kept tokens are those of overall", *names]),
        *head,
        *rows("same"),
    ]


def _cells(found: Facts, name: str) -> dict[str, str]:
    return {
        dimension: f"{one[name]['value']:.3f} [{one[name]['low']:.3f}, {one[name]['high']:.3f}]"
        for dimension, one in found.items()
    }


def _signed(one: Facts) -> str:
    return f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the page."""
    PAGE.write_text(mps_page(PAGE.read_text("utf-8"), kept("mps-dimensions")), "utf-8")


if __name__ == "__main__":
    main()

"""Put the kept figures of objectives.py, avt.py and training.py into docs/training.md.

python benchmarks/training_page.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from readers_page import filled, kept

PAGE = Path(__file__).parent.parent / "docs" / "training.md"
Facts = Mapping[str, Any]


def training_page(page: str, objectives: Facts, avt: Facts, training: Facts) -> str:
    """Give docs/training.md with its figures."""
    lines = {
        "objectives": taste_lines(objectives),
        "avt": avt_lines(avt),
        "cost": cost_lines(training),
    }
    return filled(page, lines)


def cost_lines(facts: Facts) -> list[str]:
    """Seconds, images a second and memory of each workload, and how much faster than the plain loop it is."""
    rows = []
    for name, found in facts["workloads"].items():
        how = f"{name}, {found['settings']['batch']} × {found['settings']['images']} images"
        for contender, says in (("plain", "plain loop"), ("palate", "Palate")):
            one = found[contender]
            ratio = (
                ""
                if contender == "plain"
                else f"{found['times']['later_step_seconds']:.2f} / {found['times']['run_seconds']:.2f}"
            )
            rows.append(
                f"| {how} | {says} | {one['first_epoch_seconds']:.0f} s | {one['later_step_seconds']:.1f} s "
                f"| {one['images_per_second_later']:.2f} | {one['peak_bytes'] / 1e9:.1f} GB | {ratio} |"
            )
    return [
        f"{facts['date']}, {facts['machine']['processor']}, {facts['machine']['cores']} cores, {facts['model']} with random",
        f"weights, float32 (the processor reaches {facts['float32_rate'] / 1e9:.0f} GFLOP/s in it), `{facts['command']}`.",
        "",
        "|  |  | first epoch, with opening | a later step | images a second later | peak memory | times as fast: a later step / the whole run |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ]


def taste_lines(facts: Facts) -> list[str]:
    """Accuracy of each objective on held-out pairs of the simulated world."""
    rows = {
        "guessing": "0.500",
        "the tiny CLIP before": _interval(facts["before"]),
        **{
            f"{name}, {one['answers']:,} answers": _interval(one)
            for name, one in facts["ways"].items()
        },
        "the best that any scorer can reach": _interval(facts["best"]),
    }
    return [
        f"{facts['date']}, {facts['steps']} steps each; {facts['prompts']:,} prompts with eight pictures, measured on all pairs",
        f"of four pictures of {facts['held_prompts']:,} other prompts; 95 % intervals over prompts.",
        "",
        "| taught by | expected accuracy |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]


def avt_lines(facts: Facts) -> list[str]:
    """Accuracy on the ratings of the AVT study, each prompt held out once."""
    ways = list(next(iter(facts["dimensions"].values()))["ways"])
    rows = [["guessing", *["50.0"] * len(facts["dimensions"])]]
    rows += [
        [way, *(_share(found["ways"][way]["pairs"]) for found in facts["dimensions"].values())]
        for way in ways
    ]
    return [
        f"{facts['date']}, base: {facts['base']}; % of decided pairs, with 95 % intervals over prompts and people.",
        "",
        f"|  | {' | '.join(facts['dimensions'])} |",
        f"| --- |{' --- |' * len(facts['dimensions'])}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _interval(one: Facts) -> str:
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _share(one: Facts) -> str:
    return f"{100 * one['value']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})"


def main() -> None:
    """Write the page."""
    text = training_page(PAGE.read_text("utf-8"), kept("objectives"), kept("avt"), kept("training"))
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()

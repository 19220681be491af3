"""Put the kept figures of methods.py and adaptation.py into docs/adaptation.md.

python benchmarks/adaptation_page.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from readers_page import filled, kept

PAGE = Path(__file__).parent.parent / "docs" / "adaptation.md"
RATES = (100, 300)  # operations a second that a GPU may sustain, in 10**12; not measured here
IMAGES, DISTINCT = 40 * 10_000, 258_911  # of HPS's run
Facts = Mapping[str, Any]


def adaptation_page(page: str, methods: Facts, cost: Facts) -> str:
    """Give docs/adaptation.md with its figures."""
    return filled(
        page,
        {
            "methods": method_lines(methods),
            "cost": cost_lines(cost),
            "plan": plan_lines(cost),
        },
    )


def method_lines(facts: Facts) -> list[str]:
    """Gain of each method over the original, in ground truth and in both scorers."""
    rows = []
    for one in facts["methods"]:
        how = facts["settings"][one["method"]]
        seeds = ", ".join(f"{value:+.2f}" for value in one["utility_by_seed"])
        rows.append(
            f"| `{one['method']}` | {how['steps']} × {how['batch']} | {_gain(one['utility'])} | {seeds} "
            f"| {_share(one['better'])} | {_gain(one['scorer'])} | {_gain(one['watch'])} | {one['adapt_seconds']:.0f} s |"
        )
    labels = ", ".join(f"{count:,} {role}" for role, count in facts["labels"].items())
    return [
        f"{facts['date']}, `{facts['command']}`: {labels}; {facts['prompts']:,} other prompts, one image each from the",
        f"noise of the original (utility {facts['original']['utility']:.2f}; a clean picture has about 3.2); mean of {facts['seeds']} seeds with 95 %",
        "intervals over prompts.",
        "",
        "| method | steps × batch | utility, in ground truth | by seed | images that became better | labelling scorer | watching scorer | training |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ]


def cost_lines(facts: Facts) -> list[str]:
    """Seconds of a step and memory, beside the plain loop, and what a run of the paper takes at that rate."""
    names = {
        "plain": "loop of diffusers' script",
        "palate-cold": "Palate, empty cache",
        "palate-warm": "Palate, latents found",
    }
    how, found = facts["settings"], facts["contenders"]
    rows = []
    for name, says in names.items():
        one, times = found[name], facts["times"].get(name)
        ratio = f"{times['step_seconds']:.2f} / {times['run_seconds']:.2f}" if times else ""
        rows.append(
            f"| {says} | {one['step_seconds']:.2f} s | {one['run_seconds']:.0f} s "
            f"| {one['peak_bytes'] / 1e9:.1f} GB | {ratio} |"
        )
    return [
        f"{facts['date']}, {facts['machine']['processor']}, {facts['machine']['cores']} cores, {facts['model']},",
        f"{how['size']} pixels, batch {how['batch']}, {how['steps']} steps, {how['precision']}, `{facts['command']}`.",
        "",
        f"|  | a step | {how['steps']} steps with all that precedes them | peak memory | times as fast: a step / the run |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]


def plan_lines(facts: Facts) -> list[str]:
    """What the paper's run takes: operations counted, at the rate measured here and at rates that GPUs may have."""
    how, large = facts["settings"], facts["operations"]["512"]
    step = facts["operations"][str(how["size"])]["step"]
    here = how["batch"] * step / facts["contenders"]["palate-warm"]["step_seconds"] / 1e12
    cold, warm = (large["step"] * IMAGES + large["encoding"] * some for some in (DISTINCT, 0))
    rows = [
        f"| {says} | {cold / rate / 3.6e15:,.1f} h | {warm / rate / 3.6e15:,.1f} h |"
        for says, rate in [
            (f"{here:.2f} TFLOP/s, as measured here", here),
            *((f"{rate} TFLOP/s, if a GPU sustains it", float(rate)) for rate in RATES),
        ]
    ]
    return [
        f"A step of the UNet with its LoRA takes {large['step'] / 1e12:.2f} TFLOP for a picture of 512 pixels, forward and backward,",
        f"and encoding it {large['encoding'] / 1e12:.2f} TFLOP (counted). HPS's run shows {IMAGES:,} pictures, {DISTINCT:,} different ones:",
        f"{cold / 1e18:.2f} million TFLOP with an empty cache, {warm / 1e18:.2f} million with the latents found.",
        "",
        "| rate | empty cache | latents found |",
        "| --- | --- | --- |",
        *rows,
    ]


def _gain(one: Facts) -> str:
    return f"{one['estimate']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"


def _share(one: Facts) -> str:
    return f"{100 * one['estimate']:.0f} % [{100 * one['low']:.0f}, {100 * one['high']:.0f}]"


def main() -> None:
    """Write the page."""
    text = adaptation_page(PAGE.read_text("utf-8"), kept("methods"), kept("adaptation"))
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()

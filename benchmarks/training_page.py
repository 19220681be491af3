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
# Tokens, width and blocks of the towers of ViT-L/14, and the tokens of the benchmark's prompts.
IMAGE, TEXT, ASKED = (257, 1024, 24), (77, 768, 12), 20


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
        "",
        *floor_lines(facts),
    ]


def floor_lines(facts: Facts) -> list[str]:
    """What the products of a step of HPS v1's recipe take alone, at the best rate that was measured."""
    found, rate = facts["workloads"]["hps-v1"], facts["float32_rate"]
    least = {name: count / rate for name, count in operations(found["settings"]).items()}
    step = found["plain"]["later_step_seconds"]
    return [
        f"At {rate / 1e9:.0f} GFLOP/s the products of a step of the first recipe take {least['plain']:.1f} s in the plain loop (which takes",
        f"{step:.1f} s), {least['first']:.1f} s in Palate where every image is new, and {least['later']:.1f} s above kept states. So one epoch in",
        f"float32 could be at most {step / least['first']:.2f} times as fast as the plain loop here, and later steps {step / least['later']:.2f} times.",
    ]


def operations(how: Facts) -> dict[str, float]:
    """Count the operations of a step's products: in the plain loop, in Palate's first epoch, and later in it.

    A trained block costs three times its forward pass. `image_layers` counts the head as one, as open_clip does. Palate's
    last image block runs for the class token alone, and its text tower stops at the end token.
    """
    prompts, images = how["batch"], how["batch"] * how["images"]
    image, text, asked = _block(*IMAGE[:2]), _block(*TEXT[:2]), _block(ASKED, TEXT[1])
    learnt, read = how["image_layers"] - 1, how["text_layers"]
    token = _block(*IMAGE[:2], asking=1)
    later = 3 * (images * ((learnt - 1) * image + token) + prompts * read * asked)
    below = images * (IMAGE[2] - learnt) * image + prompts * (TEXT[2] - read) * asked
    plain = images * (IMAGE[2] + 2 * learnt) * image + prompts * (TEXT[2] + 2 * read) * text
    return {"plain": plain, "first": below + later, "later": later}


def _block(tokens: int, width: int, asking: int | None = None) -> float:
    """Operations of a block's products forward, for as many of its tokens as ask."""
    rows = tokens if asking is None else asking
    return 4 * tokens * width**2 + 20 * rows * width**2 + 4 * rows * tokens * width


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

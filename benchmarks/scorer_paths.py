"""Measure how far each scorer is from the official numbers, and how far other paths in circulation are.

It compares on the official cases in tests/parity/fixtures; the other paths are made in
scorer_variants.py. The networks of the cases are tiny and random, so the differences show which choices
matter, not how large they are for the published weights.

python benchmarks/scorer_paths.py                                    # print the tables
python benchmarks/scorer_paths.py --json benchmarks/scorer-paths-DATE.json
python benchmarks/scorer_paths.py --write docs/scoring.md            # with the newest of these files
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scorer_variants import VARIANTS, Floats, mps_with

from palate.scoring.catalog import load

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "parity"))
from official import FOLDERS, HERE, OFFICIAL, Official, official_case, picture  # noqa: E402

START, END = "<!-- figures{} -->\n", "<!-- end of figures -->\n"
LIBRARIES = ("torch", "transformers", "tokenizers", "pillow", "numpy", "ftfy")


def cases_of(name: str) -> list[Official]:
    """Give the official cases of a scorer; those of MPS stand apart by condition and threshold.

    The cosines of HPS v1 are those of its CLIP, and so of ``clip-score``.
    """
    if name == "clip-score":
        base = official_case("hps-v1")
        scorer, numbers = load(name, **OFFICIAL["hps-v1"][0]), base.numbers / 100
        return [
            replace(base, name=name, scorer=scorer, numbers=numbers, promise=base.promise / 100)
        ]
    first = official_case(name)
    if name != "mps":
        return [first]
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for case in json.loads((HERE / FOLDERS[name] / "cases.json").read_text("utf-8")):
        groups.setdefault((case["condition"], case["mask_threshold"]), []).append(case)
    return [first] + [
        Official(
            name,
            mps_with(first, first.scorer.mps, threshold).on(condition),
            [picture(case["image"]) for case in cases],
            [case["prompt"] for case in cases],
            np.array([case["score"] for case in cases]),
            first.promise,
        )
        for (condition, threshold), cases in groups.items()
        if (condition, threshold) != (first.scorer.condition, first.scorer.masking.threshold)
    ]


def pairs(prompts: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give all pairs of images of the same prompt."""
    names = np.unique(prompts, return_inverse=True)[1]
    first, second = np.triu_indices(len(prompts), 1)
    same = names[first] == names[second]
    return first[same], second[same]


def away(official: Official, found: Floats) -> dict[str, Any]:
    """Say how far scores are from the official ones, and how many pairs of a prompt change their order.

    A pair that is tied on one side only counts as changed.
    """
    first, second = pairs(official.prompts)
    orders = [np.sign(values[first] - values[second]) for values in (official.numbers, found)]
    difference = np.abs(found - official.numbers)
    return {
        "largest": float(np.nanmax(difference)),
        "mean": float(np.nanmean(difference)),
        "order": float((orders[0] != orders[1]).mean()),
        "without": int(np.isnan(difference).sum()),
    }


def parity(official: Official) -> tuple[float, float]:
    """Give the largest difference to the official numbers, alone and in one shuffled batch."""
    scorer, count = official.scorer, len(official.images)
    alone = [
        scorer.judge([image], [prompt]).values[0]
        for image, prompt in zip(official.images, official.prompts, strict=True)
    ]
    order = np.random.default_rng(0).permutation(count)
    scorer.batch = count
    batch = scorer.judge(
        [official.images[i] for i in order], [official.prompts[i] for i in order]
    ).values
    largest = [np.abs(alone - official.numbers).max()]
    largest += [np.abs(batch - official.numbers[order]).max()]
    return float(largest[0]), float(largest[1])


def spread(official: Official) -> float:
    """Give the deviation of the official numbers among a prompt's images, averaged over prompts."""
    prompts = np.array(official.prompts)
    return float(np.mean([official.numbers[prompts == one].std() for one in set(official.prompts)]))


def measure(name: str) -> dict[str, Any]:
    """Measure one scorer."""
    groups = cases_of(name)
    found = [parity(official) for official in groups]
    return {
        "cases": sum(len(official.images) for official in groups),
        "unit": groups[0].scorer.unit,
        "spread": spread(groups[0]),
        "promise": groups[0].promise,
        "alone": max(alone for alone, _ in found),
        "batch": max(batch for _, batch in found),
        "variants": [
            {"name": told, **away(groups[0], score(groups[0]))}
            for told, score in VARIANTS[name].items()
        ],
    }


def measure_all() -> dict[str, Any]:
    """Measure every scorer, and say when and on what."""
    cores = torch.get_num_threads()
    machine = platform.machine().replace("_", "-")
    with torch.inference_mode():
        scorers = {name: measure(name) for name in VARIANTS}
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "hardware": f"{cores} cores {machine}, CPU float32",
        "versions": {library: version(library) for library in LIBRARIES},
        "scorers": scorers,
    }


def figure(value: float) -> str:
    """Write a number with two digits."""
    if value == 0:
        return "0"
    return f"{value:.1e}" if value < 1e-3 else f"{value:.2g}" if value < 100 else f"{value:.0f}"


def summary(found: dict[str, Any]) -> str:
    """Write how far every scorer is from the official numbers."""
    lines = [
        "| scorer | cases | unit | alone | in one shuffled batch | promise | spread |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, facts in found["scorers"].items():
        numbers = [figure(facts[key]) for key in ("alone", "batch", "promise", "spread")]
        lines.append(f"| `{name}` | {facts['cases']} | {facts['unit']} | {' | '.join(numbers)} |")
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return "\n".join([*lines, "", f"{found['date']}, {found['hardware']}; {versions}.", ""])


def variants(found: dict[str, Any], name: str) -> str:
    """Write how far the other paths of a scorer are from the official one."""
    facts = found["scorers"][name]
    lines = [
        f"| other path | largest difference [{facts['unit']}] | mean | pairs in another order |",
        "| --- | --- | --- | --- |",
    ]
    for row in facts["variants"]:
        lost = f"; {row['without']} without a score" if row["without"] else ""
        numbers = f"{figure(row['largest'])} | {figure(row['mean'])} | {100 * row['order']:.1f} %"
        lines.append(f"| {row['name']}{lost} | {numbers} |")
    return "\n".join([*lines, ""])


def filled(text: str, found: dict[str, Any]) -> str:
    """Put the tables between the marks of a page: ``figures`` is the summary, ``figures: NAME`` a scorer's."""
    tables = {"": summary(found)} | {f": {name}": variants(found, name) for name in VARIANTS}
    for mark, table in tables.items():
        before, rest = text.split(START.format(mark))
        text = before + START.format(mark) + table + END + rest.split(END, 1)[1]
    return text


def newest() -> dict[str, Any]:
    """Read the newest findings that were kept."""
    path = max((ROOT / "benchmarks").glob("scorer-paths-*.json"))
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def main() -> int:
    """Measure and print, or write a page from what was kept; 1 if a promise on the official numbers is broken."""
    parser = argparse.ArgumentParser(description="How far scorers are from the official numbers.")
    parser.add_argument("--json", type=Path, help="keep what was measured in this file")
    parser.add_argument("--write", type=Path, help="a page to fill; nothing is measured")
    given = parser.parse_args()
    if given.write:
        given.write.write_text(filled(given.write.read_text("utf-8"), newest()), "utf-8")
        return 0
    found = measure_all()
    print(summary(found))
    for name in found["scorers"]:
        print(f"`{name}`\n\n{variants(found, name)}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    scorers = found["scorers"].values()
    return int(any(max(one["alone"], one["batch"]) > one["promise"] for one in scorers))


if __name__ == "__main__":
    sys.exit(main())

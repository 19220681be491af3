"""What `palate arms` says of the demo's adapter, beside the truth of the simulated world.

python benchmarks/arms_miniature.py runs/demo runs/arms-demo    # keeps the figures and writes docs/arms.md
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE, KEPT = ROOT / "docs" / "arms.md", ROOT / "benchmarks" / "arms-miniature.json"
START, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
SECOND = 7
TRUTH = "true utility"


def measure(run: Path, out: Path) -> dict[str, Any]:
    """Compare the arms of a finished demo, and judge their images."""
    from palate.data.tables import load_dataset
    from palate.evaluation.arms.plan import RUN, ArmsSettings
    from palate.evaluation.arms.run import Candidate, compare_arms
    from palate.generation.generate import GenerateSettings
    from palate.miniature.findings import judge_dataset
    from palate.miniature.loop import RECIPE, WEIGHTS, Loop, demo_settings
    from palate.models.clip_files import load_clip
    from palate.scoring.catalog import load
    from palate.settings import read_settings
    from palate.stats.intervals import paired_difference
    from palate.training.settings import TrainSettings
    from palate.training.train import train

    how = read_settings(TrainSettings, RECIPE, {"seed": SECOND}, section="train")
    train(
        load_dataset(run / "split" / "train"),
        load_clip(WEIGHTS / "clip"),
        out / "second-train",
        how,
    )
    judges = [load(run / "train-0"), load("miniature"), load(out / "second-train")]
    found = compare_arms(
        Candidate(run / "adapt-0", WEIGHTS / "generator"),
        Loop(run, demo_settings("demo")).evaluation_prompts,
        out / "arms",
        judges,
        ArmsSettings(strengths=STRENGTHS),
        read_settings(GenerateSettings, RECIPE, {"run": RUN}, section="generate"),
    )
    utility = {}
    for arm in found["arms"]:
        judged = judge_dataset(out / "arms" / "arms" / arm["name"])
        utility[arm["name"]] = judged.by_prompt(judged.utility).mean(axis=1)
    truth = {
        name: paired_difference(own, utility["original"]).to_dict()
        for name, own in utility.items()
        if name != "original"
    }
    return {"measured": datetime.now(UTC).date().isoformat(), "found": found, "truth": truth}


def shown(kept: dict[str, Any]) -> str:
    """The figures of the page: every arm by every scorer and by the truth, and what else changed."""
    from palate.evaluation.arms.tables import effect_of, interval_text

    found = kept["found"]
    told = {arm["name"]: arm["told"] for arm in found["arms"]}
    names = [one["name"] for one in found["measures"] if one["kind"] != "statistic"]
    names += ["saturation", "sharpness"]
    lines = [
        (
            f"{found['prompts']} prompts × {found['images_per_prompt']} images, measured on {kept['measured']}; "
            f"differences from the {told['original']}, {100 * found['asked']['level']:g} % intervals."
        ),
        "",
        f"| arm | {' | '.join([*names, TRUTH])} |",
        f"| --- |{' --- |' * (len(names) + 1)}",
    ]
    for arm in sorted(kept["truth"], key=list(told).index):
        cells = [effect_of(found, arm, "original", name)["a_minus_b"] for name in names]
        cells.append(kept["truth"][arm]["a_minus_b"])
        row = [interval_text(cell["value"], cell["low"], cell["high"]) for cell in cells]
        lines.append(f"| {told[arm]} | {' | '.join(row)} |")
    warned = "".join(f" Warning: {one['sentence']}." for one in found["warnings"])
    return "\n".join([*lines, "", f"It said: {found['verdict']['sentence']}{warned}", ""])


def filled(page: str, kept: dict[str, Any]) -> str:
    """Give the page with the figures."""
    before, _, rest = page.partition(START)
    return f"{before}{START}{shown(kept)}{END}{rest.partition(END)[2]}"


def main() -> None:
    """Measure, keep and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of `palate demo`")
    parser.add_argument("out", type=Path, help="folder for arms and a second scorer")
    given = parser.parse_args()
    os.environ["PALATE_QUIET"] = "1"
    kept = measure(given.run, given.out)
    KEPT.write_text(json.dumps(kept, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text("utf-8"), kept), encoding="utf-8")
    print(shown(kept))


if __name__ == "__main__":
    main()

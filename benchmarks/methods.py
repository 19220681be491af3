"""Which method of adaptation helps most: all of them on the same labels of the simulated world, in its ground truth.

python benchmarks/methods.py                 # keeps methods.json (half an hour on two cores)
python benchmarks/methods.py --pool spare    # other prompts, to choose settings on; keeps nothing
python benchmarks/methods.py --quick         # a small run, to see that all of it works; keeps nothing

The images, the choices, the scorer and the labels are those of `palate demo`, made once. Each method then adapts the
generator with two seeds, and makes one image of each evaluation prompt from the noise that the original had too. The judge of
the world says how good each image is. Every interval is a 95 % bootstrap over prompts of the mean over seeds. The demo's
recipe was chosen for `identifier`; the settings of the others are first guesses that were not tuned. `--pool spare` has
prompts to tune them on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from machine import machine

from palate.adaptation.adapt import adapt
from palate.adaptation.examples import image_files
from palate.adaptation.settings import AdaptSettings, RewardSettings, RoleWeights
from palate.data.tables import read_table
from palate.generation.generate import GenerateSettings, generate
from palate.generation.generator import load_generator
from palate.miniature.findings import estimate, judge_dataset, plain
from palate.miniature.loop import WEIGHTS, Loop, demo_settings
from palate.scoring.catalog import load
from palate.scoring.score import score_table

HERE = Path(__file__).parent
SEEDS = 2
CHANGES: Final[dict[str, dict[str, Any]]] = {
    "identifier": {},
    "sft": {},
    "dpo": {"beta": 500.0, "learning_rate": 1e-3, "batch": 16, "steps": 225},
    "kto": {
        "beta": 500.0,
        "learning_rate": 1e-3,
        "steps": 225,
        "role_weights": RoleWeights(preferred=0.5, rejected=0.5, regularisation=0.0),
    },
    "reward": {"learning_rate": 1e-3, "batch": 16, "steps": 40},
}
"""What each method has otherwise than the demo's recipe; none reads the identifier's share but the first."""


def main() -> None:
    """Make the labels, run each method, and keep what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "methods.json")
    parser.add_argument(
        "--out", type=Path, help="keeps what is made; a temporary folder if not given"
    )
    parser.add_argument("--pool", choices=["evaluation", "spare"], default="evaluation")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--change", default="{}", help="settings on top, as JSON")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        found = compare(given, given.out or Path(room))
    whole = given.only == list(CHANGES) and given.seeds == SEEDS and given.change == "{}"
    if whole and given.pool == "evaluation" and not given.quick:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def compare(given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Give each method's gain over the original in ground truth and in two scorers."""
    size = demo_settings("quick" if given.quick else "demo", evaluation_pool=given.pool)
    loop = Loop(out, size, say=lambda text: print(text, flush=True))
    for step in (loop.make_choice_images, loop.ask_people, loop.make_label_images):
        step()
    loop.train_scorer(0)
    loop.label_images(0)
    labels = read_table(out / "labels-0" / "labels.parquet", "labels")
    scorers = {"scorer": load(str(out / "train-0")), "watch": load("miniature")}
    before = measure(loop, out / given.pool / "original", None, scorers, "")
    rows = []
    for method in given.only:
        arms, seconds = [], 0.0
        for seed in range(given.seeds):
            settings = settings_of(loop, method, seed, json.loads(given.change))
            name = f"{method}-{seed}"
            adapter = out / given.pool / f"adapt-{name}"
            adapt_to(loop, labels, settings, adapter)
            seconds += json.loads((adapter / "run.json").read_text())["seconds"]
            negative = settings.identifier if method == "identifier" else ""
            arms.append(measure(loop, out / given.pool / name, adapter, scorers, negative))
        rows.append(row(method, arms, before, seconds / given.seeds))
        print(json.dumps(rows[-1]), flush=True)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": "python benchmarks/methods.py",
        "prompts": len(loop.evaluation_prompts),
        "seeds": given.seeds,
        "labels": {
            role: labels["role"].to_pylist().count(role)
            for role in sorted(set(labels["role"].to_pylist()))
        },
        "original": {name: float(np.mean(values)) for name, values in before.items()},
        "settings": {name: plain_settings(loop, name) for name in given.only},
        "methods": rows,
    }


def settings_of(loop: Loop, method: str, seed: int, change: dict[str, Any]) -> AdaptSettings:
    """Give a method's settings: the demo's recipe, with the changes of the method on top."""
    own = {"trackers": (), "method": method} | CHANGES[method] | change
    if method != "identifier":
        own["identifier_alone"] = 0.0
    if method == "reward":
        own["reward"] = RewardSettings(
            scorer=str(loop.out / "train-0"),
            watch="miniature",
            unit=1.0,
            images=4,
            sampling_steps=loop.sampling.steps,
            guidance=loop.sampling.guidance,
        )
    return replace(loop.adapt_settings(seed), **own)


def plain_settings(loop: Loop, method: str) -> dict[str, Any]:
    """Give the settings that a reader may want to compare, without paths."""
    found = asdict(settings_of(loop, method, 0, {}))
    names = (
        "steps",
        "batch",
        "rank",
        "learning_rate",
        "schedule",
        "beta",
        "min_snr",
        "role_weights",
    )
    return {name: found[name] for name in names}


def adapt_to(loop: Loop, labels: Any, settings: AdaptSettings, out: Path) -> None:
    """Adapt the generator of the simulated world to the labels."""
    pictures = image_files(loop.out / "labels-images", loop.out / "regularisation-images")
    adapt(labels, pictures, WEIGHTS / "generator", out, settings, cache=loop.out / "latents")


def measure(
    loop: Loop, out: Path, adapter: Path | None, scorers: dict[str, Any], negative: str
) -> dict[str, np.ndarray]:
    """Make an image of each prompt; give its utility and its scores, in the order of the prompts."""
    settings = GenerateSettings(
        images_per_prompt=1,
        steps=loop.sampling.steps,
        guidance=loop.sampling.guidance,
        batch=loop.sampling.batch,
        run="evaluation",
        negative_prompt=negative,
    )
    table = generate(
        loop.evaluation_prompts, load_generator(WEIGHTS / "generator", adapter), out, settings
    )
    judged = judge_dataset(out)
    found = {"utility": judged.firsts(loop.evaluation_prompts, judged.utility)}
    for name, scorer in scorers.items():
        values = np.array(score_table(table, out, scorer)["value"].to_pylist(), dtype=float)
        found[name] = judged.firsts(loop.evaluation_prompts, values)
    return found


def row(
    method: str, arms: list[dict[str, np.ndarray]], before: dict[str, np.ndarray], seconds: float
) -> dict[str, Any]:
    """Sum a method up: gains over the original, and how often the image of a prompt became better."""
    found: dict[str, Any] = {"method": method, "adapt_seconds": seconds}
    for name, value in before.items():
        gains = np.array([arm[name] - value for arm in arms])
        found[name] = plain(estimate(gains.mean(axis=0)))
        found[f"{name}_by_seed"] = gains.mean(axis=1).tolist()
    gains = np.array([arm["utility"] - before["utility"] for arm in arms])
    found["better"] = plain(estimate((gains > 0).mean(axis=0)))
    return found


if __name__ == "__main__":
    main()

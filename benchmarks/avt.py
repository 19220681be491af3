"""What can be learnt from real ratings: the AVT study, cross-validated by prompt, beside chance and zero-shot.

python benchmarks/avt.py PATH/TO/avt      # keeps avt.json

28 people rated 69 images of 13 prompts. Each prompt is held out once, scorers learn from the choices on the others, and
the held-out scores of all 13 are put together. The base is the miniature's CLIP, which has seen nothing but simulated
pictures of 32 pixels: no other is at hand here, and `--base` takes a better one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from machine import machine

from palate.data.tables import Dataset, load_dataset
from palate.evaluation.evaluate import EvaluateSettings, evaluate_choices
from palate.scoring.catalog import load, miniature_folder
from palate.scoring.score import score_table
from palate.training.learners.make import load_base
from palate.training.settings import TrainSettings
from palate.training.train import train

HERE = Path(__file__).parent
DIMENSIONS = ("appeal", "quality")
STEPS, BATCH = 60, 24
WAYS = {
    "CLIP, all of it": TrainSettings(
        objective="rankings",
        weights="pairs",
        steps=STEPS,
        batch=BATCH,
        learning_rate=1e-4,
        trackers=(),
    ),
    "head on frozen features": TrainSettings(
        model="aesthetic",
        objective="rankings",
        weights="pairs",
        steps=STEPS,
        batch=BATCH,
        learning_rate=1e-2,
        trackers=(),
    ),
}


def main() -> None:
    """Import the study, cross-validate each way on each dimension, and keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, help="folder of the AVT study")
    parser.add_argument("--base", type=Path, default=miniature_folder())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=HERE / "avt.json")
    given = parser.parse_args()
    kept: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": f"python benchmarks/avt.py avt --seeds {given.seeds}",
        "base": "miniature" if given.base == miniature_folder() else given.base.name,
        "steps": STEPS,
        "seeds": given.seeds,
        "dimensions": {},
    }
    with tempfile.TemporaryDirectory() as room:
        dataset = imported(given.study, Path(room) / "avt")
        for name in DIMENSIONS:
            kept["dimensions"][name] = measure(dataset, name, given, Path(room))
    given.json.write_text(json.dumps(kept, indent=1) + "\n")


def imported(study: Path, out: Path) -> Dataset:
    """Turn the ratings into choices: one ranking with ties for each person, prompt and dimension."""
    command = ["data", "import", "ratings", str(study), "--preset", "avt", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "palate", *command], check=True, stdout=sys.stderr)
    return load_dataset(out)


def measure(
    dataset: Dataset, dimension: str, given: argparse.Namespace, room: Path
) -> dict[str, Any]:
    """Hold every way of one dimension against its choices."""
    choices = dataset.choices.filter(pc.equal(dataset.choices["dimension"], dimension))
    dataset = replace(dataset, choices=choices)
    found = {
        "zero-shot": accuracy(
            choices, score_table(dataset.images, dataset.folder, load(given.base))
        )
    }
    for name, how in WAYS.items():
        held = []
        for seed in range(given.seeds):
            settings = replace(how, dimensions=(dimension,), seed=seed)
            scores = held_out_scores(dataset, settings, given.base, room / "run")
            held.append(accuracy(choices, scores))
        found[name] = held[0] | {"seeds": [one["pairs"]["value"] for one in held]}
        print(dimension, name, json.dumps(found[name]["pairs"]), found[name]["seeds"])
    return {"choices": len(choices), "ways": found}


def held_out_scores(dataset: Dataset, how: TrainSettings, base: Path, run: Path) -> Any:
    """Score the images of each prompt by a scorer that learnt from the other prompts."""
    tables = []
    for prompt in sorted(set(dataset.choices["prompt"].to_pylist())):
        there, here = (
            replace(
                dataset,
                images=dataset.images.filter(own(dataset.images["prompt"], prompt, held=held)),
                choices=dataset.choices.filter(own(dataset.choices["prompt"], prompt, held=held)),
            )
            for held in (False, True)
        )
        shutil.rmtree(run, ignore_errors=True)
        train(there, load_base(base, how), run, how)
        tables.append(score_table(here.images, here.folder, load(run)))
    return pa.concat_tables(tables)


def own(column: Any, prompt: str, *, held: bool) -> Any:
    """Mark the rows of a prompt, or those of the others."""
    return pc.equal(column, prompt) if held else pc.not_equal(column, prompt)


def accuracy(choices: Any, scores: Any) -> dict[str, Any]:
    """Count decided pairs and best images, with intervals over prompts."""
    one = pa.array(["cross-validated"] * len(scores))
    place = scores.schema.get_field_index("fingerprint")
    scores = scores.set_column(
        place, scores.schema.field(place), one.cast(scores.schema.field(place).type)
    )
    found = evaluate_choices(choices, scores, EvaluateSettings()).overall
    return {
        "pairs": found.pairwise.to_dict(),
        "top1": found.top1.to_dict(),
        "chance": {"pairs": 0.5, "top1": found.chance},
    }


if __name__ == "__main__":
    main()

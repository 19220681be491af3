"""Whether each objective finds the simulated people's taste: scorers taught by picks, pairs and rankings, on equal ground.

python benchmarks/objectives.py      # keeps objectives.json; see training_page.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from mps_dimensions import PEOPLE, Floats, Held, World, more, panel, told

from palate.data.records import Choice
from palate.data.tables import load_dataset, save_dataset, to_table
from palate.miniature.people import People
from palate.runs import seed_for
from palate.scoring.catalog import load, miniature_folder
from palate.training.learners.make import load_base
from palate.training.settings import TrainSettings
from palate.training.train import train

HERE = Path(__file__).parent
SCALES = {"overall": 1.0, "aesthetics": 1.0, "detail": 1.0, "alignment": 1.0}
SHOWN = {"choice": 4, "pairs": 2, "rankings": 4}
COMMON: dict[str, Any] = {
    "weight_decay": 0.05,
    "warmup_steps": 30,
    "ema": 0.98,
    "evaluate_every": 10_000,
    "save_every": 10_000,
    "trackers": (),
}
TOWERS: dict[str, Any] = COMMON | {"image_layers": 2, "text_layers": 3, "learning_rate": 4e-4}
HEAD: dict[str, Any] = COMMON | {"model": "aesthetic", "learning_rate": 1e-2}
# name: what the choices are, and how they are learnt
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "picks of one in four (HPS v1)": ("choice", TOWERS | {"objective": "choice"}),
    "pairs (PickScore, HPS v2)": ("pairs", TOWERS | {"objective": "pairs"}),
    "rankings of four (ImageReward's loss)": (
        "rankings",
        TOWERS | {"objective": "rankings", "weights": "pairs"},
    ),
    "a head on frozen features, pairs": ("pairs", HEAD | {"objective": "pairs"}),
}


def ask(world: World, kind: str) -> None:
    """Let one person at a time answer about disjoint groups of a prompt's pictures: a pick, or a ranking by picks."""
    people, rows = panel("overall", 1.0), []
    chance = np.random.default_rng(seed_for("objectives", kind))
    for place, prompt in enumerate(world.prompts):
        start = place * world.per_prompt
        for group in chance.permutation(world.per_prompt).reshape(-1, SHOWN[kind]):
            person = int(chance.integers(PEOPLE))
            ranks = answer(
                people, person, world.aspects[place, group], chance, whole=kind == "rankings"
            )
            rows.append(
                Choice(
                    choice=f"{len(rows)}",
                    prompt=prompt,
                    images=tuple(world.keys[start + int(one)] for one in group),
                    ranks=ranks,
                    annotator=f"simulated-{person:03d}",
                )
            )
    save_dataset(world.folder, world.images, to_table(rows, "choices"))


def answer(
    people: People, person: int, aspects: Floats, chance: np.random.Generator, *, whole: bool
) -> tuple[int, ...]:
    """Give a person's ranks: the picked image first and the others behind, or picks until none is left."""
    left, ranks = list(range(len(aspects))), [2] * len(aspects)
    for rank in range(1, len(aspects) + 1 if whole else 2):
        best = 0
        if len(left) > 1:
            best = people.pick(person, aspects[left], int(chance.integers(2**62)))
        ranks[left.pop(best)] = rank
    return tuple(ranks)


def main() -> None:
    """Run everything, print it and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "objectives.json")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=600, help="that people choose on")
    parser.add_argument("--held", type=int, default=300, help="prompts to measure on")
    given = parser.parse_args()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as room:
        found = measure(given, Path(room))
    kept = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": "python benchmarks/objectives.py",
        "processor_seconds": round(time.process_time() - began),
        "steps": given.steps,
        "prompts": given.prompts,
        "held_prompts": given.held,
        **found,
    }
    given.json.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(kept, indent=1))


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Draw, ask, train and measure."""
    asked = World(folder / "asked", "choices", given.prompts, 8)
    held = Held(World(folder / "held", "evaluation", given.held, 4), SCALES)
    before = held.accuracy("overall", held.scores(load("miniature")))
    ways: dict[str, Any] = {}
    for name, (kind, how) in WAYS.items():
        settings = TrainSettings(steps=given.steps, batch=24, **how)
        out = folder / f"run-{len(ways)}"
        ask(asked, kind)
        dataset = load_dataset(asked.folder)
        train(dataset, load_base(miniature_folder(), settings), out, settings)
        after = held.accuracy("overall", held.scores(load(out)))
        ways[name] = told([after], held.clusters) | {
            "answers": len(dataset.choices),
            "over_before": more([after], [before], held.clusters),
        }
    return {
        "best": told([held.best("overall")], held.clusters),
        "before": told([before], held.clusters),
        "ways": ways,
    }


if __name__ == "__main__":
    main()

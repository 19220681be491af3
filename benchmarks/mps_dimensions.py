"""What one MPS makes of several dimensions at once: each under its own and under the wrong conditions, beside CLIPs.

python benchmarks/mps_dimensions.py      # keeps mps-dimensions.json; see mps_dimensions_page.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from mps_words import MASK, Read, told_apart
from numpy.typing import NDArray

from palate.data.records import Choice
from palate.data.tables import load_dataset, save_dataset, to_table
from palate.miniature.judge import WEIGHTS, judge
from palate.miniature.people import People, expected_accuracy
from palate.miniature.pictures import draw_dataset, load_pictures
from palate.miniature.world import Pool, scenes_of
from palate.models.clip_files import load_clip
from palate.models.mps_condition import Masking
from palate.runs import seed_for
from palate.scoring.catalog import load, miniature_folder
from palate.scoring.networks import MpsScorer
from palate.scoring.scorer import Scorer
from palate.stats.intervals import mean_estimate, paired_difference
from palate.training.learners.make import load_base
from palate.training.learners.mps import MpsSettings, new_mps
from palate.training.settings import TrainSettings
from palate.training.train import train

HERE = Path(__file__).parent
Floats = NDArray[np.float64]
# Accuracies by dimension, condition (or what a CLIP was trained on) and seed.
Matrix = dict[str, dict[str, list[Floats]]]

# Which of the judge's aspects (match, relation, vividness, clutter) people of a dimension look at.
TASTES: Mapping[str, tuple[int, int, int, int]] = {
    "overall": (1, 1, 1, 1),
    "aesthetics": (0, 0, 1, 0),
    "detail": (0, 0, 0, 1),
    "alignment": (1, 1, 0, 0),
}
# Words that a person would think of first, all of which this world's CLIP has read.
PLAIN = {
    "overall": "a red circle above a blue square on white",
    "aesthetics": "red yellow green cyan blue purple",
    "detail": "circle square triangle cross ring",
    "alignment": "above below left of right of on",
}
# Words of the same kinds that mps_words.py found on prompts of the choices: their masks can be told apart.
CONDITIONS = {
    "overall": "my weird weird my nice my on weird",
    "aesthetics": "green pale green green purple purple pale grey",
    "detail": "triangle cross",
    "alignment": "above above left of a above below above left of right of",
}
PEOPLE, PANEL, PAIRS = 40, 0, 4
# How much surer these people are than those of the miniature's loop, so that fewer choices suffice.
SURER = 3.0
# What is trained, then what it is held against.
MASKS = {
    "words that were searched for; mean, 0.95": (CONDITIONS, MASK),
    "plain words; mean, 0.95": (PLAIN, MASK),
    "plain words; max, 0.3 (official)": (PLAIN, Masking()),
}


class World:
    """Pictures of some prompts, what the judge sees in them, and how people of each dimension choose."""

    def __init__(self, folder: Path, pool: Pool, prompts: int, per_prompt: int) -> None:
        """Draw the pictures."""
        chance = np.random.default_rng(seed_for("mps-dimensions", pool))
        self.folder = folder
        self.prompts = [scene.text for scene in scenes_of([pool], chance)[:prompts]]
        self.images = draw_dataset(self.prompts, folder, per_prompt=per_prompt, run=f"mps-{pool}")
        pixels = load_pictures(self.images, folder)
        asked = [text for text in self.prompts for _ in range(per_prompt)]
        self.keys: list[str] = self.images["image"].to_pylist()
        aspects = judge(np.stack([pixels[key] for key in self.keys]), asked).aspects
        self.aspects = aspects.reshape(len(self.prompts), per_prompt, -1)
        self.per_prompt = per_prompt

    def spread(self, taste: Floats) -> float:
        """Give how far the pictures of a prompt are apart in a taste."""
        return float((self.aspects @ taste).std(axis=1).mean())

    def scales(self) -> dict[str, float]:
        """Give the factor by which each dimension is as easy to see as the overall one."""
        whole = np.array(WEIGHTS)
        return {
            name: self.spread(whole) / self.spread(whole * taste) for name, taste in TASTES.items()
        }


def panel(name: str, scale: float) -> People:
    """Give people who look at one dimension: each person the same one in all dimensions."""
    people = People.drawn(PEOPLE, PANEL)
    return People(people.weights * np.array(TASTES[name]) * scale, SURER * people.sharpness)


def ask(world: World, scales: Mapping[str, float]) -> None:
    """Let people choose between disjoint pairs of each prompt's pictures, one person for each pair and dimension."""
    chance, rows = np.random.default_rng(seed_for("mps-dimensions", "ask")), []
    for name in TASTES:
        people = panel(name, scales[name])
        for place, prompt in enumerate(world.prompts):
            start = place * world.per_prompt
            for pair in chance.permutation(world.per_prompt).reshape(-1, 2):
                person, seed = int(chance.integers(PEOPLE)), int(chance.integers(2**62))
                best = people.pick(person, world.aspects[place, pair], seed)
                rows.append(
                    Choice(
                        choice=f"{name}-{len(rows)}",
                        prompt=prompt,
                        images=tuple(world.keys[start + int(one)] for one in pair),
                        ranks=(1, 2) if best == 0 else (2, 1),
                        dimension=name,
                        annotator=f"simulated-{person:03d}",
                    )
                )
    save_dataset(world.folder, world.images, to_table(rows, "choices"))


class Held:
    """Pairs that no training saw, with the chance that each image is picked on each dimension."""

    def __init__(self, world: World, scales: Mapping[str, float]) -> None:
        """Take every pair of each prompt's pictures."""
        self.world = world
        self.pairs = np.stack(np.triu_indices(world.per_prompt, 1), axis=1)
        shown = world.aspects[:, self.pairs].reshape(-1, 2, world.aspects.shape[-1])
        self.chances = {
            name: panel(name, scales[name]).probabilities(shown).mean(axis=0) for name in TASTES
        }
        self.clusters = np.repeat(np.arange(len(world.prompts)), len(self.pairs))

    def accuracy(self, name: str, values: Floats) -> Floats:
        """Give, for each pair, the chance that a person picks what the scorer puts first; equal scores are half."""
        scores = values.reshape(len(self.world.prompts), -1)[:, self.pairs].reshape(-1, 2)
        return np.asarray(expected_accuracy(scores, self.chances[name]))

    def best(self, name: str) -> Floats:
        """Give the accuracy of knowing the chances themselves."""
        return np.asarray(expected_accuracy(self.chances[name], self.chances[name]))

    def scores(self, scorer: Scorer) -> Floats:
        """Score every picture for its prompt."""
        paths = [self.world.folder / "images" / f"{key}.png" for key in self.world.keys]
        prompts = [text for text in self.world.prompts for _ in range(self.world.per_prompt)]
        return np.asarray(scorer.score(paths, prompts), dtype=np.float64)


def masks_of(prompts: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Say what the masks of each condition tell, for each way to make them.

    ``same``: the share of prompts on which a condition keeps the tokens that the condition of overall keeps.
    ``named``: the share on which a linear reader of the kept tokens names the condition (of four; guessing
    gets a quarter). The text tower is not trained, so that both are so before and after.
    """
    read = Read(new_mps(load_clip(miniature_folder()), MpsSettings(layers=1, heads=4), 0), prompts)
    found = {}
    for label, (conditions, masking) in MASKS.items():
        kept = {name: read.kept(conditions[name], masking) for name in TASTES}
        named = told_apart([read.means(conditions[name], masking) for name in TASTES])
        found[label] = {
            "same": {
                name: round(float((mask == kept["overall"]).all(-1).float().mean()), 4)
                for name, mask in kept.items()
            },
            "named": dict(zip(TASTES, np.round(named, 4).tolist(), strict=True)),
        }
    return found


def told(rows: Sequence[Floats], clusters: NDArray[np.int64]) -> dict[str, Any]:
    """Give the mean over seeds and pairs, with its interval over prompts, and each seed's mean."""
    found = mean_estimate(np.mean(rows, axis=0), clusters)
    return {
        "value": round(found.value, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "seeds": [round(float(row.mean()), 4) for row in rows],
    }


def more(one: Sequence[Floats], other: Sequence[Floats], clusters: NDArray[np.int64]) -> Any:
    """Give how much higher the first is, with its interval over prompts."""
    found = paired_difference(np.mean(one, axis=0), np.mean(other, axis=0), clusters)
    return {
        name: round(float(getattr(found.estimate, name)), 4) for name in ("value", "low", "high")
    }


def mps_settings(
    given: argparse.Namespace, seed: int, conditions: Mapping[str, str]
) -> TrainSettings:
    """Give the settings of an MPS: all dimensions in each batch, the text tower (and so the masks) as it is."""
    own = MpsSettings(
        pooling=MASK.pooling,
        threshold=MASK.threshold,
        tokens=MASK.tokens,
        layers=1,
        heads=4,
        conditions=conditions,
    )
    return TrainSettings(
        model="mps",
        mps=own,
        dimensions=tuple(TASTES),
        image_layers=2,
        text_layers=0,
        learning_rate=2e-3,
        logit_scale=10.0,
        steps=given.steps,
        batch=48,
        seed=seed,
        **_COMMON,
    )


def clip_settings(given: argparse.Namespace, name: str, seed: int) -> TrainSettings:
    """Give the settings of a CLIP on one dimension: it sees as many choices of it as the MPS does."""
    return TrainSettings(
        dimensions=(name,),
        image_layers=2,
        text_layers=3,
        learning_rate=4e-4,
        steps=given.steps // 2,
        batch=24,
        seed=seed,
        **_COMMON,
    )


_COMMON: dict[str, Any] = {
    "objective": "pairs",
    "weight_decay": 0.05,
    "warmup_steps": 30,
    "ema": 0.98,
    "evaluate_every": 10_000,
    "save_every": 10_000,
    "trackers": (),
}


def teach(folder: Path, out: Path, settings: TrainSettings) -> Path:
    """Train from the miniature's CLIP."""
    train(load_dataset(folder), load_base(miniature_folder(), settings), out, settings)
    return out


def measure(given: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Any]:
    """Draw, ask, train and measure."""
    asked = World(folder / "asked", "choices", given.prompts, 2 * PAIRS)
    scales = asked.scales()
    ask(asked, scales)
    held = Held(World(folder / "held", given.pool, given.held, 4), scales)
    matrix = conditioned(given, held, asked.folder, folder / "mps", CONDITIONS, given.seeds)
    plain = conditioned(given, held, asked.folder, folder / "plain", PLAIN, given.plain_seeds)
    clips: Matrix = {name: {} for name in TASTES}
    for name in TASTES:
        for seed in range(given.clip_seeds):
            out = folder / f"clip-{name}-{seed}"
            scorer = load(str(teach(asked.folder, out, clip_settings(given, name, seed))))
            values = held.scores(scorer)
            for other in TASTES if name == "overall" else (name,):
                clips[other].setdefault(name, []).append(held.accuracy(other, values))
    before = held.scores(load("miniature"))
    return facts(held, matrix, plain, clips, before), masks_of(held.world.prompts)


def conditioned(
    given: argparse.Namespace,
    held: Held,
    asked: Path,
    out: Path,
    conditions: Mapping[str, str],
    seeds: int,
) -> Matrix:
    """Train an MPS for each seed, and give the accuracy on every dimension under every condition."""
    matrix: Matrix = {name: {} for name in TASTES}
    for seed in range(seeds):
        settings = mps_settings(given, seed, conditions)
        scorer = load(str(teach(asked, out / str(seed), settings)))
        assert isinstance(scorer, MpsScorer)
        for condition in TASTES:
            values = held.scores(scorer.on(condition))
            for name in TASTES:
                matrix[name].setdefault(condition, []).append(held.accuracy(name, values))
    return matrix


def against(matrix: Matrix, name: str) -> tuple[list[Floats], list[Floats]]:
    """Give the accuracies on a dimension under its own condition, and their mean under the others, by seed."""
    own = matrix[name][name]
    others = [rows for condition, rows in matrix[name].items() if condition != name]
    return own, [np.mean([rows[seed] for rows in others], axis=0) for seed in range(len(own))]


def facts(
    held: Held, matrix: Matrix, plain: Matrix, clips: Matrix, before: Floats
) -> dict[str, Any]:
    """Sum up, dimension by dimension."""
    at, found = held.clusters, {}
    for name in TASTES:
        own, wrong = against(matrix, name)
        found[name] = {
            "best": told([held.best(name)], at),
            "before": told([held.accuracy(name, before)], at),
            "own": told(own, at),
            "wrong": told(wrong, at),
            "by_condition": {other: told(rows, at) for other, rows in matrix[name].items()},
            "clip_overall": told(clips[name]["overall"], at),
            "clip_same": told(clips[name][name], at),
            "plain_own": told(plain[name][name], at),
            "own_over_wrong": more(own, wrong, at),
            "plain_own_over_wrong": more(*against(plain, name), at),
            "own_over_clip_overall": more(own, clips[name]["overall"], at),
            "own_over_clip_same": more(own, clips[name][name], at),
        }
    return found


def main() -> None:
    """Run everything, print it and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "mps-dimensions.json")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--plain-seeds", type=int, default=1, help="of the MPS of plain words")
    parser.add_argument("--clip-seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1200, help="of the MPS")
    parser.add_argument("--prompts", type=int, default=1800, help="that people choose on")
    parser.add_argument("--held", type=int, default=500, help="prompts to measure on")
    parser.add_argument("--pool", default="evaluation", choices=["evaluation", "spare"])
    given = parser.parse_args()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found, masks = measure(given, Path(folder))
    kept = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": "python benchmarks/mps_dimensions.py",
        "processor_seconds": round(time.process_time() - began),
        "seeds": given.seeds,
        "plain_seeds": given.plain_seeds,
        "clip_seeds": given.clip_seeds,
        "steps": given.steps,
        "prompts": given.prompts,
        "choices": given.prompts * PAIRS * len(TASTES),
        "held_prompts": given.held,
        "held_pairs": given.held * 6,
        "masks": masks,
        "dimensions": found,
    }
    given.json.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()

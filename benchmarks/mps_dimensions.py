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
from numpy.typing import NDArray

from palate.data.records import Choice
from palate.data.tables import load_dataset, save_dataset, to_table
from palate.miniature.judge import WEIGHTS, judge
from palate.miniature.people import People, expected_accuracy
from palate.miniature.pictures import draw_dataset, load_pictures
from palate.miniature.world import Pool, scenes_of
from palate.models.clip import encode_prompts
from palate.models.clip_files import load_clip
from palate.models.mps_condition import Masking, tokens_kept
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

# Which of the judge's aspects (match, relation, vividness, clutter) people of a dimension look at.
TASTES: Mapping[str, tuple[int, int, int, int]] = {
    "overall": (1, 1, 1, 1),
    "aesthetics": (0, 0, 1, 0),
    "detail": (0, 0, 0, 1),
    "alignment": (1, 1, 0, 0),
}
# Words that this world's CLIP has read.
CONDITIONS = {
    "overall": "a red circle above a blue square on white",
    "aesthetics": "red yellow green cyan blue purple",
    "detail": "circle square triangle cross ring",
    "alignment": "above below left of right of on",
}
PEOPLE, PANEL, PAIRS = 40, 0, 4
# How much surer these people are than those of the miniature's loop, so that fewer choices suffice.
SURER = 3.0
# Of the masks that were tried on prompts of the choices, the first tells the conditions apart best.
MASKS = {"mean, 0.95": Masking(pooling="mean", threshold=0.95), "max, 0.3 (official)": Masking()}
MASK = MASKS["mean, 0.95"]


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


def same_masks(prompts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Give the share of prompts on which a condition keeps the tokens that the condition of overall keeps.

    The text tower is not trained, so that this is so before and after.
    """
    clip = load_clip(miniature_folder())
    mps = new_mps(clip, MpsSettings(layers=1, heads=4), 0)
    text = mps.text_tokens(encode_prompts(clip, prompts))[0]
    found = {}
    for label, masking in MASKS.items():
        kept = {}
        for name, words in CONDITIONS.items():
            asked = mps.text_tokens(encode_prompts(clip, [words]))[0]
            kept[name] = tokens_kept(text, asked.expand(len(text), -1, -1), masking)
        found[label] = {
            name: round(float((mask == kept["overall"]).all(-1).float().mean()), 4)
            for name, mask in kept.items()
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


def mps_settings(given: argparse.Namespace, seed: int) -> TrainSettings:
    """Give the settings of the MPS: all dimensions in each batch, the text tower as it is."""
    own = MpsSettings(
        pooling=MASK.pooling,
        threshold=MASK.threshold,
        tokens=MASK.tokens,
        layers=1,
        heads=4,
        conditions=CONDITIONS,
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
    matrix: dict[str, dict[str, list[Floats]]] = {name: {} for name in TASTES}
    for seed in range(given.seeds):
        scorer = load(str(teach(asked.folder, folder / f"mps-{seed}", mps_settings(given, seed))))
        assert isinstance(scorer, MpsScorer)
        for condition in TASTES:
            values = held.scores(scorer.on(condition))
            for name in TASTES:
                matrix[name].setdefault(condition, []).append(held.accuracy(name, values))
    clips: dict[str, dict[str, list[Floats]]] = {name: {} for name in TASTES}
    for name in TASTES:
        for seed in range(given.clip_seeds):
            out = folder / f"clip-{name}-{seed}"
            scorer = load(str(teach(asked.folder, out, clip_settings(given, name, seed))))
            values = held.scores(scorer)
            for other in TASTES if name == "overall" else (name,):
                clips[other].setdefault(name, []).append(held.accuracy(other, values))
    before = held.scores(load("miniature"))
    return facts(held, matrix, clips, before), same_masks(held.world.prompts)


def facts(held: Held, matrix: Any, clips: Any, before: Floats) -> dict[str, Any]:
    """Sum up, dimension by dimension."""
    at, found = held.clusters, {}
    for name in TASTES:
        own = matrix[name][name]
        wrong = {other: matrix[name][other] for other in TASTES if other != name}
        mean_wrong = [
            np.mean([wrong[other][seed] for other in wrong], 0) for seed in range(len(own))
        ]
        found[name] = {
            "best": told([held.best(name)], at),
            "before": told([held.accuracy(name, before)], at),
            "own": told(own, at),
            "wrong": told(mean_wrong, at),
            "by_condition": {other: told(rows, at) for other, rows in matrix[name].items()},
            "clip_overall": told(clips[name]["overall"], at),
            "clip_same": told(clips[name][name], at),
            "own_over_wrong": more(own, mean_wrong, at),
            "own_over_clip_overall": more(own, clips[name]["overall"], at),
            "own_over_clip_same": more(own, clips[name][name], at),
        }
    return found


def main() -> None:
    """Run everything, print it and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "mps-dimensions.json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clip-seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=800, help="of the MPS")
    parser.add_argument("--prompts", type=int, default=1200, help="that people choose on")
    parser.add_argument("--held", type=int, default=500, help="prompts to measure on")
    parser.add_argument("--pool", default="evaluation", choices=["evaluation", "spare"])
    given = parser.parse_args()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found, same = measure(given, Path(folder))
    kept = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": "python benchmarks/mps_dimensions.py",
        "processor_seconds": round(time.process_time() - began),
        "seeds": given.seeds,
        "clip_seeds": given.clip_seeds,
        "steps": given.steps,
        "prompts": given.prompts,
        "choices": given.prompts * PAIRS * len(TASTES),
        "held_prompts": given.held,
        "held_pairs": given.held * 6,
        "masks": list(MASKS),
        "same_masks": same,
        "dimensions": found,
    }
    given.json.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()

"""What a run of the loop found, measured in the simulated world's ground truth.

Every interval is a 95 % bootstrap over prompts. Where several training seeds were run, their mean is taken within
each prompt first, so that the interval speaks of prompts; the seeds stand beside it one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from palate.data.duels import pair_index
from palate.data.tables import load_dataset, read_table
from palate.errors import DataError
from palate.miniature.judge import judge
from palate.miniature.people import People, expected_accuracy
from palate.miniature.pictures import load_pictures
from palate.miniature.world import Array
from palate.runs import seed_for
from palate.stats.intervals import Estimate, mean_estimate

VOTERS = 20
FRESH_PANEL = 1


@dataclass(frozen=True)
class Judged:
    """The images of a data set with what the judge saw, in the order of the table."""

    keys: list[str]
    prompts: list[str]
    pictures: NDArray[np.uint8]
    aspects: Float[Array, "images aspects"]
    utility: Float[Array, "images"]

    def by_prompt(self, values: Float[Array, "images *rest"]) -> Float[Array, "prompts each *rest"]:
        """Values of the images in groups of one prompt; every prompt must have the same number of images."""
        places: dict[str, list[int]] = {}
        for i, prompt in enumerate(self.prompts):
            places.setdefault(prompt, []).append(i)
        if len({len(rows) for rows in places.values()}) != 1:
            raise DataError("the prompts have different numbers of images")
        return np.asarray(values[np.array(list(places.values()))])

    def firsts(
        self, prompts: Sequence[str], values: Float[Array, "images *rest"]
    ) -> Float[Array, "prompts *rest"]:
        """The value of each prompt's first image, in the order of `prompts`."""
        place = {prompt: i for i, prompt in reversed([*enumerate(self.prompts)])}
        return np.asarray(values[[place[prompt] for prompt in prompts]])


def judge_dataset(folder: Path) -> Judged:
    """Judge every image of a data-set folder."""
    images = load_dataset(folder).images
    pictures = load_pictures(images, folder)
    keys, prompts = images.column("image").to_pylist(), images.column("prompt").to_pylist()
    stacked = np.stack([pictures[key] for key in keys])
    seen = judge(stacked, prompts)
    return Judged(keys, prompts, stacked, seen.aspects, seen.utility)


def read_scores(path: Path, judged: Judged) -> Float[Array, "images"]:
    """Read a table of scores in the order of the judged images."""
    table = read_table(path, "scores")
    known = dict(
        zip(table.column("image").to_pylist(), table.column("value").to_pylist(), strict=True)
    )
    return np.array([known[key] for key in judged.keys], dtype=float)


@dataclass(frozen=True)
class Accuracy:
    """How often a scorer picks what people pick, by prompt, and how it orders images by their utility."""

    expected: Float[Array, "prompts"]
    tau: Float[Array, "prompts"]


def measure_accuracy(scores: Float[Array, "images"], judged: Judged, people: People) -> Accuracy:
    """Expected top-1 accuracy of scores (higher is better), and Kendall's tau with utility, per prompt.

    The accuracy is the mean chance, over the people, that somebody picks the image with the highest score.
    """
    chances = people.probabilities(judged.by_prompt(judged.aspects)).mean(axis=0)
    grouped, utility = judged.by_prompt(scores), judged.by_prompt(judged.utility)
    count = grouped.shape[1]
    _, first, second = pair_index(np.array([count]))
    agree = np.sign(grouped[:, first] - grouped[:, second]) * np.sign(
        utility[:, first] - utility[:, second]
    )
    return Accuracy(expected_accuracy(grouped, chances), agree.mean(axis=1))


def best_accuracy(judged: Judged, people: People) -> Float[Array, "prompts"]:
    """The expected accuracy, per prompt, that no scorer can exceed."""
    chances = people.probabilities(judged.by_prompt(judged.aspects)).mean(axis=0)
    return expected_accuracy(chances, chances)


def count_votes(
    arm: Float[Array, "prompts aspects"],
    original: Float[Array, "prompts aspects"],
    prompts: Sequence[str],
    run: str,
) -> NDArray[np.int64]:
    """How many of the fresh voters prefer the arm's image of each prompt to the original's.

    Each of `VOTERS` simulated people, none of whom chose before, sees the two in random order and votes once.
    """
    people = People.drawn(VOTERS, FRESH_PANEL)
    chances = people.probabilities(np.stack([arm, original], axis=1))[:, :, 0]
    votes = np.zeros(len(prompts), dtype=np.int64)
    for i, prompt in enumerate(prompts):
        draws = np.random.default_rng(seed_for(run, "votes", prompt)).random(VOTERS)
        votes[i] = (draws < chances[:, i]).sum()
    return votes


def estimate(values: Float[Array, "prompts"]) -> Estimate:
    """Mean over prompts with its 95 % interval."""
    return mean_estimate(values)


def plain(value: Estimate) -> dict[str, float]:
    """An estimate as the report and the JSON print it."""
    return {"estimate": value.value, "low": value.low, "high": value.high}


def arm_facts(
    name: str,
    arms: Sequence[tuple[Judged, Float[Array, "images"]]],
    originals: Sequence[tuple[Judged, Float[Array, "images"]]],
    prompts: Sequence[str],
) -> dict[str, Any]:
    """Compare one arm with the original, prompt by prompt, both starting from the same noise.

    Args:
        name: what the arm is called.
        arms: the judged images and their scores, one entry per training seed.
        originals: the same of the original, scored by the same seed's classifier.
        prompts: the prompts of the comparison.

    Returns:
        `name`, mean `utility`, `difference` and `score_difference` (arm minus original, higher is better), and the
        shares of prompts `won` and `lost` by more than half of the fresh voters (the rest are even).
    """
    utilities, gains, scores, won, lost = [], [], [], [], []
    for (arm, arm_scores), (original, original_scores) in zip(arms, originals, strict=True):
        utilities.append(arm.firsts(prompts, arm.utility))
        gains.append(utilities[-1] - original.firsts(prompts, original.utility))
        scores.append(arm.firsts(prompts, arm_scores) - original.firsts(prompts, original_scores))
        votes = count_votes(
            arm.firsts(prompts, arm.aspects),
            original.firsts(prompts, original.aspects),
            prompts,
            f"arm {name}",
        )
        won.append(votes > VOTERS / 2)
        lost.append(votes < VOTERS / 2)
    return {
        "name": name,
        "utility": float(np.mean(utilities)),
        "difference": plain(estimate(np.mean(gains, axis=0))),
        "score_difference": plain(estimate(np.mean(scores, axis=0))),
        "won": plain(estimate(np.mean(won, axis=0))),
        "lost": plain(estimate(np.mean(lost, axis=0))),
    }

"""Measure one run of the loop: every number that its report says."""

from __future__ import annotations

from typing import Any

import numpy as np

from palate.data.tables import load_dataset, read_table
from palate.miniature.findings import (
    arm_facts,
    best_accuracy,
    estimate,
    judge_dataset,
    measure_accuracy,
    plain,
    read_scores,
)
from palate.miniature.loop import Loop
from palate.miniature.people import People

ARMS = {
    "original": "original",
    "original-negative": "original, identifier as negative",
    "original-identifier": "original, identifier in the prompt",
    "adapted": "adapted",
    "adapted-negative": "adapted, identifier as negative",
    "adapted-identifier": "adapted, identifier in the prompt",
}


MAKERS = ("drawn", "generated")


def measure(loop: Loop) -> dict[str, Any]:
    """Measure everything that the report says; plain numbers, as `result.json` holds them."""
    seeds, prompts = range(loop.settings.seeds), loop.evaluation_prompts
    accuracies = {maker: _Accuracies(loop, maker) for maker in MAKERS}
    judged = {arm: judge_dataset(loop.out / "arms" / arm) for arm in _folders(loop)}
    arms = {
        arm: [
            (
                judged[folder],
                read_scores(loop.score(seed, loop.out / "arms" / folder), judged[folder]),
            )
            for seed in seeds
            for folder in (loop.arms(seed)[arm],)
        ]
        for arm in ARMS
    }
    rows = {
        arm: arm_facts(name, arms[arm], arms["original"], prompts) for arm, name in ARMS.items()
    }
    by_seed = [
        {
            "seed": seed,
            "accuracy": plain(estimate(accuracies["drawn"].trained[seed].expected)),
            **arm_facts(
                ARMS["adapted-negative"],
                arms["adapted-negative"][seed : seed + 1],
                arms["original"][seed : seed + 1],
                prompts,
            ),
        }
        for seed in seeds
    ]
    return {
        "simulated": True,
        "settings": {name: getattr(loop.settings, name) for name in type(loop.settings).__slots__},
        "classifier": {maker: of.facts() for maker, of in accuracies.items()},
        "arms": [
            _without_votes(facts) if arm == "original" else facts for arm, facts in rows.items()
        ],
        "by_seed": by_seed,
        "against_original_negative": arm_facts(
            "both with the identifier as negative: adapted against original",
            arms["adapted-negative"],
            arms["original-negative"],
            prompts,
        ),
        "identifier_costs": {
            maker: arm_facts(
                f"{maker}: identifier in the prompt against none",
                arms[f"{maker}-identifier"],
                arms[maker],
                prompts,
            )
            for maker in ("original", "adapted")
        },
        "labels": _label_facts(loop),
        "choices": _choice_facts(loop),
        "seconds": {name: round(spent, 1) for name, spent in loop.seconds.items()},
    }


def _without_votes(facts: dict[str, Any]) -> dict[str, Any]:
    """Votes between the original and itself are coins thrown, and say nothing."""
    return {**facts, "won": None, "lost": None}


def _folders(loop: Loop) -> list[str]:
    """Every folder of arms, over all seeds."""
    found = [folder for seed in range(loop.settings.seeds) for folder in loop.arms(seed).values()]
    return list(dict.fromkeys(found))


class _Accuracies:
    """Expected accuracies on images of evaluation prompts by one maker."""

    def __init__(self, loop: Loop, maker: str) -> None:
        folder, people = loop.out / "test-images" / maker, People.drawn(40, 0)
        judged = judge_dataset(folder)
        self.images = judged.by_prompt(judged.utility).shape[1]
        self.best = best_accuracy(judged, people)
        self.habit = people.last_place_accuracy(self.images)
        self.before = measure_accuracy(read_scores(loop.zero_shot(folder), judged), judged, people)
        self.trained = [
            measure_accuracy(read_scores(loop.score(seed, folder), judged), judged, people)
            for seed in range(loop.settings.seeds)
        ]

    def facts(self) -> dict[str, Any]:
        """What the report prints; the mean over seeds is taken within each prompt."""
        expected = np.mean([accuracy.expected for accuracy in self.trained], axis=0)
        tau = np.mean([accuracy.tau for accuracy in self.trained], axis=0)
        before = self.before
        return {
            "test_prompts": len(self.best),
            "guessing": 1 / self.images,
            "always_last_place": self.habit,
            "zero_shot": {
                "accuracy": plain(estimate(before.expected)),
                "tau": plain(estimate(before.tau)),
            },
            "trained": {"accuracy": plain(estimate(expected)), "tau": plain(estimate(tau))},
            "gain": plain(estimate(expected - before.expected)),
            "best_possible": plain(estimate(self.best)),
        }


def _label_facts(loop: Loop) -> dict[str, Any]:
    """True utility of what was labelled, seed 0."""
    judged = judge_dataset(loop.out / "labels-images")
    known = dict(zip(judged.keys, judged.utility, strict=True))
    labels = read_table(loop.out / "labels-0" / "labels.parquet", "labels")
    roles: dict[str, list[float]] = {}
    for image, role in zip(
        labels.column("image").to_pylist(), labels.column("role").to_pylist(), strict=True
    ):
        if image in known:
            roles.setdefault(role, []).append(float(known[image]))
    return {
        "images": len(judged.keys),
        "prompts": len(set(judged.prompts)),
        "utility": float(judged.utility.mean()),
        **{
            role: {"count": len(values), "utility": float(np.mean(values))}
            for role, values in roles.items()
        },
    }


def _choice_facts(loop: Loop) -> dict[str, Any]:
    choices = load_dataset(loop.out / "choices").choices
    ranks = np.array(choices.column("ranks").to_pylist())
    return {
        "count": len(choices),
        "prompts": len(set(choices.column("prompt").to_pylist())),
        "people": len(set(choices.column("annotator").to_pylist())),
        "slots": [float(share) for share in (ranks == 1).mean(axis=0)],
    }

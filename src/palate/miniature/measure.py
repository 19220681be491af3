"""Measure one run of the loop: every number that its report says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from palate.data.tables import load_dataset, read_table
from palate.miniature.findings import (
    Judged,
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
    "adapted": "adapted",
    "adapted-negative": "adapted, identifier as negative",
    "adapted-identifier": "adapted, identifier in the prompt",
}


def measure(loop: Loop) -> dict[str, Any]:
    """Measure everything that the report says; plain numbers, as `result.json` holds them."""
    seeds = range(loop.settings.seeds)
    prompts = loop.evaluation_prompts
    judged = {arm: judge_dataset(loop.out / "arms" / arm) for arm in _folders(loop)}
    people = People.drawn(40, 0)
    original = judged["original"]
    scores = {
        (seed, arm): read_scores(loop.score(seed, loop.out / "arms" / folder), judged[folder])
        for seed in seeds
        for arm, folder in loop.arms(seed).items()
    }
    arms = {
        arm: [(judged[loop.arms(seed)[arm]], scores[seed, arm]) for seed in seeds] for arm in ARMS
    }
    classifier = _accuracies(loop, original, [scores[seed, "original"] for seed in seeds], people)
    rows = [arm_facts(name, arms[arm], arms["original"], prompts) for arm, name in ARMS.items()]
    by_seed = [
        {
            "seed": seed,
            "accuracy": plain(
                estimate(measure_accuracy(scores[seed, "original"], original, people).expected)
            ),
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
        "classifier": classifier,
        "arms": rows,
        "by_seed": by_seed,
        "identifier_costs": arm_facts(
            "identifier in the prompt against none, both adapted",
            arms["adapted-identifier"],
            arms["adapted"],
            prompts,
        ),
        "labels": _label_facts(loop),
        "choices": _choice_facts(loop),
        "seconds": {name: round(spent, 1) for name, spent in loop.seconds.items()},
    }


def _folders(loop: Loop) -> list[str]:
    """Every folder of arms, over all seeds."""
    found = [folder for seed in range(loop.settings.seeds) for folder in loop.arms(seed).values()]
    return list(dict.fromkeys(found))


def _accuracies(
    loop: Loop, original: Judged, trained: Sequence[Any], people: People
) -> dict[str, Any]:
    """Expected accuracies on images of the original generator for the prompts of the arms."""
    zero = read_scores(loop.zero_shot(loop.out / "arms" / "original"), original)
    before = measure_accuracy(zero, original, people)
    after = [measure_accuracy(scores, original, people) for scores in trained]
    expected = np.mean([accuracy.expected for accuracy in after], axis=0)
    tau = np.mean([accuracy.tau for accuracy in after], axis=0)
    best = best_accuracy(original, people)
    images = original.by_prompt(original.utility).shape[1]
    return {
        "test_prompts": len(best),
        "guessing": 1 / images,
        "always_last_place": people.last_place_accuracy(images),
        "zero_shot": {
            "accuracy": plain(estimate(before.expected)),
            "tau": plain(estimate(before.tau)),
        },
        "trained": {"accuracy": plain(estimate(expected)), "tau": plain(estimate(tau))},
        "gain": plain(estimate(expected - before.expected)),
        "best_possible": plain(estimate(best)),
    }


def _label_facts(loop: Loop) -> dict[str, Any]:
    """True utility of what was labelled, seed 0."""
    judged = judge_dataset(loop.out / "label-images")
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

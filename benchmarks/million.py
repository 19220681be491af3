"""What a million choices cost: accuracy, agreement, a ranking of 50 generators, and 1,000 resamples.

python benchmarks/million.py      # keeps million.json
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from palate.stats.agreements.coefficients import krippendorff_alpha
from palate.stats.intervals import Bootstrap
from palate.stats.protocols import accuracy_under
from palate.stats.rankings.bradley_terry import bradley_terry
from palate.stats.two_way.clusters import ClusterSettings, clustered_share

HERE = Path(__file__).parent
CHOICES, GENERATORS, PROMPTS, PEOPLE = 1_000_000, 50, 100_000, 5_000


def main() -> None:
    """Make a million duels of simulated people, and time each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "million.json")
    given = parser.parse_args()
    numbers = np.random.default_rng(0)
    worth = numbers.normal(0, 0.7, GENERATORS)
    first = numbers.integers(0, GENERATORS, CHOICES)
    second = (first + numbers.integers(1, GENERATORS, CHOICES)) % GENERATORS
    prompts = numbers.integers(0, PROMPTS, CHOICES)
    people = numbers.integers(0, PEOPLE, CHOICES)
    won = numbers.random(CHOICES) < 1 / (1 + np.exp(worth[second] - worth[first]))
    outcome = won.astype(np.float64)
    scores = worth[np.stack([first, second], axis=1)] + numbers.normal(0, 1, (CHOICES, 2))
    ranks = np.stack([2 - won, 1 + won], axis=1).reshape(-1)
    offsets = np.arange(0, 2 * CHOICES + 1, 2)
    plain = Bootstrap(resamples=1000)
    told: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> None:
        start = time.perf_counter()
        call()
        told[name] = time.perf_counter() - start
        print(f"{name:46}{told[name]:8.2f} s")

    flat = scores.reshape(-1)
    timed(
        "accuracy, 1,000 resamples of prompts",
        lambda: accuracy_under(
            "image-reward-pairs", flat, ranks, offsets, prompts, bootstrap=plain
        ),
    )
    timed(
        "Krippendorff's alpha, 1,000 resamples of items",
        lambda: krippendorff_alpha(prompts, outcome, bootstrap=plain),
    )
    timed("Bradley-Terry of 50 generators", lambda: bradley_terry(first, second, outcome))
    timed(
        "Bradley-Terry, clustered by prompt and person",
        lambda: bradley_terry(first, second, outcome, prompts=prompts, people=people),
    )
    timed(
        "share, two-way bootstrap, 1,000 resamples",
        lambda: clustered_share(
            outcome,
            prompts,
            people,
            settings=ClusterSettings(method="bootstrap", resamples=1000),
        ),
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{'peak':46}{peak / 1e6:8.0f} MB")
    kept = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": "python benchmarks/million.py",
        "choices": CHOICES,
        "seconds": told,
        "peak_bytes": peak,
    }
    given.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What a million choices cost: accuracy, agreement, a ranking of 50 generators, and 1,000 resamples.

python benchmarks/million.py      # keeps million.json

First the functions of palate.stats on columns in memory; then whole commands, from the start of the process over reading
and checking the tables to what they print.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from machine import machine

from palate.data.tables import CHOICES as CHOICES_TABLE
from palate.data.tables import IMAGES, SCORES, write_table
from palate.stats.agreements.coefficients import krippendorff_alpha
from palate.stats.intervals import Bootstrap
from palate.stats.protocols import accuracy_under
from palate.stats.rankings.bradley_terry import bradley_terry
from palate.stats.two_way.clusters import ClusterSettings, clustered_share

HERE = Path(__file__).parent
COMMANDS = {
    "palate evaluate": ["evaluate", "{folder}", "--scores", "{folder}/scores.parquet"],
    "palate stats agreement": ["stats", "agreement", "{folder}"],
    "palate stats rank": ["stats", "rank", "{folder}", "--by", "generator"],
}
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
    with tempfile.TemporaryDirectory() as room:
        write_tables(Path(room), first, second, prompts, people, won, worth)
        commands = {name: whole(line, Path(room)) for name, line in COMMANDS.items()}
    kept = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": "python benchmarks/million.py",
        "choices": CHOICES,
        "seconds": told,
        "peak_bytes": peak,
        "commands": commands,
    }
    given.json.write_text(json.dumps(kept, indent=1) + "\n")


def write_tables(
    folder: Path, first: Any, second: Any, prompts: Any, people: Any, won: Any, worth: Any
) -> None:
    """Write the choices as a data set: an image for each prompt and generator, with a score that follows its worth."""
    keys = np.stack([prompts * GENERATORS + first, prompts * GENERATORS + second], axis=1)
    images = np.unique(keys)
    names = pa.array([f"generator-{one:02d}" for one in range(GENERATORS)])
    asked = pa.array([f"prompt {one}" for one in range(PROMPTS)])
    count, text = len(images), pc.cast(pa.array(images), pa.string())
    shared = {"image": text, "prompt": asked.take(pa.array(images // GENERATORS))}
    put(
        folder,
        "images",
        IMAGES,
        count,
        shared | {"generator": names.take(pa.array(images % GENERATORS))},
    )
    values = worth[images % GENERATORS] + np.random.default_rng(1).normal(0, 1, count)
    put(folder, "scores", SCORES, count, shared | {"value": pa.array(values)})
    offsets = pa.array(np.arange(0, 2 * CHOICES + 1, 2), pa.int32())
    ranks = pa.array(np.stack([2 - won, 1 + won], axis=1).reshape(-1), pa.int16())
    shown = pc.cast(pa.array(keys.reshape(-1)), pa.string())
    columns = {
        "choice": pc.cast(pa.array(np.arange(CHOICES)), pa.string()),
        "prompt": asked.take(pa.array(prompts)),
        "images": pa.ListArray.from_arrays(offsets, shown),
        "ranks": pa.ListArray.from_arrays(offsets, ranks),
        "annotator": pc.cast(pa.array(people), pa.string()),
    }
    put(folder, "choices", CHOICES_TABLE, CHOICES, columns)


def put(folder: Path, name: str, schema: Any, count: int, columns: dict[str, Any]) -> None:
    """Write a table; texts that must be there and are not given are one word."""
    there = [
        columns[field.name].cast(field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        if field.nullable
        else pa.repeat(pa.scalar("simulated"), count)
        for field in schema
    ]
    write_table(pa.Table.from_arrays(there, schema=schema), folder / f"{name}.parquet")


def whole(line: list[str], folder: Path, times: int = 3) -> dict[str, Any]:
    """Run a command some times, each in a process of its own; give the median of its seconds, all of them, and its peak."""
    runs, peaks = [], []
    for _ in range(times):
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "palate", *(word.format(folder=folder) for word in line)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"palate {' '.join(line)} failed on {folder}")
        runs.append(time.perf_counter() - start)
        peaks.append(used.ru_maxrss * 1024)
    middle, peak = float(np.median(runs)), max(peaks)
    print(f"{'palate ' + ' '.join(line[:2]):46}{middle:8.2f} s {peak / 1e6:8.0f} MB")
    return {"seconds": middle, "runs": runs, "peak_bytes": peak}


if __name__ == "__main__":
    main()

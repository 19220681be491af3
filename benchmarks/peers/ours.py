"""Palate itself, through its public names; the driver times the command ``palate score`` as well."""

# ruff: noqa: D102 - measure.Contender says what each function does

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
from measure import Job, run
from PIL import Image

import palate
from palate.models.pixels import open_picture, ready
from palate.scoring.engine import choose_engine


class Ours:
    """``palate.load``, then ``palate.score_table``; the options are arguments of ``choose_engine``."""

    def __init__(self, job: Job) -> None:
        self.scorer: Any = palate.load(Path(job.weights) / job.model)
        engine = choose_engine(images=len(job.images), **job.options)
        self.scorer.use(engine)
        self.precision = engine.precision
        # pictures of the network's size leave next to nothing to prepare
        side = (self.scorer.eye.preparation.size,) * 2
        self.small = [Image.open(path).convert("RGB").resize(side) for path, _ in job.images]

    def prepare(self, images: Sequence[tuple[str, str]]) -> Any:
        how = self.scorer.eye.preparation
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda pair: ready(open_picture(Path(pair[0])), how), images))
        return [prompt for _, prompt in images]

    def forward(self, prepared: Any) -> None:
        self.scorer.score(self.small, prepared)

    def score(self, images: Sequence[tuple[str, str]]) -> list[float]:
        columns = {
            "image": [str(place) for place in range(len(images))],
            "path": [path for path, _ in images],
            "prompt": [prompt for _, prompt in images],
        }
        scores = palate.score_table(pa.table(columns), Path(), self.scorer)
        return [value / 100 for value in scores["value"].to_pylist()]


if __name__ == "__main__":
    run(Ours)

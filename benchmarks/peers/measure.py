"""Time one contender in a process of its own; the driver is benchmarks/scoring.py.

A contender is four functions. The process gets a job as JSON and prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

WARM_UP = 4


@dataclass(frozen=True)
class Job:
    """What to do: ``images`` are pairs of a path and a prompt, the images of a prompt together.

    ``weights`` is the folder with the weights of all formats, ``model`` ViT-L-14 or ViT-H-14, ``options`` those of
    the contender. ``rows`` names what is measured: prepare, forward, end_to_end; cold scores one image and no more.
    """

    model: str
    weights: str
    images: list[tuple[str, str]]
    rows: list[str]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoint(self) -> str:
        """The official format."""
        return os.path.join(self.weights, f"{self.model}.pt")  # noqa: PTH118 - strings for the packages

    @property
    def folder(self) -> str:
        """The format of transformers, with a standard preparation."""
        return os.path.join(self.weights, f"{self.model}-transformers")  # noqa: PTH118


class Contender(Protocol):
    """A way to score: the network is loaded by its construction."""

    def prepare(self, images: Sequence[tuple[str, str]]) -> Any:
        """Decode and prepare images as the contender does; give the batches that the network takes."""

    def forward(self, prepared: Any) -> None:
        """Put prepared batches through the network, with their prompts."""

    def score(self, images: Sequence[tuple[str, str]]) -> list[float]:
        """Go all the way from files to cosines, in their order."""


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Give the seconds that a call takes, and what it gives."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def run(make: Callable[[Job], Contender]) -> None:
    """Do the job that the first argument names, and print seconds for each row and the cosines."""
    raw = json.loads(sys.argv[1])
    job = Job(**{**raw, "images": [tuple(pair) for pair in raw["images"]]})
    load, contender = timed(lambda: make(job))
    told: dict[str, Any] = {"load": load, "precision": getattr(contender, "precision", "float32")}
    if "cold" in job.rows:
        told["cosines"] = contender.score(job.images[:1])
        print(json.dumps(told))
        return
    contender.score(job.images[:WARM_UP])
    if "prepare" in job.rows:
        told["prepare"], _ = timed(lambda: contender.prepare(job.images))
    if "forward" in job.rows:
        prepared = contender.prepare(job.images)
        told["forward"], _ = timed(lambda: contender.forward(prepared))
    if "end_to_end" in job.rows:
        told["end_to_end"], told["cosines"] = timed(lambda: contender.score(job.images))
    print(json.dumps(told))


def batches(images: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Cut a sequence into parts of ``size``."""
    return [images[start : start + size] for start in range(0, len(images), size)]

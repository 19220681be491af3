"""The official fixtures: each scorer loaded as a user would load it, with its cases."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from palate.models.pixels import open_picture
from palate.scoring.catalog import load
from palate.scoring.scorer import Scorer

HERE = Path(__file__).parent / "fixtures"
WORDS = HERE / "tokenizer" / "bpe_small.txt.gz"

# scorer -> what a user gives to `load`, the key of the official number, what one of it is in our unit,
# and the project's promise on the difference
OFFICIAL: dict[str, tuple[dict[str, Any], str, float, float]] = {
    "hps-v1": ({"weights": HERE / "hps_v1/hpc_tiny.pt", "tokenizer": WORDS}, "cosine", 100, 1e-4),
    "hps-v2": (
        {"weights": HERE / "hps_v2/hps_v2_tiny.pt", "tokenizer": WORDS},
        "cosine",
        100,
        1e-4,
    ),
    "pickscore": ({"weights": HERE / "pickscore"}, "score", 1, 1e-3),
    "image-reward": ({"weights": HERE / "image_reward/ImageReward_tiny.pt"}, "score", 1, 1e-3),
    "mps": (
        {"weights": HERE / "mps/MPS_tiny_checkpoint.pth", "tokenizer": HERE / "tokenizer"},
        "score",
        1,
        1e-3,
    ),
    "aesthetic": (
        {
            "weights": HERE / "aesthetic/aesthetic_mlp_tiny.pth",
            "clip": HERE / "hps_v1/hpc_tiny.pt",
            "tokenizer": WORDS,
        },
        "score",
        1,
        1e-3,
    ),
}
FOLDERS = {name: name.replace("-", "_") for name in OFFICIAL}


@dataclass(frozen=True)
class Official:
    """A scorer, the images and prompts of its cases, and the official numbers in its unit."""

    name: str
    scorer: Scorer
    images: list[Image.Image]
    prompts: list[str]
    numbers: NDArray[np.float64]
    promise: float


@cache
def picture(name: str) -> Image.Image:
    return open_picture(HERE / "images" / name)


def cases_of(name: str) -> list[dict[str, Any]]:
    """The cases of a scorer's default profile; MPS has some for other conditions and thresholds."""
    cases = json.loads((HERE / FOLDERS[name] / "cases.json").read_text("utf-8"))
    if name == "mps":
        overall = cases[0]["condition"]
        cases = [
            case for case in cases if case["condition"] == overall and case["mask_threshold"] == 0.3
        ]
    assert len(cases) >= 8
    return cases


@cache
def official_case(name: str) -> Official:
    given, key, scale, promise = OFFICIAL[name]
    cases = cases_of(name)
    return Official(
        name,
        load(name, **given),
        [picture(case["image"]) for case in cases],
        [case.get("prompt", "") for case in cases],
        np.array([scale * case[key] for case in cases]),
        scale * promise,
    )

"""Measure how far the fast engines drift from float32: the scores, and the order of a prompt's images.

Three kinds of networks are measured: the official formats with tiny random weights, on the images of
tests/parity/fixtures; the miniature's CLIP, which is trained, on fresh pictures of its world; and, with --clip,
a CLIP of your own (or of full size and random, as benchmarks/scoring.py makes them) on a folder of images.

python benchmarks/drift.py                                        # print the table
python benchmarks/drift.py --clip FOLDER --images DATASET --json benchmarks/drift-DATE.json
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from numpy.typing import NDArray
from PIL import Image

from palate.miniature.world import pictures, scenes_of
from palate.models.pixels import open_picture
from palate.scoring.catalog import load
from palate.scoring.engine import Engine
from palate.scoring.inputs import gather_images
from palate.scoring.scorer import NetworkScorer
from palate.scoring.units import cosine_scale

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "parity"))
from official import HERE, OFFICIAL, official_case  # noqa: E402

ENGINES = (
    Engine("float32", "openvino"),
    Engine("bfloat16", "torch"),
    Engine("bfloat16", "openvino"),
    Engine("int8", "openvino"),
)


@dataclass(frozen=True)
class Case:
    """A scorer, and images with prompts for it."""

    name: str
    what: str
    scorer: NetworkScorer
    images: Sequence[Image.Image]
    prompts: Sequence[str]


def official_cases() -> list[Case]:
    """Every official format on every image of the fixtures, each with the prompts of two others."""
    images = [open_picture(path) for path in sorted((HERE / "images").iterdir())]
    cases = []
    for name in OFFICIAL:
        found = official_case(name)
        prompts = list(dict.fromkeys(found.prompts))[:4]
        cases.append(
            Case(
                name,
                "tiny, random",
                found.scorer,
                images * len(prompts),
                [prompt for prompt in prompts for _ in images],
            )
        )
    return cases


def miniature_case(prompts: int = 400, each: int = 4) -> Case:
    """The trained CLIP of the simulated world on fresh pictures."""
    rng = np.random.default_rng(0)
    scenes = scenes_of(["evaluation"], rng)[:prompts]
    many = [scene for scene in scenes for _ in range(each)]
    drawn = [Image.fromarray(array) for array in pictures(many, rng)[0]]
    scorer = load("miniature")
    return Case("miniature", "trained", scorer, drawn, [scene.text for scene in many])


def given_case(clip: Path, folder: Path, what: str) -> Case:
    """A CLIP from a folder on the images of a folder."""
    rows = gather_images([folder]).images.to_pylist()
    images = [open_picture(Path(row["path"])) for row in rows]
    scorer = load(clip)
    return Case(scorer.name, what, scorer, images, [row["prompt"] for row in rows])


def pairs(prompts: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give all pairs of images of the same prompt."""
    names = np.unique(prompts, return_inverse=True)[1]
    first, second = np.triu_indices(len(prompts), 1)
    same = names[first] == names[second]
    return first[same], second[same]


def measure(case: Case) -> list[dict[str, Any]]:
    """Give one row per engine: the drift of scores and cosines, and the share of pairs in another order."""
    exact = case.scorer.judge(case.images, case.prompts).values
    first, second = pairs(case.prompts)
    order = np.sign(exact[first] - exact[second])
    unit = case.scorer.unit
    in_cosine = _cosine(case.scorer) if unit in {"hps", "logit", "cosine"} else None
    rows = []
    eye = case.scorer.eye
    for engine in ENGINES:
        case.scorer.use(engine)
        found = case.scorer.judge(case.images, case.prompts).values
        drift = np.abs(found - exact)
        changed = np.sign(found[first] - found[second]) != order
        rows.append(
            {
                "scorer": case.name,
                "weights": case.what,
                "unit": unit,
                "engine": f"{engine.precision} {engine.backend}",
                "largest": float(drift.max()),
                "mean": float(drift.mean()),
                "largest_cosine": None if in_cosine is None else float(drift.max() / in_cosine),
                "spread": float(np.mean(np.abs(exact[first] - exact[second]))),
                "pairs": len(first),
                "reordered": float(changed.mean()),
            }
        )
        print(_line(rows[-1]), flush=True)
    case.scorer.eye = eye
    return rows


def _cosine(scorer: NetworkScorer) -> float:
    """What a cosine of 1 is in the scorer's unit."""
    clip = scorer.clip if hasattr(scorer, "clip") else scorer.mps.clip
    return cosine_scale(scorer.unit, float(clip.model.logit_scale.exp()))[0]


def _line(row: dict[str, Any]) -> str:
    cosine = "" if row["largest_cosine"] is None else f"{row['largest_cosine']:.1e}"
    return (
        f"{row['scorer']:<14}{row['weights']:<14}{row['engine']:<20}{row['largest']:>9.1e} {row['unit']:<8}"
        f"{cosine:>9}{row['spread']:>9.1e}{100 * row['reordered']:>8.2f} % of {row['pairs']}"
    )


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--clip", type=Path, action="append", default=[], help="a folder with a CLIP"
    )
    parser.add_argument("--what", default="given", help="what the weights of --clip are")
    parser.add_argument("--images", type=Path, help="a folder of images with prompts, for --clip")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    cases = [*official_cases(), miniature_case()]
    cases += [given_case(clip, args.images, args.what) for clip in args.clip]
    print(f"{'':48}{'largest':>9} {'unit':<8}{'cosine':>9}{'spread':>9}{'reordered':>10}")
    rows = [row for case in cases for row in measure(case)]
    if args.json:
        content = {
            "command": "python benchmarks/drift.py --clip … --images … --json …",
            "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
            "machine": machine(),
            "rows": rows,
        }
        args.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()

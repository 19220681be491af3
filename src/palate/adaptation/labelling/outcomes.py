"""What became of every image, and the counts of it: the report of `label`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.adaptation.labelling.leaving_out import BLURRED, BLURRY, NO_SCORE, UNSAFE
from palate.adaptation.labelling.selection import Extreme, Groups, Ints
from palate.data.records import Label

PREFERRED: Final = "preferred"
REJECTED: Final = "rejected"
NOT_SCORED: Final = "not scored"
BEST: Final = "best, but not clearly"
WORST: Final = "worst, but not clearly"
NEITHER: Final = "neither best nor worst"
SHARES: Final = {role: f"left out by {role}_share" for role in (PREFERRED, REJECTED)}


@dataclass(frozen=True, slots=True)
class Kept:
    """A label, and how clearly it stood out: the softmax that was compared, among how many images."""

    label: Label
    confidence: float
    images: int


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What was chosen among the images, and what became of the others."""

    kept: list[Kept]
    """By prompt, the preferred image before the rejected one."""
    outcomes: Any
    """A table of image, prompt, score and outcome, one row for each image."""
    report: dict[str, Any]


def too_few(min_images: int) -> str:
    """The reason for the images of a prompt with fewer images than are compared."""
    return f"prompt with fewer than {min_images} images"


def group_outcomes(
    groups: Groups, best: Extreme, worst: Extreme, preferred: Ints, rejected: Ints
) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Say what became of each compared row. Only where all scores are equal are best and worst one."""
    found = np.full(len(groups.values), NEITHER, dtype=object)
    found[worst.rows] = WORST
    found[best.rows] = BEST
    found[worst.rows[worst.passed]] = SHARES[REJECTED]
    found[best.rows[best.passed]] = SHARES[PREFERRED]
    found[rejected] = REJECTED
    found[preferred] = PREFERRED
    return found


def outcome_table(images: Any, scores: Any, outcomes: Any) -> Any:
    """One row for each image of the table, by key: prompt, score if any, and what became of it."""
    place = pc.index_in(images["image"], value_set=scores["image"].combine_chunks())
    said = pa.chunked_array([pa.array(outcomes.tolist(), pa.string())])
    columns = {
        "image": images["image"],
        "prompt": images["prompt"],
        "score": scores["value"].take(place),
        "outcome": pc.fill_null(said.take(place), NOT_SCORED),
    }
    return pa.table(columns).sort_by("image")


def count_outcomes(table: Any, min_images: int) -> dict[str, Any]:
    """Count what became of the images; kept and thrown away make up all of them."""
    counts = Counter(table["outcome"].to_pylist())
    reasons = (
        *(NOT_SCORED, NO_SCORE, UNSAFE, BLURRED, BLURRY, too_few(min_images)),
        *(BEST, WORST, NEITHER, *SHARES.values()),
    )
    kept = {role: counts[role] for role in (PREFERRED, REJECTED)}
    thrown_away = {reason: counts[reason] for reason in reasons}
    assert sum(kept.values()) + sum(thrown_away.values()) == len(table), counts
    return {"images": len(table), "labels": kept, "thrown_away": thrown_away}


def describe(
    groups: Groups, best: Extreme, worst: Extreme, preferred: Ints, rejected: Ints
) -> dict[str, Any]:
    """Describe the prompts and the scores of what was compared and kept."""
    sizes = groups.sizes
    passes = {
        str(size): {
            "prompts": int((sizes == size).sum()),
            "best passes": round(float(best.passed[sizes == size].mean()), 4),
            "worst passes": round(float(worst.passed[sizes == size].mean()), 4),
        }
        for size in np.unique(sizes)
    }
    chosen = {"compared": groups.values, PREFERRED: groups.values[preferred]}
    chosen[REJECTED] = groups.values[rejected]
    return {
        "prompts": {
            "compared": len(sizes),
            "with both": int((best.passed & worst.passed).sum()),
            "with a preferred image only": int((best.passed & ~worst.passed).sum()),
            "with a rejected image only": int((~best.passed & worst.passed).sum()),
            "with neither": int((~best.passed & ~worst.passed).sum()),
        },
        "by_group_size": passes,
        "mean_score": {
            name: round(float(values.mean()), 6) if len(values) else None
            for name, values in chosen.items()
        },
    }

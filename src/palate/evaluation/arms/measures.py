"""What is measured of every arm: scores, what the pictures look like, and how much those of one prompt differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import PIL.Image
from jaxtyping import Float
from numpy.typing import NDArray

from palate.data.images import open_image
from palate.data.tables import image_path, read_table
from palate.errors import DataError
from palate.evaluation.covariates import FROM_FILES, file_covariates
from palate.evaluation.looks import NamedExtractor, eye_extractor, look_at
from palate.runs import hash_text, track
from palate.scoring.inputs import survey_table
from palate.scoring.score import ScoreSettings, score_images
from palate.scoring.scorer import Scorer
from palate.scoring.units import describe_unit

Array: TypeAlias = NDArray[Any]
Kind = Literal["labelling", "watching", "statistic", "diversity"]

STATISTICS: Final = ("saturation", "contrast", "brightness", "sharpness", "file size")
PIXELS, FEATURES = "diversity, pixels", "diversity, features"
SIDE: Final = 32
"""Pictures are compared with each other at so many pixels a side."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured of every image, or of the images of every prompt.

    Of scorers higher is better. Statistics of pictures have no better end, and less diversity is a loss.
    """

    name: str
    kind: Kind
    about: str
    """The unit of a scorer, or how a statistic is computed."""
    scorer: str | None = None
    dimension: str | None = None
    unit: str | None = None
    fingerprint: str | None = None

    @property
    def is_scorer(self) -> bool:
        """Whether it is a score."""
        return self.scorer is not None


@dataclass(frozen=True, slots=True)
class ArmImages:
    """The images of one arm, grouped by prompt: `rows[p][i]` is image i of prompt p, as in the table."""

    folder: Path
    table: Any
    prompts: tuple[str, ...]
    rows: tuple[tuple[Mapping[str, Any], ...], ...]

    def grouped(self, values: Mapping[str, float]) -> Float[Array, "prompts images"]:
        """Give the values of images by prompt and place."""
        return np.array([[values[row["image"]] for row in own] for own in self.rows])

    @property
    def seeds(self) -> tuple[tuple[int, ...], ...]:
        """Give the seed of every image."""
        return tuple(tuple(row["seed"] for row in own) for own in self.rows)


def read_arm(folder: Path) -> ArmImages:
    """Read the images of an arm that `generate` wrote.

    Raises:
        DataError: prompts with different numbers of images.
    """
    table = read_table(folder / "images.parquet", "images")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in table.select(["image", "prompt", "path", "seed"]).to_pylist():
        groups.setdefault(row["prompt"], []).append(row)
    counts = sorted({len(own) for own in groups.values()})
    if len(counts) != 1:
        raise DataError(f"{folder}: prompts have from {counts[0]} to {counts[-1]} images")
    return ArmImages(folder, table, tuple(groups), tuple(map(tuple, groups.values())))


def scorer_measures(judges: Sequence[Scorer]) -> dict[str, tuple[Measure, Scorer]]:
    """Name the scorers: the first one is that which labelled, the others watch."""
    plain = [
        judge.name if judge.dimension == "overall" else f"{judge.name} {judge.dimension}"
        for judge in judges
    ]
    found: dict[str, tuple[Measure, Scorer]] = {}
    for place, (judge, name) in enumerate(zip(judges, plain, strict=True)):
        if (judge.dimension, judge.fingerprint) in {
            (own.dimension, own.fingerprint) for own in judges[:place]
        }:
            raise DataError(f"the scorer {name} was given twice, expected another one to watch")
        unique = name if plain.count(name) == 1 else f"{name} ({judge.fingerprint[:6]})"
        measure = Measure(
            name=unique,
            kind="watching" if place else "labelling",
            about=describe_unit(judge.unit),
            scorer=judge.name,
            dimension=judge.dimension,
            unit=judge.unit,
            fingerprint=judge.fingerprint,
        )
        found[unique] = (measure, judge)
    return found


def watching_eye(judges: Sequence[Scorer]) -> NamedExtractor | None:
    """Choose through whose eye the diversity of features is seen: a watching scorer's rather than the labelling one's."""
    seeing = [judge for judge in (*judges[1:], *judges[:1]) if getattr(judge, "eye", None)]
    return eye_extractor(seeing[0]) if seeing else None


def picture_measures(each: int, eye: NamedExtractor | None) -> list[Measure]:
    """List what is measured beside the scores; of one image per prompt no diversity."""
    found = []
    if each > 1:
        about = f"mean difference of two images of a prompt at {SIDE} × {SIDE} pixels, from 0 to 1"
        found.append(Measure(PIXELS, "diversity", about))
    if each > 1 and eye is not None:
        about = f"1 - cosine of two images of a prompt, seen by {eye.name}; mean over pairs"
        found.append(Measure(FEATURES, "diversity", about))
    return [*found, *(Measure(name, "statistic", FROM_FILES[name]) for name in STATISTICS)]


def measure_arm(
    arm: ArmImages,
    scorers: Mapping[str, tuple[Measure, Scorer]],
    eye: NamedExtractor | None,
    keep: Path | None = None,
) -> dict[str, Float[Array, "prompts _"]]:
    """Measure an arm: one value per image (prompts × images), and of diversity one per prompt (prompts × 1).

    Scores lie beside the images and are not made again; features are kept in the folder `keep`.
    """
    found = {name: arm.grouped(_scores(arm, judge)) for name, (_, judge) in scorers.items()}
    seen = file_covariates(arm.table, arm.folder)
    if seen.unreadable:
        raise DataError(f"{arm.folder}: {seen.unreadable} images cannot be read: {seen.faults[0]}")
    keys = arm.table.column("image").to_pylist()
    for name in STATISTICS:
        found[name] = arm.grouped(dict(zip(keys, seen.columns[name].tolist(), strict=True)))
    if len(arm.rows[0]) > 1:
        found[PIXELS] = pixel_diversity(arm)
        if eye is not None:
            found[FEATURES] = feature_diversity(arm, eye, keep)
    return found


def _scores(arm: ArmImages, judge: Scorer) -> dict[str, float]:
    """Score the images of an arm, unless they are: the same judge's table lies beside them.

    The key of an image names all that decided it, so that a table with these keys is of these images, also where
    the folder was moved.
    """
    mark = hash_text(judge.name, judge.dimension, judge.fingerprint)[:8]
    path = arm.folder / "scores" / f"{re.sub(r'[^A-Za-z0-9.@-]+', '_', judge.name)}-{mark}.parquet"
    keys = arm.table.column("image").to_pylist()
    if path.exists():
        known = _read_scores(path)
        if known.keys() == set(keys) and None not in known.values():
            return known
    score_images(survey_table(arm.table, arm.folder), judge, path, ScoreSettings())
    return _read_scores(path)


def _read_scores(path: Path) -> dict[str, float]:
    table = read_table(path, "scores")
    keys, values = table.column("image").to_pylist(), table.column("value").to_pylist()
    return dict(zip(keys, values, strict=True))


def pixel_diversity(arm: ArmImages) -> Float[Array, "prompts 1"]:
    """Mean absolute difference of two images of a prompt, over pairs, channels and `SIDE` × `SIDE` pixels; 0 to 1."""
    found = []
    for own in track(arm.rows, "comparing images"):
        small = np.stack([_small(image_path(row, arm.folder)) for row in own])
        pairs = combinations(range(len(own)), 2)
        found.append(np.mean([np.abs(small[a] - small[b]).mean() for a, b in pairs]))
    return np.array(found)[:, None]


def _small(path: Path) -> Float[Array, "height width 3"]:
    picture = open_image(path).resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float64) / 255


def feature_diversity(
    arm: ArmImages, eye: NamedExtractor, keep: Path | None = None
) -> Float[Array, "prompts 1"]:
    """1 - cosine of what an eye sees of two images of a prompt, mean over pairs; 0 where all images are one."""
    seen = look_at(arm.table, arm.folder, eye, strict=True, keep=keep)
    features = np.asarray(seen.features, dtype=np.float64)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    place = {key: row for row, key in enumerate(seen.keys)}
    found = []
    for own in arm.rows:
        vectors = features[[place[row["image"]] for row in own]]
        # of n unit vectors the sum of all cosines is the squared length of their sum
        count = len(vectors)
        together = float(np.square(vectors.sum(axis=0)).sum() - np.square(vectors).sum())
        found.append(1 - together / (count * (count - 1)))
    return np.array(found)[:, None]

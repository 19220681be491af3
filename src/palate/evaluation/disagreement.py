"""The questions on which a scorer and people disagree most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One question: its images as shown, what people and what the scorer say.

    `votes` is how many people put each image first (a tie shares its vote), `scores` are the scorer's,
    higher is better. `gap` is how far the scorer's favourite is above the people's favourite, in the
    scorer's unit divided by the typical difference of two images of a prompt.
    """

    prompt: str
    dimension: str
    images: tuple[str, ...]
    votes: tuple[float, ...]
    scores: tuple[float, ...]
    people: int
    gap: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def disagreements(
    choices: Any, values: NDArray[np.float64], limit: int = 20, minimum_people: int = 1
) -> list[Disagreement]:
    """Return the questions with the largest gap, the largest first; one per prompt and dimension.

    `choices` is a table and `values` has a score for every image of every choice, flat. Questions about
    the same images are counted together, whatever the order shown.
    """
    lengths = list_lengths(choices.column("images"))
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy()
    owner = np.repeat(np.arange(len(lengths)), lengths)
    best = ranks == np.minimum.reduceat(ranks, starts)[owner]
    share = best / np.add.reduceat(best.astype(np.float64), starts)[owner]
    spread = _typical_difference(values, starts, owner)
    asked: dict[tuple[str, str, tuple[str, ...]], tuple[dict[str, float], dict[str, float], int]]
    asked = {}
    columns = (choices.column(name).to_pylist() for name in ("prompt", "dimension", "images"))
    for row, (prompt, dimension, images) in enumerate(zip(*columns, strict=True)):
        key = (prompt, dimension, tuple(sorted(images)))
        votes, scores, people = asked.setdefault(key, ({}, {}, 0))
        for place, image in enumerate(images):
            flat = starts[row] + place
            votes[image] = votes.get(image, 0.0) + float(share[flat])
            scores[image] = float(values[flat])
        asked[key] = (votes, scores, people + 1)
    found = [
        _disagreement(prompt, dimension, votes, scores, people, spread)
        for (prompt, dimension, _), (votes, scores, people) in asked.items()
        if people >= minimum_people
    ]
    found = [one for one in found if one.gap > 0]
    found.sort(key=lambda one: (-one.gap, one.prompt, one.images))
    chosen: dict[tuple[str, str], Disagreement] = {}
    for one in found:
        chosen.setdefault((one.prompt, one.dimension), one)
    return list(chosen.values())[:limit]


def _typical_difference(
    values: NDArray[np.float64], starts: NDArray[np.int64], owner: NDArray[np.int64]
) -> float:
    """Standard deviation within choices, times the square root of two; 1 where all are equal."""
    counts = np.bincount(owner)
    means = np.add.reduceat(values, starts) / counts
    inner = float(((values - means[owner]) ** 2).sum() / max(1, (counts - 1).sum()))
    return (2 * inner) ** 0.5 or 1.0


def _disagreement(
    prompt: str,
    dimension: str,
    votes: Mapping[str, float],
    scores: Mapping[str, float],
    people: int,
    spread: float,
) -> Disagreement:
    images = tuple(votes)
    # of several favourites of the people, the one that the scorer likes best
    most = max(votes.values())
    favourite = max(scores[image] for image in images if votes[image] == most)
    return Disagreement(
        prompt=prompt,
        dimension=dimension,
        images=images,
        votes=tuple(votes[image] for image in images),
        scores=tuple(scores[image] for image in images),
        people=people,
        gap=(max(scores.values()) - favourite) / spread,
    )

"""Simulated people who choose between pictures: with a taste each, noise, lapses and a habit of place.

They know the judge's aspects of each picture and weigh them each in their own way. Since their choices are drawn
from known probabilities, the best accuracy that any scorer can reach is known too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from palate.data.records import pick_ranks
from palate.miniature.judge import ASPECTS, WEIGHTS, judge
from palate.miniature.pictures import load_pictures
from palate.miniature.world import Array
from palate.runs import seed_for
from palate.study.design import Question

SHARPNESS = 2.05
LAPSES = 0.05
LAST_SLOT = 0.35
SPREAD = 0.35


@dataclass(frozen=True)
class People:
    """A panel: `weights` (people × aspects) and `sharpness` (people) of each, shared lapses and habit of place."""

    weights: Float[Array, "people aspects"]
    sharpness: Float[Array, "people"]
    lapses: float = LAPSES
    last_slot: float = LAST_SLOT

    @classmethod
    def drawn(cls, count: int, seed: int) -> People:
        """Draw a panel: weights and sharpness vary log-normally around the judge's."""
        chance = np.random.default_rng(seed_for("people", seed))
        weights = np.array(WEIGHTS) * np.exp(SPREAD * chance.standard_normal((count, len(ASPECTS))))
        return cls(weights, SHARPNESS * np.exp(0.25 * chance.standard_normal(count)))

    def probabilities(
        self, aspects: Float[Array, "groups images aspects"]
    ) -> Float[Array, "people groups images"]:
        """Each person's chance to pick each image of each group, averaged over which image stands last."""
        liking = self._liking(aspects)
        n = liking.shape[-1]
        chances = np.mean([self._pick(liking, last) for last in range(n)], axis=0)
        return np.asarray(chances)

    def last_place_accuracy(self, images: int = 4) -> float:
        """How often the last place is picked if the images differ in nothing: the habit alone."""
        same = self._liking(np.zeros((1, images, len(ASPECTS))))
        return float(self._pick(same, images - 1)[..., -1].mean())

    def _liking(
        self, aspects: Float[Array, "groups images aspects"]
    ) -> Float[Array, "people groups images"]:
        liking = np.einsum("pa,gia->pgi", self.weights, aspects)
        return np.asarray(self.sharpness[:, None, None] * liking)

    def _pick(self, liking: NDArray[np.float64], last: int) -> NDArray[np.float64]:
        liking = liking.copy()
        liking[..., last] += self.last_slot
        odds = np.exp(liking - liking.max(axis=-1, keepdims=True))
        chances = odds / odds.sum(axis=-1, keepdims=True)
        return np.asarray((1 - self.lapses) * chances + self.lapses / liking.shape[-1])

    def pick(self, person: int, aspects: Float[Array, "images aspects"], seed: int) -> int:
        """The position that one person picks, the images standing in the order given."""
        someone = People(
            self.weights[[person]], self.sharpness[[person]], self.lapses, self.last_slot
        )
        chances = someone._pick(someone._liking(aspects[None]), len(aspects) - 1)[0, 0]
        return int(
            np.searchsorted(
                np.cumsum(chances), np.random.default_rng(seed).random() * chances.sum()
            )
        )


class SimulatedPeople:
    """A panel of simulated people that answers a study (an `Answerer`)."""

    source = "simulated people"

    def __init__(self, images: Any, folder: Path, people: People, run: str) -> None:
        """Let `people` look at the images of a table; chance comes from the address (run, question)."""
        self.people, self.run = people, run
        self.pictures = load_pictures(images, folder)

    def name(self, question: Question) -> str:
        """Name a simulated person as such."""
        return f"simulated-{question.person:03d}"

    def answer(self, questions: Sequence[Question]) -> list[tuple[int, ...]]:
        """Pick one image of each question: it gets rank 1, the others 2."""
        shown = np.stack(
            [self.pictures[image] for question in questions for image in question.images]
        )
        prompts = [question.prompt for question in questions for _ in question.images]
        aspects, answers, start = judge(shown, prompts).aspects, [], 0
        for question in questions:
            count = len(question.images)
            seed = seed_for(self.run, question.question, question.person)
            best = self.people.pick(question.person, aspects[start : start + count], seed)
            answers.append(pick_ranks(count, best))
            start += count
        return answers


def expected_accuracy(
    scores: Float[Array, "groups images"], chances: Float[Array, "groups images"]
) -> Float[Array, "groups"]:
    """The chance, for each group, that a person picks the image with the highest score.

    Images that share the highest score share the chance. With `chances` themselves as scores this is the best
    that any scorer can reach.
    """
    best = scores == scores.max(axis=-1, keepdims=True)
    return np.asarray((chances * best).sum(axis=-1) / best.sum(axis=-1))

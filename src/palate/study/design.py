"""Which questions a study asks, of whom, and in which order the images stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.errors import DataError, SettingsError
from palate.runs import seed_for


@dataclass(frozen=True, slots=True)
class StudySettings:
    """How a study asks."""

    dimension: str = "overall"
    images_per_question: int = 4
    answers_per_question: int = 1
    people: int = 40
    run: str = "study"

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        for name in ("images_per_question", "answers_per_question", "people"):
            if getattr(self, name) < (2 if name == "images_per_question" else 1):
                raise SettingsError(f"study: {name} is {getattr(self, name)}, which is too few")
        if self.answers_per_question > self.people:
            raise SettingsError(
                f"study: {self.answers_per_question} answers to each question were asked for, but"
                f" there are {self.people} people and nobody answers twice"
            )


@dataclass(frozen=True, slots=True)
class Question:
    """Some images of one prompt, in the order in which one person is shown them."""

    question: str
    prompt: str
    images: tuple[str, ...]
    person: int
    dimension: str = "overall"


def design_questions(images: Any, settings: StudySettings) -> list[Question]:
    """Make the questions of a study from a table of images.

    The images of a prompt are cut into groups of `images_per_question` in the order of their keys;
    a rest of one image is not asked. Who answers and how the images stand comes from the address
    (run, prompt, group, answer), so that neither the order of the table nor other prompts matter.

    Args:
        images: a table of the kind `images`.
        settings: how to ask.

    Returns:
        Questions by prompt, group and answer.

    Raises:
        DataError: if no prompt has two images.
    """
    by_prompt: dict[str, list[str]] = {}
    for image, prompt in zip(
        images.column("image").to_pylist(), images.column("prompt").to_pylist(), strict=True
    ):
        by_prompt.setdefault(prompt, []).append(image)
    questions = []
    for prompt, keys in sorted(by_prompt.items()):
        for group, start in enumerate(range(0, len(keys), settings.images_per_question)):
            some = sorted(keys)[start : start + settings.images_per_question]
            if len(some) >= 2:
                questions += _asked(prompt, group, some, settings)
    if not questions:
        raise DataError(
            f"no prompt has two images to choose between: {len(images)} images of"
            f" {len(by_prompt)} prompts"
        )
    return questions


def _asked(prompt: str, group: int, keys: list[str], settings: StudySettings) -> list[Question]:
    """One question for each person who is to answer about this group."""
    chance = np.random.default_rng(seed_for(settings.run, prompt, group))
    people = chance.choice(settings.people, settings.answers_per_question, replace=False)
    asked = []
    for answer, person in enumerate(people):
        order = np.random.default_rng(seed_for(settings.run, prompt, group, answer)).permutation(
            len(keys)
        )
        name = f"{seed_for(settings.run, prompt, group, answer, 'name'):016x}"
        shown = tuple(keys[i] for i in order)
        asked.append(Question(name, prompt, shown, int(person), settings.dimension))
    return asked

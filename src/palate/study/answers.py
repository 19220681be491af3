"""Collect answers into the table of choices, one atomic row for each answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from palate.data.records import Choice
from palate.data.tables import to_table
from palate.errors import DataError
from palate.runs import track
from palate.study.design import Question

BATCH = 256


@runtime_checkable
class Answerer(Protocol):
    """Somebody who answers: a panel behind a web page, or simulated people."""

    source: str

    def answer(self, questions: Sequence[Question]) -> list[tuple[int, ...]]:
        """Give the ranks (1 is best) of each question's images, in the order shown."""
        ...

    def name(self, question: Question) -> str:
        """Name the person who answers this question."""
        ...


def collect_answers(questions: Sequence[Question], answerer: Answerer, notes: Path) -> Any:
    """Ask every question that has no answer yet, and return all answers as a table of choices.

    Each answer is written to `notes` (JSON Lines) as it comes, so that an interrupted study goes on
    where it stopped; half a last line, as a kill leaves it, is asked again.

    Args:
        questions: what to ask.
        answerer: who answers.
        notes: the file of answers so far; made if it is missing.

    Returns:
        A table of the kind `choices`, in the order of the questions.

    Raises:
        DataError: if the notes hold an answer to a question that was not asked.
    """
    known = _read_notes(notes)
    names = {question.question for question in questions}
    if strange := sorted(set(known) - names):
        raise DataError(
            f"{notes}: holds an answer to '{strange[0]}', which this study does not ask"
        )
    left = iter(track([q for q in questions if q.question not in known], "asking people"))
    notes.parent.mkdir(parents=True, exist_ok=True)
    with notes.open("a", encoding="utf-8") as file:
        while batch := list(islice(left, BATCH)):
            for question, ranks in zip(batch, answerer.answer(batch), strict=True):
                known[question.question] = ranks
                file.write(json.dumps({"question": question.question, "ranks": ranks}) + "\n")
            file.flush()
    rows = (
        Choice(
            choice=question.question,
            prompt=question.prompt,
            images=question.images,
            ranks=tuple(known[question.question]),
            dimension=question.dimension,
            annotator=answerer.name(question),
            source=answerer.source,
        )
        for question in questions
    )
    return to_table(rows, Choice)


def _read_notes(notes: Path) -> dict[str, tuple[int, ...]]:
    """Read the answers so far, and cut off half a line that a kill left at the end."""
    if not notes.exists():
        return {}
    text = notes.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        with notes.open("r+b") as file:
            file.truncate(len(whole))
    answers = {}
    for number, line in enumerate(whole.decode().splitlines(), 1):
        try:
            note = json.loads(line)
            answers[str(note["question"])] = tuple(int(rank) for rank in note["ranks"])
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{notes}, line {number}: not an answer: {line[:60]!r}") from None
    return answers

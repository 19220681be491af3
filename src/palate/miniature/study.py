"""Let simulated people answer a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palate.data.tables import load_dataset, relocate_images, save_dataset
from palate.miniature.people import People, SimulatedPeople
from palate.runs import start_run
from palate.study.answers import collect_answers
from palate.study.design import StudySettings, design_questions


def simulated_study(
    dataset: Path,
    out: Path,
    settings: StudySettings,
    *,
    panel: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Ask a panel of simulated people about the images of a data set.

    Args:
        dataset: a data-set folder whose images belong to the simulated world.
        out: becomes a data set: the choices, and the table of the images they name.
        settings: how to ask.
        panel: the address of the panel; another number gives other people.
        overwrite: replace an older run in `out`.

    Returns:
        Counts: choices, prompts, people, and how often each place was picked.

    Raises:
        DataError: if a prompt is not of the simulated world, or no prompt has two images.
        RunError: if `out` holds another run.
    """
    inputs: dict[str, Path | str] = {"images": dataset / "images.parquet", "panel": str(panel)}
    with start_run("study", out, settings, inputs, overwrite=overwrite) as run:
        if run.finished:
            return dict(run.result)
        images = load_dataset(dataset).images
        questions = design_questions(images, settings)
        people = People.drawn(settings.people, panel)
        answerer = SimulatedPeople(images, dataset, people, settings.run)
        choices = collect_answers(questions, answerer, out / "answers.jsonl")
        save_dataset(out, relocate_images(images, dataset, out), choices)
        ranks = choices.column("ranks").to_pylist()
        longest = max(map(len, ranks))
        slots = [sum(len(r) > i and r[i] == 1 for r in ranks) for i in range(longest)]
        run.finish(
            {
                "choices": len(choices),
                "prompts": len({question.prompt for question in questions}),
                "people": len(set(choices.column("annotator").to_pylist())),
                "picked_by_place": slots,
            }
        )
        return dict(run.result)

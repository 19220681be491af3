"""`palate study`: ask people which image they prefer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer


def study(  # noqa: PLR0917 - typer makes options of them
    dataset: Annotated[Path, typer.Argument(help="Folder of a data set with images to ask about.")],
    out: Annotated[Path, typer.Option(help="Folder for the choices; it becomes a data set.")],
    people: Annotated[
        Literal["simulated"],
        typer.Option(help="Who answers. 'simulated': the people of the miniature world."),
    ] = "simulated",
    panel: Annotated[int, typer.Option(help="Which panel of simulated people answers.")] = 0,
    size: Annotated[int, typer.Option(help="How many people the panel has.")] = 40,
    images: Annotated[int, typer.Option(help="Images per question.")] = 4,
    answers: Annotated[int, typer.Option(help="Answers to each question.")] = 1,
    run: Annotated[str, typer.Option(help="Name of the study; chance depends on it.")] = "study",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Ask people which image of a prompt they prefer, and write their choices.

    So far the people are the simulated ones of the miniature world, who can judge its prompts and
    32-pixel pictures only. Interrupted, the same command goes on where it stopped.

    Example: palate study runs/images --people simulated --out runs/choices
    """
    from palate.miniature.study import simulated_study
    from palate.study.design import StudySettings

    assert people == "simulated"
    settings = StudySettings(
        images_per_question=images, answers_per_question=answers, people=size, run=run
    )
    result = simulated_study(dataset, out, settings, panel=panel, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        typer.echo(
            f"{result['choices']} choices of {result['people']} simulated people"
            f" on {result['prompts']} prompts: {out}"
        )

"""`palate stats plan`: how many prompts, people and votes a comparison needs."""

from __future__ import annotations

from typing import Annotated

import typer

from palate.cli._options import JsonOption
from palate.cli._results import OutOption, OverwriteOption, refuse_other_file, tell
from palate.cli._text import percent, plural

_COMMAND = "stats plan"


def plan(  # noqa: PLR0917 - typer makes options of them
    win_rate: Annotated[float, typer.Option(help="Win rate worth finding, ties half.")] = 0.6,
    votes_per_prompt: Annotated[int, typer.Option(help="Votes on each prompt.")] = 3,
    people: Annotated[int | None, typer.Option(help="People who vote; many if not given.")] = None,
    prompts: Annotated[
        int | None, typer.Option(help="Prompts; the smallest number that suffices if not given.")
    ] = None,
    tie_share: Annotated[float, typer.Option(help="Share of ties.")] = 0.0,
    icc: Annotated[
        float, typer.Option(help="Share of the variance of a vote that its prompt explains.")
    ] = 0.2,
    rater_sd: Annotated[float, typer.Option(help="How far people differ, in logits.")] = 0.5,
    spam_share: Annotated[float, typer.Option(help="Share of people who toss a coin.")] = 0.0,
    power: Annotated[
        float | None,
        typer.Option(help="Chance to find the better one, where prompts are sought [0.8]."),
    ] = None,
    level: Annotated[float, typer.Option(help="Level of the study's interval.")] = 0.95,
    runs: Annotated[int, typer.Option(help="Simulated studies.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say how many prompts a comparison of two generators needs, by simulating the study.

    With --prompts it says the power of a study of that size. What would run for hours is refused.

    Example: palate stats plan --win-rate 0.6 --votes-per-prompt 3 --people 30
    """
    from palate.cli._results import refuse_options
    from palate.stats.planning.power import PlanSettings
    from palate.stats.planning.power import plan as simulate
    from palate.stats.planning.simulated import Truth

    if prompts is not None:
        why = {"--power": "the power is what is found"}
        refuse_options("--prompts", {"--power": power}, why)
    refuse_other_file(out, _COMMAND, overwrite=overwrite)
    truth = Truth(win_rate, tie_share, icc=icc, rater_sd=rater_sd, spam_share=spam_share)
    found = simulate(
        truth,
        votes_per_prompt=votes_per_prompt,
        people=people,
        prompts=prompts,
        settings=PlanSettings(
            power=0.8 if power is None else power, level=level, runs=runs, seed=seed
        ),
    )

    def text() -> str:
        design = found.design
        voters = "every vote another person's" if people is None else f"{people:,} people"
        lines = [
            (
                f"{plural(design.prompts, 'prompt')} × {plural(votes_per_prompt, 'vote')} = "
                f"{plural(design.votes, 'vote')}, {voters}: a win rate of {100 * win_rate:g} % is found in "
                f"{percent(found.power, found.low, found.high)} of {runs:,} simulated studies"
            )
        ]
        lines.append(
            f"supposed: {100 * tie_share:g} % ties, icc {icc:g}, people differ by {rater_sd:g} logits, "
            f"{100 * spam_share:g} % toss a coin; plan for more than one such guess"
        )
        return "\n".join(lines)

    tell(_COMMAND, found.to_dict(), text, out, as_json=as_json)

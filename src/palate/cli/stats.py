"""`palate stats`: what choices say, how sure that is, and how many a study needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

from palate.cli._options import (
    ArchitectureOption,
    ClipOption,
    DataArgument,
    DeviceOption,
    DimensionOption,
    JsonOption,
    TokenizerOption,
    WeightsOption,
    scores_path,
)
from palate.cli._text import percent, plural, text_table
from palate.cli.measuring import correlation, distribution

stats_app = typer.Typer(
    help="Agreement, rankings, calibration, bias and sample sizes.",
    no_args_is_help=True,
    epilog="Example: palate stats agreement data/study",
)

ScoresOption: TypeAlias = Annotated[
    Path, typer.Option("--scores", help="Scores of its images: a table or the run of `score`.")
]
OutOption: TypeAlias = Annotated[
    Path | None, typer.Option("--out", help="JSON file for the result; tables go to stdout.")
]


def _choices(path: Path) -> tuple[Any, Any, Path]:
    """Choices, images and the folder of a data set."""
    from palate.data.tables import load_dataset, read_table

    if path.suffix == ".parquet":
        return read_table(path, "choices"), None, path.parent
    found = load_dataset(path)
    return found.choices, found.images, path


def _tell(facts: Any, text: Callable[[], str], out: Path | None, as_json: bool) -> None:
    from palate.runs import write_atomic

    if out is not None:
        write_atomic(out, json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n")
    typer.echo(json.dumps(facts, ensure_ascii=False, default=str) if as_json else text())


@stats_app.command("agreement")
def agreement(
    dataset: DataArgument,
    dimension: DimensionOption = None,
    resamples: Annotated[int, typer.Option(help="Resamples for intervals.")] = 500,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how far people agree with each other, and what a scorer can reach at best.

    Percent agreement, Fleiss' kappa, Gwet's AC1 and Krippendorff's alpha over questions that several
    people answered; the human ceilings; and the annotators who agree least.

    Example: palate stats agreement data/study --dimension overall
    """
    from palate.stats.agreements.annotators import annotator_agreement
    from palate.stats.agreements.answers import best_answers, pair_answers
    from palate.stats.agreements.ceiling import human_ceilings
    from palate.stats.agreements.coefficients import (
        fleiss_kappa,
        gwet_ac1,
        krippendorff_alpha,
        percent_agreement,
    )
    from palate.stats.intervals import Bootstrap

    choices, _, _ = _choices(dataset)
    bootstrap = Bootstrap(resamples=resamples)
    rows: list[list[str]] = []
    facts: dict[str, Any] = {}
    for name, found in (
        ("order of two images", pair_answers(choices, dimension=dimension).without_ties()),
        ("best image", best_answers(choices, dimension=dimension)),
    ):
        columns = (found.items, found.values, found.raters)
        for measure in (percent_agreement, fleiss_kappa, gwet_ac1, krippendorff_alpha):
            its = measure(*columns, clusters=found.prompts, bootstrap=bootstrap)
            facts[f"{name}, {its.measure}"] = its.to_dict()
            bounds = f"{its.low:.3f} to {its.high:.3f}"
            rows.append([name, its.measure, f"{its.value:.3f}", bounds, f"{its.items:,}"])
    pairs = pair_answers(choices, dimension=dimension)
    ceilings = human_ceilings(pairs, bootstrap=bootstrap)
    facts["ceilings"] = ceilings.to_dict()
    people = None
    if pairs.people:
        used = pairs.without_ties()
        people = annotator_agreement(used.items, used.values, used.raters, used.prompts)
        facts["annotators"] = people.to_dict()
        facts["names"] = list(used.people)

    def text() -> str:
        header = ["question", "measure", "value", "95% interval", "items"]
        parts = [text_table(header, rows, right="4"), "", _ceilings(ceilings)]
        if people is not None:
            worst = [
                [used.people[int(one.name)], percent(one.agreement, one.low, one.high)]
                for one in people.people[:5]
            ]
            header = ["annotators who agree least", "with the majority of the others"]
            parts += ["", text_table(header, worst)]
        return "\n".join(parts)

    _tell(facts, text, out, as_json)


def _ceilings(found: Any) -> str:
    rows = []
    for name, one in (
        ("one person and one other", found.pair),
        ("one person and the majority of the others", found.rest),
        ("one person and the majority of all", found.majority),
    ):
        its = one.to_dict()
        rows.append([name, percent(its["value"], _number(its["low"]), _number(its["high"]))])
    return text_table(["human ceiling, order of two images", "agree"], rows)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


@stats_app.command("rank")
def rank(
    dataset: DataArgument,
    by: Annotated[
        Literal["generator", "image"], typer.Option(help="What is ranked.")
    ] = "generator",
    dimension: DimensionOption = None,
    ties: Annotated[
        Literal["half", "drop", "davidson", "rao-kupper"],
        typer.Option(help="What a tie means: half a win, nothing, or a parameter of its own."),
    ] = "davidson",
    prior: Annotated[
        float, typer.Option(help="Pseudo-ties per item, for sets without a finite ranking.")
    ] = 0.0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank generators by choices between their images (Bradley–Terry), and say what is certain.

    An order is printed only where intervals that hold for all pairs at once say so. Errors are clustered
    by prompt and person.

    Example: palate stats rank data/study --dimension overall
    """
    from palate.stats.rankings.expected_wins import expected_wins
    from palate.stats.rankings.separation import separate

    choices, images, _ = _choices(dataset)
    found = _fitted(dataset, choices, images if by == "generator" else None, dimension, ties, prior)
    apart, wins = separate(found), expected_wins(found)
    facts = {**found.to_dict(), "separation": apart.to_dict(), "expected_wins": wins.to_dict()}

    def text() -> str:
        rows = []
        # items with the same interval of ranks stand by name: no order is claimed
        places = range(len(found.items))
        for at in sorted(
            places, key=lambda k: (apart.rank_low[k], apart.rank_high[k], str(found.items[k]))
        ):
            ranks = sorted({int(apart.rank_low[at]), int(apart.rank_high[at])})
            rows.append(
                [
                    str(found.items[at]),
                    f"{found.strengths[at]:+.3f}",
                    f"{found.low[at]:+.3f} to {found.high[at]:+.3f}",
                    " to ".join(map(str, ranks)),
                    percent(float(wins.average[at]), float(wins.low[at]), float(wins.high[at])),
                ]
            )
        header = [by, "strength", "95% interval", "rank", "expected win rate"]
        return "\n".join(
            [
                text_table(header, rows),
                "",
                apart.sentence(),
                f"{found.model}, {plural(found.n_duels, 'duel')}; {found.method.removeprefix(found.model + ', ')}",
            ]
        )

    _tell(facts, text, out, as_json)


def _fitted(
    dataset: Path, choices: Any, images: Any, dimension: str | None, ties: Any, prior: float
) -> Any:
    """Fit strengths of images, or of their generators where a table of images is given."""
    import numpy as np
    import pyarrow.compute as pc

    from palate.data.duels import duels
    from palate.errors import DataError
    from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry

    if dimension is not None:
        choices = choices.filter(pc.equal(choices.column("dimension"), dimension))
    if not len(choices):
        raise DataError(f"{dataset}: has no choices on {dimension!r}")
    pairs = duels(choices)
    first, second = (column.to_pylist() for column in (pairs.first_image, pairs.second_image))
    if images is not None:
        rows = zip(
            *(images.column(name).to_pylist() for name in ("image", "generator")), strict=True
        )
        names = dict(rows)
        first, second = (
            [names.get(key) or "unknown" for key in column] for column in (first, second)
        )
    kept = np.array([a != b for a, b in zip(first, second, strict=True)])
    if not kept.any():
        raise DataError(f"{dataset}: no choice has images of two of what is ranked")
    left, right = (np.asarray(column, dtype=object)[kept] for column in (first, second))
    prompts, people = (
        np.asarray(choices.column(name).to_pylist(), dtype=object)[pairs.choice][kept]
        for name in ("prompt", "annotator")
    )
    return bradley_terry(
        left,
        right,
        pairs.outcome[kept],
        prompts=prompts,
        people=people,
        settings=DuelSettings(ties=ties, prior=prior),
    )


@stats_app.command("plan")
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
    power: Annotated[float, typer.Option(help="Chance to find the better one.")] = 0.8,
    runs: Annotated[int, typer.Option(help="Simulated studies.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how many prompts a comparison of two generators needs, by simulating the study.

    Example: palate stats plan --win-rate 0.6 --votes-per-prompt 3 --people 30
    """
    from palate.stats.planning.power import PlanSettings
    from palate.stats.planning.power import plan as simulate
    from palate.stats.planning.simulated import Truth

    truth = Truth(win_rate, tie_share, icc=icc, rater_sd=rater_sd, spam_share=spam_share)
    found = simulate(
        truth,
        votes_per_prompt=votes_per_prompt,
        people=people,
        prompts=prompts,
        settings=PlanSettings(power=power, runs=runs, seed=seed),
    )

    def text() -> str:
        design = found.design
        return (
            f"{plural(design.prompts, 'prompt')} × {votes_per_prompt} votes = "
            f"{plural(design.votes, 'vote')}: a win rate of {win_rate:.0%} is found in "
            f"{percent(found.power, found.low, found.high)} of {runs:,} simulated studies"
        )

    _tell(found.to_dict(), text, out, as_json)


@stats_app.command("calibrate")
def calibrate(
    dataset: DataArgument,
    scores: ScoresOption,
    scorer: Annotated[str | None, typer.Option(help="Which scorer, if there are several.")] = None,
    rule: Annotated[
        Literal["first", "pairs"], typer.Option(help="What is predicted: the best image, or duels.")
    ] = "first",
    dimension: DimensionOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the scale that turns scores into probabilities, and judge it on prompts it was not fitted on.

    Example: palate stats calibrate data/hpd --scores hps.parquet
    """
    import numpy as np
    import pyarrow.compute as pc

    from palate.data.checks import list_lengths
    from palate.data.tables import read_table
    from palate.evaluation.joins import one_scorer, prompt_codes, scored_choices, values_of_choices
    from palate.scoring.units import softmax_factor
    from palate.stats.calibrations.calibration import (
        CalibrationSettings,
        calibrate_choices,
        calibration_table,
    )

    choices, _, _ = _choices(dataset)
    if dimension is not None:
        choices = choices.filter(pc.equal(choices.column("dimension"), dimension))
    table = one_scorer(read_table(scores_path(scores), "scores"), scorer)
    values = values_of_choices(choices, table)
    scored_choices(choices, values, table, "fail")
    offsets = np.concatenate([[0], np.cumsum(list_lengths(choices.column("images")))])
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy()
    before = softmax_factor(table.column("unit")[0].as_py()) or 1.0
    settings = CalibrationSettings(rule=rule, before=before)
    found = calibrate_choices(values, ranks, offsets, prompt_codes(choices), settings)
    _tell(found.to_dict(), lambda: calibration_table(found), out, as_json)


@stats_app.command("bias")
def bias(
    dataset: DataArgument,
    scores: ScoresOption,
    scorer: Annotated[str | None, typer.Option(help="Which scorer, if there are several.")] = None,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Do not open images: sizes and prompts only.")
    ] = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what a scorer goes by beyond people's preference: size, brightness, position, prompt length.

    Example: palate stats bias data/study --scores hps.parquet
    """
    from palate.data.tables import read_table
    from palate.evaluation.bias import BiasSettings, audit_bias, bias_table

    choices, images, folder = _choices(dataset)
    table = read_table(scores_path(scores), "scores")
    settings = BiasSettings(scorer=scorer, files=not no_files)
    found = audit_bias(choices, table, images, folder, settings)
    _tell(found.to_dict(), lambda: bias_table(found), out, as_json)


@stats_app.command("probe")
def probe(  # noqa: PLR0917 - typer makes options of them
    dataset: Annotated[Path, typer.Argument(help="Folder of a data set with image files.")],
    scorer: Annotated[str, typer.Option(help="A scorer's name, or its folder.")],
    prompts: Annotated[int, typer.Option(help="So many prompts are tried, all their images.")] = 50,
    weights: WeightsOption = None,
    tokenizer: TokenizerOption = None,
    architecture: ArchitectureOption = None,
    clip: ClipOption = None,
    device: DeviceOption = "cpu",
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try what can fool a scorer: more contrast, borders, JPEG, text in the image, praise in the prompt.

    Example: palate stats probe data/study --scorer hps-v2.1 --weights HPS_v2.1_compressed.pt
    """
    from palate.data.records import Image
    from palate.data.tables import image_path, load_dataset, to_rows
    from palate.errors import DataError
    from palate.evaluation.probes import probe_scorer, probe_table
    from palate.scoring.catalog import load

    found = load_dataset(dataset)
    chosen: dict[str, list[Image]] = {}
    for row in to_rows(found.images, Image):
        if row.path is not None and (row.prompt in chosen or len(chosen) < prompts):
            chosen.setdefault(row.prompt, []).append(row)
    rows = [row for own in chosen.values() for row in own]
    if not rows:
        raise DataError(f"{dataset}: has no image files")
    judge = load(
        scorer, weights, tokenizer=tokenizer, architecture=architecture, clip=clip, device=device
    )
    files = [image_path(row, dataset) for row in rows]
    report = probe_scorer(judge, files, [row.prompt for row in rows])
    _tell(report.to_dict(), lambda: probe_table(report), out, as_json)


stats_app.command("correlation")(correlation)
stats_app.command("distribution")(distribution)

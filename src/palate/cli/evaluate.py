"""`palate evaluate`: measure a scorer, or compare two generators."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from palate.cli._board import board as _board
from palate.cli._options import scores_path
from palate.cli._results import about, named, refuse_options
from palate.cli._startup import keep_pages, spare_pandas
from palate.cli._text import percent, plural, text_table

if TYPE_CHECKING:
    from palate.evaluation.compare import Comparison
    from palate.evaluation.evaluate import Agreement, Evaluation

Missing = Literal["fail", "leave-out"]


def evaluate(  # noqa: PLR0917 - typer makes options of them
    dataset: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of data sets with choices, or choices.parquet."),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="Scores of their images: a table or the run of `score`; several times."),
    ] = None,
    board: Annotated[
        bool,
        typer.Option(
            "--board", help="Scorers × data sets under published protocols, and a page with --out."
        ),
    ] = False,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Benchmark of a board: hpd-v1, hpd-v2, image-reward, pick-a-pic, pick-a-pic-v2, mhp, agiqa-3k, "
            "choices [by the source of the choices], or hps-v2-bench for generators."
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two tables of scores, of two generators on the same prompts."),
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="Which scorer, if there are several.")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="One result per dimension, source or size (number of images) as well; on a board also "
            "by a fact in the details, such as category."
        ),
    ] = None,
    ties: Annotated[
        Literal["expected", "wrong", "first"] | None,
        typer.Option(help="Equal highest scores: a fair draw, wrong, or the first [expected]."),
    ] = None,
    human_ties: Annotated[
        Literal["any", "drop"] | None,
        typer.Option(help="Several images put first: any is right, or leave out [any]."),
    ] = None,
    pair_ties: Annotated[
        Literal["half", "wrong", "right"] | None,
        typer.Option(help="Equal scores of a pair: half right, wrong, or right [half]."),
    ] = None,
    average: Annotated[
        Literal["micro", "macro"] | None,
        typer.Option(help="Over choices, or over prompts first [micro]."),
    ] = None,
    pair: Annotated[
        Literal["prompt", "order", "image"] | None,
        typer.Option(help="Compare means of prompts, k-th images, or equal keys [prompt]."),
    ] = None,
    dimension: Annotated[
        str | None, typer.Option(help="Dimension of the scores to compare, if several.")
    ] = None,
    missing: Annotated[
        Missing | None,
        typer.Option(help="Choices or prompts without a score: refuse, or leave out [fail]."),
    ] = None,
    resamples: Annotated[int | None, typer.Option(help="Resamples for intervals [2000].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the intervals [0].")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file with a table [evaluate], [compare] or [board].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json and the run record.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure how often a scorer agrees with people, or compare two generators by their scores.

    Every accuracy stands next to chance and to picking by position, with a 95 % interval that holds for
    other prompts, and for other people where annotators are known. Two tables of scores are compared prompt by prompt. Several data sets or tables of
    scores, or --board, give one table of scorers × benchmarks under the papers' own protocols, with the
    published values beside the measured ones and the differences between scorers, what people reach
    themselves, Recall@k and Filter@k, and correlations with mean opinions.

    Example: palate evaluate data/hpd --scores runs/scores/scores.parquet --by dimension

    Example: palate evaluate data/image-reward --board --scores hps.parquet --scores ir.parquet --out board

    Example: palate evaluate --compare original/scores.parquet adapted/scores.parquet
    """
    common: dict[str, Any] = {"missing": missing, "resamples": resamples, "seed": seed}
    of_one = {"scorer": scorer, "ties": ties, "human_ties": human_ties}
    of_one |= {"pair_ties": pair_ties, "average": average}
    of_two = {"pair": pair, "dimension": dimension}
    of_board = {"board": board, "benchmark": benchmark}
    if compare is not None:
        if dataset or scores:
            raise typer.BadParameter(
                "takes two tables of scores and nothing else", param_hint="--compare"
            )
        refuse_options("--compare", named(of_one | of_board | {"by": by}))
        _compare(compare, common | of_two, recipe, out, overwrite=overwrite, as_json=as_json)
        return
    if not dataset or not scores:
        raise typer.BadParameter(
            "give a data set and --scores, or --compare with two tables of scores"
        )
    if board or benchmark is not None or len(dataset) > 1 or len(scores) > 1:
        of_choices = {"missing": missing, "by": by, "recipe": recipe}
        _refuse_on_board(of_one | of_two, of_choices, benchmark)
        given = common | {"benchmark": benchmark, "by": by}
        _board(dataset, scores, given, recipe, out, overwrite=overwrite, as_json=as_json)
        return
    refuse_options(
        "one scorer on one data set", named(of_two), {"--pair": "it goes with --compare"}
    )
    given = common | of_one | {"by": by}
    _evaluate(dataset[0], scores[0], given, recipe, out, overwrite=overwrite, as_json=as_json)


def _refuse_on_board(
    alone: dict[str, Any], of_choices: dict[str, Any], benchmark: str | None
) -> None:
    """Refuse what a board does not read: its protocols fix the rules for ties and averages."""
    rules = ("--ties", "--human-ties", "--pair-ties", "--average")
    reasons = dict.fromkeys(rules, "the protocols of its benchmarks fix these rules")
    refuse_options("a board", named(alone), reasons)
    if benchmark == "hps-v2-bench":
        refuse_options("--benchmark hps-v2-bench", named(of_choices))


def _evaluate(
    dataset: Path,
    scores: Path,
    given: dict[str, Any],
    recipe: Path | None,
    out: Path | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    from palate.data.tables import load_dataset, read_table
    from palate.evaluation.evaluate import EvaluateSettings, evaluate_choices
    from palate.evaluation.joins import one_scorer
    from palate.settings import read_settings

    settings = read_settings(EvaluateSettings, recipe, given, section="evaluate")
    is_table, path = dataset.suffix == ".parquet", scores_path(scores)
    spare_pandas()
    keep_pages()
    # both at a time, on two processors; what is wrong with the choices is said first
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(read_table, path, "scores")
        choices = read_table(dataset, "choices") if is_table else load_dataset(dataset).choices
    with about(path):
        table = one_scorer(opened.result(), settings.scorer)
    with about(dataset):
        found = evaluate_choices(choices, table, settings)
    inputs = {"choices": dataset if is_table else dataset / "choices.parquet", "scores": path}
    _finish(found, "evaluate", settings, inputs, out, overwrite=overwrite)
    typer.echo(json.dumps(found.to_dict()) if as_json else _evaluation_text(found))


def _compare(
    tables: tuple[Path, Path],
    given: dict[str, Any],
    recipe: Path | None,
    out: Path | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    from palate.data.tables import read_table
    from palate.evaluation.evaluate import CompareSettings, compare_scores
    from palate.settings import read_settings

    settings = read_settings(CompareSettings, recipe, given, section="compare")
    first, second = (scores_path(table) for table in tables)
    found = compare_scores(read_table(first, "scores"), read_table(second, "scores"), settings)
    inputs = {"first": first, "second": second}
    _finish(found, "evaluate --compare", settings, inputs, out, overwrite=overwrite)
    typer.echo(json.dumps(found.to_dict()) if as_json else _comparison_text(found, tables))


def _finish(
    found: Evaluation | Comparison,
    verb: str,
    settings: object,
    inputs: dict[str, Path],
    out: Path | None,
    *,
    overwrite: bool,
) -> None:
    """Keep the result and a run record, where a folder was given."""
    if out is None:
        return
    from palate.runs import start_run, write_atomic

    with start_run(verb, out, settings, inputs, overwrite=overwrite) as run:
        if not run.finished:
            result = found.to_dict()
            write_atomic(out / "evaluation.json", json.dumps(result, indent=2) + "\n")
            run.finish(result, files=[out / "evaluation.json"])


def _evaluation_text(found: Evaluation) -> str:
    agreements = [found.overall, *found.groups]
    whole = found.overall
    header = ["choices", "n", "prompts", "top-1", "chance", "always first", "always last"]
    header += ["pairwise", "Kendall tau"]
    rows = [_row(agreement) for agreement in agreements]
    undecided = [
        [group.name, f"{group.choices:,}", "–", "not decided", *["–"] * 5]
        for group in found.undecided
    ]
    people = f", {whole.people:,} people" if whole.people > 1 else ""
    lines = [
        f"{found.scorer} ({found.unit}, {found.fingerprint[:12]})",
        text_table(header, rows + undecided, right="12"),
        (
            f"{whole.top1.estimate.bootstrap.level:.0%} intervals over {' and '.join(whole.clusters)} "
            f"({plural(whole.prompts, 'prompt')}{people}); score ties: {found.settings.ties}, "
            f"human ties: {found.settings.human_ties}, pair ties: {found.settings.pair_ties}, "
            f"average: {found.settings.average}"
        ),
    ]
    if whole.top1.left_out:
        lines.append(f"top-1 leaves out {plural(whole.top1.left_out, 'undecided choice')}")
    if found.left_out:
        lines.append(f"left out {plural(found.left_out, 'choice')} without scores")
    lines += [f"{group.name}: not decided, {group.reason}" for group in found.undecided]
    return "\n".join([*lines, *(f"caution: {one}" for a in agreements for one in a.cautions())])


def _row(agreement: Agreement) -> list[str]:
    measured = agreement.top1.estimate, agreement.pairwise.estimate
    top1, pairwise = (percent(found.value, found.low, found.high) for found in measured)
    tau = "none"
    if agreement.kendall is not None:
        its = agreement.kendall.estimate
        tau = f"{its.value:.3f} ({its.low:.3f} to {its.high:.3f})"
    return [
        agreement.name,
        f"{agreement.choices:,}",
        f"{agreement.prompts:,}",
        top1,
        percent(agreement.chance),
        percent(agreement.always_first.value),
        percent(agreement.always_last.value),
        pairwise,
        tau,
    ]


def _comparison_text(found: Comparison, tables: tuple[Path, Path]) -> str:
    difference, wins = found.difference, found.win_rate
    its, rate = difference.estimate, wins.estimate
    level = its.bootstrap.level
    rows = [
        [f"first: {tables[0]}", f"{difference.mean_a:.4g}"],
        [f"second: {tables[1]}", f"{difference.mean_b:.4g}"],
        ["first - second", f"{its.value:+.4g} ({its.low:+.4g} to {its.high:+.4g})"],
        ["first wins", percent(rate.value, rate.low, rate.high)],
    ]
    lines = [
        f"{found.scorer} ({found.unit}, {found.fingerprint[:12]}), dimension {found.dimension}",
        text_table(["mean score", f"{level:.0%} interval over prompts"], rows),
        (
            f"{plural(found.pairs, 'pair')} on {plural(found.prompts, 'prompt')} by "
            f"{found.settings.pair}: {wins.wins:,} won, {wins.ties:,} tied (count {wins.tie_rule}), "
            f"{wins.losses:,} lost"
        ),
    ]
    told = {"not separable": "not separable", "first": "the first scores higher"}
    lines.append(f"{told.get(found.decision, 'the second scores higher')}{_needed(found)}")
    if found.left_out:
        lines.append(f"left out: {found.left_out:,} without a counterpart or a value")
    return "\n".join([*lines, *(f"caution: {one}" for one in found.cautions())])


def _needed(found: Comparison) -> str:
    """How many prompts such a difference needs, with what its interval leaves of that number."""
    from palate.evaluation.compare import prompts_needed

    needed = prompts_needed(found)
    if needed is None:
        return ""
    most = "no bound, as it may be 0" if needed.high is None else f"{needed.high:,}"
    return (
        f"; one as large is found in 4 of 5 studies of {plural(needed.value, 'prompt')} "
        f"({needed.low:,} to {most}, for the differences that the interval holds)"
    )

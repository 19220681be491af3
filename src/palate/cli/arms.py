"""`palate arms`: whether an adapter made a generator better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli._options import (
    ArchitectureOption,
    BatchOption,
    ClipOption,
    DeviceOption,
    GuidanceOption,
    ImagesOption,
    JsonOption,
    StepsOption,
    TokenizerOption,
    WeightsOption,
)

if TYPE_CHECKING:
    from palate.generation.generate import GenerateSettings


def arms(  # noqa: PLR0917 - typer makes options of them
    adapter: Annotated[
        Path, typer.Argument(help="LoRA file, or the folder that `palate adapt` wrote.")
    ],
    base: Annotated[Path, typer.Option(help="The generator: folder or Hub id, or miniature.")],
    prompts: Annotated[
        Path,
        typer.Option(
            help="Prompts of which nothing was labelled: .txt with one per line, .jsonl, .json, .csv or .parquet."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for images, scores, tables and the page.")],
    scorer: Annotated[
        str,
        typer.Option(
            help="The scorer that labelled: a name as `palate score` has it, or a folder."
        ),
    ],
    weights: WeightsOption = None,
    watch: Annotated[
        list[str] | None,
        typer.Option(
            help="Another scorer, NAME=WEIGHTS or a folder, to see whether it agrees; may be given several times."
        ),
    ] = None,
    tokenizer: TokenizerOption = None,
    architecture: ArchitectureOption = None,
    clip: ClipOption = None,
    strengths: Annotated[
        str, typer.Option(help="How much of the adapter the sweep applies; '' for no sweep.")
    ] = "0,0.5,1,1.5",
    identifier: Annotated[
        str | None,
        typer.Option(
            help="Negative prompt of half of the arms; if not given, the identifier that the adapter's file names. "
            "'' for none."
        ),
    ] = None,
    images: ImagesOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    batch: BatchOption = None,
    run: Annotated[
        str | None, typer.Option(help="Name that every image's chance depends on ['arms'].")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file with a [generate] table.")] = None,
    device: DeviceOption = "cpu",
    precision: Annotated[
        str, typer.Option(help="Of the generator: float32, bfloat16 or float16.")
    ] = "float32",
    resamples: Annotated[int | None, typer.Option(help="Resamples for intervals [2000].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the intervals [0].")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether an adapter made a generator better, on the scorer that labelled and on others.

    Four arms are made from the same noise: the original and the adapted generator, each with and without the adapter's
    identifier as negative prompt; then the adapter at several strengths. Scores are compared prompt by prompt, with 95 %
    intervals, beside what else changed in the pictures. It warns where the score rises and nothing else does, and
    where the images of a prompt become more alike.

    The folder gets arms.json, arms.csv, README.md and index.html. Interrupted, the same command goes on; with other
    scorers or strengths it adds to the images that are there.

    Example: palate arms runs/adapted --base models/sd14 --prompts held-out.txt --scorer hps-v1 --weights hpc.pt
    --watch pickscore=PickScore_v1 --watch image-reward=ImageReward.pt --out runs/arms

    Example: palate arms runs/demo/adapt-0 --base miniature --prompts prompts.txt --steps 12 --guidance 1.5
    --scorer runs/demo/train-0 --watch miniature --out runs/arms
    """
    from palate.cli.shipped import generator_folder
    from palate.evaluation.arms.plan import ArmsSettings
    from palate.evaluation.arms.run import Candidate, compare_arms
    from palate.generation.prompts import read_prompts
    from palate.scoring.recipe import Recipe
    from palate.settings import read_settings

    given = {"strengths": _strengths(strengths), "identifier": identifier}
    settings = read_settings(ArmsSettings, None, given | {"resamples": resamples, "seed": seed})
    made = {"images_per_prompt": images, "steps": steps, "guidance": guidance, "batch": batch}
    sampling = _sampling(recipe, made | {"run": run})
    texts = read_prompts(prompts)
    judges = Recipe(
        scorers=(_labelling(scorer, weights), *(watch or [])),
        tokenizer=tokenizer,
        architecture=architecture,
        clip=clip,
        device=device,
    ).load()
    candidate = Candidate(adapter, generator_folder(base), device, precision)
    found = compare_arms(candidate, texts, out, judges, settings, sampling, overwrite=overwrite)
    page = _keep(found, out)
    typer.echo(json.dumps(found, ensure_ascii=False) if as_json else _text(found, page))


def _strengths(words: str) -> list[float]:
    from palate.errors import SettingsError

    try:
        return [float(word) for word in words.split(",") if word.strip()]
    except ValueError:
        raise SettingsError(
            f"--strengths is {words!r}, expected numbers with commas between them, such as 0,0.5,1,1.5"
        ) from None


def _sampling(recipe: Path | None, given: dict[str, Any]) -> GenerateSettings:
    """Read how images are generated; without a run's name they get the noise of the arms."""
    from dataclasses import replace

    from palate.evaluation.arms.plan import RUN
    from palate.generation.generate import GenerateSettings
    from palate.settings import read_settings

    section = "generate" if recipe else None
    settings = read_settings(GenerateSettings, recipe, given, section=section)
    named = given["run"] is not None or settings.run != GenerateSettings().run
    return settings if named else replace(settings, run=RUN)


def _labelling(scorer: str, weights: str | None) -> str:
    """Write the labelling scorer with its weights, as one word."""
    from palate.errors import CheckpointError

    if weights is None:
        return scorer
    if "=" in scorer or Path(scorer).exists():
        raise CheckpointError(f"--weights goes with the name of a scorer, --scorer is {scorer}")
    return f"{scorer}={weights}"


def _keep(found: dict[str, Any], out: Path) -> Path | None:
    """Write the tables, and the page where the extra for it is there."""
    from palate.evaluation.arms.tables import arms_csv, arms_markdown
    from palate.runs import write_atomic

    write_atomic(out / "README.md", arms_markdown(found))
    write_atomic(out / "arms.csv", arms_csv(found))
    try:
        from palate.evaluation.arms.page import write_arms_page

        return write_arms_page(found, out)
    except ModuleNotFoundError as fault:
        if (fault.name or "").partition(".")[0] not in {"jinja2", "matplotlib"}:
            raise
        typer.echo("no page: it needs pip install 'palate[report]'", err=True)
        return None


def _text(found: dict[str, Any], page: Path | None) -> str:
    from palate.cli._text import text_table
    from palate.evaluation.arms.tables import arms_tables

    parts = []
    for table in arms_tables(found):
        notes = "".join(f"\n{note}" for note in table.notes)
        parts.append(f"{table.title}\n{text_table(table.header, table.rows)}{notes}")
    lines = [found["verdict"]["sentence"]]
    lines += [f"warning: {one['sentence']}" for one in found["warnings"]]
    lines += [f"caution: {one}" for one in found["cautions"]]
    lines += [] if page is None else [f"page: {page}"]
    return "\n\n".join([*parts, "\n".join(lines)])

"""`palate stats calibrate`, `bias` and `probe`: what scores mean, what a scorer goes by, and what fools it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
from palate.cli._results import (
    OutOption,
    OverwriteOption,
    ScorerOption,
    ScoresOption,
    about,
    open_choices,
    refuse_other_file,
    tell,
)


def calibrate(
    dataset: DataArgument,
    scores: ScoresOption,
    scorer: ScorerOption = None,
    rule: Annotated[
        Literal["first", "pairs"], typer.Option(help="What is predicted: the best image, or duels.")
    ] = "first",
    dimension: DimensionOption = None,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
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

    refuse_other_file(out, "stats calibrate", overwrite=overwrite)
    path = scores_path(scores)
    with about(path):
        table = one_scorer(read_table(path, "scores"), scorer)
    with about(dataset):
        choices = open_choices(dataset, dimension).choices
        values = values_of_choices(choices, table)
        scored_choices(choices, values, table, "fail")
        offsets = np.concatenate([[0], np.cumsum(list_lengths(choices.column("images")))])
        ranks = pc.list_flatten(choices.column("ranks")).to_numpy()
        before = softmax_factor(table.column("unit")[0].as_py()) or 1.0
        settings = CalibrationSettings(rule=rule, before=before)
        found = calibrate_choices(values, ranks, offsets, prompt_codes(choices), settings)
    facts = {"scorer": table.column("scorer")[0].as_py(), **found.to_dict()}
    tell("stats calibrate", facts, lambda: calibration_table(found), out, as_json=as_json)


def bias(  # noqa: PLR0917 - typer makes options of them
    dataset: DataArgument,
    scores: ScoresOption,
    scorer: ScorerOption = None,
    dimension: DimensionOption = None,
    level: Annotated[float, typer.Option(help="Level of the intervals and of a find.")] = 0.95,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Do not open images: sizes and prompts only.")
    ] = False,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find what a scorer goes by beyond people's preference: size, brightness, position, prompt length.

    Example: palate stats bias data/study --scores hps.parquet
    """
    from palate.data.tables import read_table
    from palate.evaluation.bias import BiasSettings, audit_bias, bias_table
    from palate.evaluation.joins import one_scorer

    refuse_other_file(out, "stats bias", overwrite=overwrite)
    settings = BiasSettings(scorer=scorer, files=not no_files, level=level)
    path = scores_path(scores)
    with about(path):
        table = one_scorer(read_table(path, "scores"), scorer)
    with about(dataset):
        data = open_choices(dataset, dimension)
        images = data.images if len(data.images) else None
        found = audit_bias(data.choices, table, images, data.folder, settings)
    tell("stats bias", found.to_dict(), lambda: bias_table(found), out, as_json=as_json)


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
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Try what can fool a scorer: more contrast, borders, JPEG, text in the image, praise in the prompt.

    Example: palate stats probe data/study --scorer hps-v2.1 --weights HPS_v2.1_compressed.pt
    """
    from palate.data.records import Image
    from palate.data.tables import image_path, load_dataset, to_rows
    from palate.errors import DataError, SettingsError
    from palate.evaluation.probes import probe_scorer, probe_table
    from palate.scoring.catalog import load

    refuse_other_file(out, "stats probe", overwrite=overwrite)
    if prompts < 1:
        raise SettingsError(f"--prompts {prompts}: expected at least 1 prompt to try")
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
    tell("stats probe", report.to_dict(), lambda: probe_table(report), out, as_json=as_json)

"""`palate label`: turn scores into what adaptation learns from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def label(  # noqa: PLR0917 - typer makes options of them
    scores: Annotated[Path, typer.Argument(help="Scores, as `palate score` writes them.")],
    images: Annotated[
        Path, typer.Option(help="The images that were scored: data-set folder or images.parquet.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for labels.parquet.")],
    regularisation: Annotated[
        Path | None,
        typer.Option(help="Images to keep the generator as it is: folder or images.parquet."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="The best needs a probability above alpha / n [2].")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="The softmax is over scale times the cosine [100].")
    ] = None,
    min_images: Annotated[
        int | None, typer.Option(help="Leave out prompts with fewer images [4].")
    ] = None,
    rejected_share: Annotated[
        float | None, typer.Option(help="Share of the rejected images that is kept [1].")
    ] = None,
    blur: Annotated[
        str | None, typer.Option(help="Leave out blurry images: none, published or both-ways.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file with a [label] table.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Mark the best image of each prompt as preferred and the worst as rejected.

    The rule of the HPS paper: the softmax of 100 cosine over a prompt's images must be above 2 / n.
    The report counts what was thrown away, and why.

    Example: palate label runs/scores.parquet --images runs/images --out runs/labels
    """
    from palate.adaptation.label import LabelSettings, write_labels
    from palate.settings import read_settings

    given = {
        "alpha": alpha,
        "scale": scale,
        "min_images": min_images,
        "rejected_share": rejected_share,
        "blur": blur,
    }
    settings = read_settings(LabelSettings, recipe, given, section="label" if recipe else None)
    report = write_labels(
        scores, images, out, settings, regularisation=regularisation, overwrite=overwrite
    )
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    counts = ", ".join(f"{count} {role}" for role, count in report["labels"].items())
    typer.echo(f"{counts}: {out / 'labels.parquet'}")
    for reason, count in report["thrown_away"].items():
        if count:
            typer.echo(f"thrown away: {count} ({reason})")

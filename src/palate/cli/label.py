"""`palate label`: turn scores into what adaptation learns from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def label(  # noqa: PLR0917 - typer makes options of them
    scores: Annotated[
        Path,
        typer.Argument(
            help="Scores, as `palate score` writes them, or align_sd's scores or annotations (.jsonl)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for labels.parquet.")],
    images: Annotated[
        Path | None,
        typer.Option(
            help="The images that were scored: data-set folder or images.parquet; .jsonl needs none."
        ),
    ] = None,
    regularisation: Annotated[
        Path | None,
        typer.Option(
            help="Images to keep the generator as it is: a data set, a folder with a caption beside "
            "each image or a list of captions, or align_sd's regularization_images.jsonl."
        ),
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help="The rule: hps2023 or corrected [hps2023].")
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
    blur: Annotated[
        str | None,
        typer.Option(
            help="Leave out blurry images: none, published, both-ways or recorded [as the rule says]."
        ),
    ] = None,
    marked: Annotated[
        str | None,
        typer.Option(
            help="Images marked as unsafe or blurred: keep or leave-out [as the rule says]."
        ),
    ] = None,
    nsfw_below: Annotated[
        float | None, typer.Option(help="A mark of this amount or more is unsafe [0.5].")
    ] = None,
    preferred_share: Annotated[
        float | None, typer.Option(help="Share of the preferred images that is kept [1].")
    ] = None,
    rejected_share: Annotated[
        float | None, typer.Option(help="Share of the rejected images that is kept [1].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the shares [0].")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Which scorer, if the scores have several.")
    ] = None,
    dimension: Annotated[
        str | None, typer.Option(help="Which dimension, if the scores have several.")
    ] = None,
    write_align_sd: Annotated[
        bool | None,
        typer.Option(
            "--write-align-sd",
            help="Also write annotation.jsonl and regularization_images.jsonl, for align_sd's trainer.",
        ),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file with a [label] table.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Mark the best image of each prompt as preferred and the worst as rejected.

    The rule hps2023 is the HPS paper's: the softmax of 100 cosine over a prompt's images must be above
    2 / n, blurry images aside. The rule corrected compares with the nearest rivals only, looks for blur
    both ways, and leaves out images that are marked as unsafe. The report says what became of every
    image; outcomes.csv, of each.

    Example: palate label runs/scores.parquet --images runs/images --out runs/labels

    Example: palate label runs/scores.parquet --images runs/images --rule corrected --rejected-share 0.5
    --regularisation photos --out runs/labels

    Example: palate label release/annotation.jsonl --rejected-share 0.5 --out runs/labels
    """
    from palate.adaptation.labelling.label import LabelSettings, write_labels
    from palate.settings import read_settings

    given = {
        "rule": rule,
        "alpha": alpha,
        "scale": scale,
        "min_images": min_images,
        "blur": blur,
        "marked": marked,
        "nsfw_below": nsfw_below,
        "preferred_share": preferred_share,
        "rejected_share": rejected_share,
        "seed": seed,
        "scorer": scorer,
        "dimension": dimension,
        "write_align_sd": write_align_sd,
    }
    settings = read_settings(LabelSettings, recipe, given, section="label" if recipe else None)
    report = write_labels(
        scores, images, out, settings, regularisation=regularisation, overwrite=overwrite
    )
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    typer.echo(_account(report))
    typer.echo(f"labels: {out / 'labels.parquet'}")


def _account(report: dict[str, Any]) -> str:
    """Lay out as a table what became of the images; reasons that met none are left out."""
    from palate.cli._text import text_table

    labels = report["labels"]
    extra = report.get("regularisation", {"thrown_away": {}})
    parts: list[tuple[str, int]] = [
        *((role, labels[role]) for role in ("preferred", "rejected")),
        *((f"thrown away: {why}", count) for why, count in report["thrown_away"].items() if count),
        ("all images", report["images"]),
        *((role, labels[role]) for role in ("regularisation",) if labels[role]),
        *(
            (f"regularisation thrown away: {why}", count)
            for why, count in extra["thrown_away"].items()
            if count
        ),
    ]
    return text_table(["outcome", "images"], [[name, f"{n:,}"] for name, n in parts], right="1")

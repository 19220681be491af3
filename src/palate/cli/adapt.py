"""`palate adapt`: adapt a generator to what people prefer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def adapt(  # noqa: PLR0917 - typer makes options of them
    labels: Annotated[
        Path, typer.Argument(help="Folder that `palate label` wrote, or its labels.parquet.")
    ],
    images: Annotated[
        list[Path],
        typer.Option(help="The labelled images: data-set folder; may be given several times."),
    ],
    base: Annotated[
        Path, typer.Option(help="Generator to adapt: folder of a StableDiffusionPipeline.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    recipe: Annotated[Path | None, typer.Option(help="TOML file with an [adapt] table.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps [10000].")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step [40].")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the LoRA [4].")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate [1e-5].")] = None,
    identifier: Annotated[
        str | None, typer.Option(help="Words put before rejected captions ['Weird image. '].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random number [42].")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for encoded images, which other runs can share.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where it runs: cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Teach a generator which images people reject, under a name that it can then avoid.

    The method of the HPS paper: rejected images are captioned with an identifier, and a LoRA is
    trained on all of them. `palate generate --adapter` then uses the identifier as the negative
    prompt, and `palate convert --format kohya` writes the adapter for other tools. Interrupted, the
    same command goes on and ends bit for bit the same.

    Example: palate adapt runs/labels --images runs/images --base models/sd14 --out runs/adapted
    --recipe recipes/hps2023.toml
    """
    from palate.adaptation.adapt import AdaptSettings
    from palate.adaptation.adapt import adapt as train
    from palate.adaptation.examples import image_files
    from palate.cli.shipped import generator_folder
    from palate.data.tables import read_table
    from palate.settings import read_settings

    given = {
        "steps": steps,
        "batch": batch,
        "rank": rank,
        "learning_rate": learning_rate,
        "identifier": identifier,
        "seed": seed,
    }
    settings = read_settings(AdaptSettings, recipe, given, section="adapt" if recipe else None)
    table = read_table(labels / "labels.parquet" if labels.is_dir() else labels, "labels")
    files = image_files(*images)
    result = train(
        table,
        files,
        generator_folder(base),
        out,
        settings,
        cache=cache,
        device=device,
        overwrite=overwrite,
    )
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    rows = ", ".join(f"{count} {role}" for role, count in result["rows"].items())
    typer.echo(f"adapted to {rows} images: {out / result['adapter']}")
    for role, gap in result["identifier_gap"].get("after", {}).items():
        spread = f" ± {gap['standard_error']:.2g}" if gap["standard_error"] is not None else ""
        typer.echo(f"identifier gap, {role}: {gap['gap']:+.3g}{spread} (below 0: it explains them)")

"""`palate adapt`: adapt a generator to what people prefer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

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
        Path,
        typer.Option(
            help="Generator to adapt: folder or Hub id of a Stable Diffusion 1, 2, XL or 3, or miniature."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    recipe: Annotated[Path | None, typer.Option(help="TOML file with an [adapt] table.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="identifier, dpo, kto, sft or reward [identifier].", show_default=False),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps [10000].")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step, for dpo pairs [40].")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the LoRA [4].")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate [1e-5].")] = None,
    identifier: Annotated[
        str | None, typer.Option(help="Words put before rejected captions ['Weird image. '].")
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="For dpo and kto: how near to the base it stays [2000].")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(help="For reward: the scorer that is learnt from, a folder or a name."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="For reward: the official weights of a named scorer.")
    ] = None,
    watch: Annotated[
        str | None, typer.Option(help="For reward: another scorer, which only watches.")
    ] = None,
    watch_weights: Annotated[
        str | None, typer.Option(help="For reward: the official weights of that one.")
    ] = None,
    grid_prompt: Annotated[
        list[str] | None,
        typer.Option(help="Prompt of a row of the picture grids; may be given several times."),
    ] = None,
    validate_every: Annotated[
        int | None, typer.Option(help="Steps between grids and measures [only before and after].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random number [42].")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for encoded images, which other runs can share.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where it runs: cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a LoRA that makes a generator do what people prefer.

    By default the method of the HPS paper: rejected images are captioned with an identifier, and a LoRA is
    trained on all of them. `palate generate --adapter` then uses the identifier as the negative
    prompt. The other methods need no negative prompt: dpo learns from pairs, kto from preferred and rejected images that
    form none, sft from preferred ones alone, and reward from the gradient of a scorer.

    `palate arms` says whether the adapter made the generator better, and `palate convert --format kohya` writes it
    for other tools. Interrupted, the same command goes on and ends bit for bit the same. `accelerate launch -m
    palate.cli.main adapt …` uses several processes or GPUs.

    Example: palate adapt runs/labels --images runs/images --base models/sd14 --out runs/adapted
    --recipe recipes/hps2023.toml

    Example: palate adapt runs/labels --images runs/images --base models/sdxl --method dpo --beta 5000 --out runs/dpo
    """
    from palate.adaptation.adapt import adapt as train
    from palate.adaptation.examples import image_files
    from palate.adaptation.settings import AdaptSettings
    from palate.cli.shipped import generator_folder
    from palate.data.tables import read_table
    from palate.settings import read_settings

    given = {
        "method": method,
        "beta": beta,
        "reward.scorer": scorer,
        "reward.weights": weights,
        "reward.watch": watch,
        "reward.watch_weights": watch_weights,
        "grid_prompts": grid_prompt or None,
        "validate_every": validate_every,
        "steps": steps,
        "batch": batch,
        "rank": rank,
        "learning_rate": learning_rate,
        "identifier": identifier,
        "seed": seed,
    }
    settings = read_settings(AdaptSettings, recipe, given, section="adapt" if recipe else None)
    _refuse_unread(settings.method, {"--beta": beta, "--identifier": identifier})
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
    rows = ", ".join(f"{count} {role}" for role, count in result["rows"].items() if count)
    what = f"{result['rows']['pair']} pairs" if result["pairs"] else f"{rows} images"
    typer.echo(f"adapted to {what}: {out / result['adapter']}")
    _tell(result)


def _refuse_unread(method: str, given: dict[str, Any]) -> None:
    """Refuse an option that the method does not read."""
    from palate.errors import SettingsError

    readers = {"--beta": ("dpo", "kto"), "--identifier": ("identifier",)}
    for name, value in given.items():
        if value is not None and method not in readers[name]:
            raise SettingsError(
                f"{name} is {value!r}, but the method '{method}' does not read it; leave it out"
            )


def _tell(result: dict[str, Any]) -> None:
    """Say what was left out, what was learnt, and what speaks against the adapter."""
    if pairs := result["pairs"]:
        typer.echo(f"left out: {pairs['ties']} ties, {pairs['alone']} images without a partner")
    for role, gap in result["identifier_gap"].get("after", {}).items():
        typer.echo(
            f"identifier gap, {role}: {gap['gap']:+.3g}{_spread(gap)} (below 0: it explains them)"
        )
    before = result["held_out_errors"].get("before", {})
    for role, after in result["held_out_errors"].get("after", {}).items():
        typer.echo(
            f"error on held-out {role} images: {before[role]['error']:.4g} before, "
            f"{after['error']:.4g} after{_spread(after)}"
        )
    for warning in result["warnings"]:
        typer.echo(f"warning: {warning}")


def _spread(told: dict[str, Any]) -> str:
    """Give a standard error, where there is one."""
    found = told["standard_error"]
    return f" ± {found:.2g}" if found is not None else ""

"""`palate generate`: make images for prompts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.cli._options import (
    BatchOption,
    ClipOption,
    GuidanceOption,
    ImagesOption,
    StepsOption,
    WeightsOption,
)

_MANY = 400  # a sheet opens every image: of 512 × 512 pixels, so many took ten seconds of one core


def generate(  # noqa: PLR0917 - typer makes options of them
    generator: Annotated[
        Path, typer.Argument(help="Folder or Hub id of a text-to-image pipeline, or miniature.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the images; it becomes a data set.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts: .txt with one per line, .jsonl, .json, .csv, .parquet, or the folder of a data set."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="One prompt; may be given several times.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="LoRA file, or the folder that `palate adapt` wrote; :0.7 after it is how much of it is applied. "
            "May be given several times."
        ),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Multiplies how much of every adapter is applied.")
    ] = 1.0,
    negative: Annotated[
        str | None,
        typer.Option(
            help="Negative prompt; if not given, the identifier that the adapter's file names."
        ),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Words before every prompt; the noise stays the same.")
    ] = None,
    images: ImagesOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    batch: BatchOption = None,
    run: Annotated[
        str | None, typer.Option(help="Name that every image's chance depends on ['generate'].")
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            help="Make so many images per prompt, and keep those that --scorer likes best."
        ),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            help="What chooses for --best-of, as `palate score` takes it: hps-v2.1, hps-v2.1@PROFILE, "
            "hps-v2.1=WEIGHTS, miniature, a saved folder."
        ),
    ] = None,
    weights: WeightsOption = None,
    clip: ClipOption = None,
    keep: Annotated[
        int | None, typer.Option(help="Images kept per prompt by --best-of [as --images].")
    ] = None,
    keep_all: Annotated[
        bool | None,
        typer.Option(
            "--keep-all", help="Leave all images of --best-of on the disk, with candidates.parquet."
        ),
    ] = None,
    sheets: Annotated[
        bool | None,
        typer.Option(help="Draw contact sheets, one row per prompt [if at most 400 images]."),
    ] = None,
    gallery: Annotated[
        bool | None,
        typer.Option(help="Write a page of the images, gallery.html [if at most 400 images]."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file with a [generate] table.")] = None,
    device: Annotated[str, typer.Option(help="Where it runs: cpu or cuda.")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make images for prompts, the same ones whatever the order or the number of restarts.

    With an adapter, the identifier that its file names becomes the negative prompt; `--negative ""` turns that off.
    Files of diffusers, of kohya and of HPS's own code are read. Interrupted, the same command goes on where it stopped.

    With --best-of a scorer chooses. The folder then has the best images of each prompt, and scores.parquet the scores
    of all; those of the chosen are too high as an estimate of their quality, so judge with another scorer.

    Example: palate generate miniature --prompt "a red ring on white" --out runs/rings

    Example: palate generate models/sd14 --prompts prompts.txt --adapter runs/adapted --out runs/new

    Example: palate generate models/sd14 --prompts prompts.txt --adapter adapted_model.bin --negative "Weird image. "
    --out runs/hps

    Example: palate generate models/sd14 --prompts prompts.txt --adapter runs/adapted:0.7 --adapter paint.safetensors
    --out runs/both

    Example: palate generate models/sd14 --prompts prompts.txt --best-of 16 --keep 1 --scorer hps-v2.1
    --weights HPS_v2.1_compressed.pt --out runs/best
    """
    from palate.cli.shipped import generator_folder
    from palate.errors import DataError
    from palate.generation.generate import GenerateSettings
    from palate.generation.generate import generate as make
    from palate.generation.generator import load_generator
    from palate.generation.prompts import read_prompts
    from palate.settings import read_settings

    texts = [*(prompt or []), *(read_prompts(prompts) if prompts else [])]
    if not texts:
        raise DataError("no prompts were given; use --prompts FILE or --prompt TEXT")
    given = {
        "images_per_prompt": images,
        "steps": steps,
        "guidance": guidance,
        "batch": batch,
        "run": run,
        "negative_prompt": negative,
        "prefix": prefix,
        "best_of.images": best_of,
        "best_of.scorer": scorer,
        "best_of.weights": weights,
        "best_of.clip": clip,
        "best_of.keep": keep,
        "best_of.keep_all": keep_all,
    }
    _refuse_alone(given, recipe)
    settings = read_settings(
        GenerateSettings, recipe, given, section="generate" if recipe else None
    )
    model = load_generator(
        generator_folder(generator),
        _adapters(adapter or []),
        strength=strength,
        device=device,
        precision=precision,
    )
    table = make(texts, model, out, settings, overwrite=overwrite)
    result = json.loads((out / "run.json").read_text(encoding="utf-8"))["result"]
    views = _draw(table, result, out, sheets=sheets, gallery=gallery)
    if as_json:
        typer.echo(json.dumps(result | views, ensure_ascii=False))
        return
    typer.echo(f"{result['images']} images of {result['prompts']} prompts: {out}")
    if best := result.get("best_of"):
        typer.echo(_chosen(best))
    for path in (views["sheets"], views["gallery"]):
        if path:
            typer.echo(f"to look at: {path}")
    if result["negative_prompt"]:
        typer.echo(f"negative prompt: {result['negative_prompt']!r}")
    for note in _notes(result, {"guidance": guidance, "negative_prompt": negative}):
        typer.echo(f"note: {note}")


def _refuse_alone(given: Mapping[str, object], recipe: Path | None) -> None:
    """Refuse options of a choice that nobody asked for."""
    from palate.errors import SettingsError

    alone = [name for name, value in given.items() if name.startswith("best_of.") and value]
    if alone and not given["best_of.images"] and recipe is None:
        option = alone[0].removeprefix("best_of.").replace("_", "-")
        raise SettingsError(f"--{option} goes with --best-of N, which was not given")


def _draw(
    images: Any, result: dict[str, Any], out: Path, *, sheets: bool | None, gallery: bool | None
) -> dict[str, str | None]:
    """Draw sheets and write the gallery, where wanted; say where they are."""
    from palate.generation.gallery import write_page
    from palate.generation.sheets import write_sheets

    few = len(images) <= _MANY
    drawn: dict[str, str | None] = {"sheets": None, "gallery": None}
    if few if sheets is None else sheets:
        write_sheets(images, out, out / "sheets")
        drawn["sheets"] = str(out / "sheets")
    if few if gallery is None else gallery:
        write_page(images, result, out / "gallery.html")
        drawn["gallery"] = str(out / "gallery.html")
    return drawn


def _chosen(best: dict[str, Any]) -> str:
    """Say what was chosen from what."""
    card = best["scorer"]
    return (
        f"the best {best['keep']} of {best['images']} of each prompt by {card['name']} [{card['unit']}]: "
        f"{best['mean_of_kept']:#.5g} on average, {best['mean_of_all']:#.5g} before the choice"
    )


def _adapters(words: list[str]) -> dict[Path, float]:
    """Take the adapters apart: a path that is there as it is, else a path, a colon and a strength."""
    from palate.errors import SettingsError

    chosen: dict[Path, float] = {}
    for word in words:
        path, strength = Path(word), 1.0
        if not path.exists() and ":" in word:
            head, _, number = word.rpartition(":")
            path = Path(head)
            try:
                strength = float(number)
            except ValueError:
                strength = math.nan
            if not math.isfinite(strength):
                raise SettingsError(
                    f"--adapter {word}: no such file, and {number!r} after the colon is no strength; "
                    "expected a number such as 0.7"
                )
        if path.resolve() in {other.resolve() for other in chosen}:
            raise SettingsError(f"--adapter {path} is given twice, expected each adapter once")
        chosen[path] = strength
    return chosen


def _notes(result: dict[str, Any], given: dict[str, object]) -> list[str]:
    """Say what the user may not expect of these images; what was given by an option is expected."""
    notes = []
    for one in result["adapters"]:
        if one["made_for_this_base"] is False:
            base = f" ({one['base_name']})" if one["base_name"] else ""
            notes.append(f"{one['file']} was trained on another base{base} than this one")
        if one["guidance"] not in (None, result["guidance"]) and given["guidance"] is None:
            notes.append(f"{one['file']} suggests a guidance of {one['guidance']}")
    if result["adapters"] and not result["negative_prompt"] and given["negative_prompt"] is None:
        notes.append(
            "no negative prompt, since no adapter names an identifier; --negative gives one"
        )
    if result.get("best_of"):
        notes.append("the scores of chosen images are too high to judge by; use another scorer")
        if cut := result["best_of"]["cut_prompts"]:
            notes.append(f"{result['best_of']['scorer']['name']} reads {cut} prompts only in part")
    if result["truncated_prompts"]:
        notes.append(f"the model reads {result['truncated_prompts']} prompts only in part")
    if result["flagged_images"]:
        notes.append(f"the safety checker blackened {result['flagged_images']} images")
    return notes

"""`palate data import folder` and `ratings`: your own images, choices and ratings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from palate.cli.importing.app import (
    AllowErrors,
    AsJson,
    HeadersOnly,
    MaxPixels,
    Out,
    Overwrite,
    import_app,
    run_import,
)


@import_app.command("folder")
def folder(  # noqa: PLR0917 - typer makes options of them
    images: Annotated[Path, typer.Argument(help="Folder with images, and folders of images.")],
    out: Out,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="CSV or JSON Lines with image and prompt, or text with image<TAB>prompt "
            "[prompts.* in the folder, else a .txt beside each image]."
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="One prompt for all images.")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="Prompt from the path without suffix: a pattern with (?P<prompt>…)."),
    ] = None,
    layout: Annotated[
        Literal["simulacra"] | None,
        typer.Option(help="A known pattern: simulacra is grade/id_prompt_k.png."),
    ] = None,
    choices: Annotated[
        Path | None,
        typer.Option(help="JSON Lines or CSV with images and ranks, or images and best."),
    ] = None,
    generator: Annotated[str | None, typer.Option(help="What made the images.")] = None,
    source: Annotated[str, typer.Option(help="Name of the source of the choices.")] = "folder",
    allow_errors: AllowErrors = False,
    headers_only: HeadersOnly = False,
    max_pixels: MaxPixels = 100_000_000,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import your own images with their prompts, and choices between them.

    Example: palate data import folder photos --prompts prompts.csv --choices picks.jsonl --out mine
    """
    from palate.data.importing import imported_source
    from palate.data.sources.folder import SIMULACRA, FolderSettings, read_folder

    settings = FolderSettings(
        prompt=prompt,
        pattern=SIMULACRA if layout == "simulacra" and pattern is None else pattern,
        generator=generator,
        source=source,
        allow_errors=allow_errors,
        decode=not headers_only,
        max_pixels=max_pixels,
    )
    imported = read_folder(images, prompts, choices, settings)
    given = {"prompts": prompts, "choices": choices}
    inputs = {name: path for name, path in given.items() if path is not None}
    read = imported_source("folder", settings, inputs, imported, images)
    run_import(read, out, overwrite=overwrite, as_json=as_json, keep=[images, prompts, choices])


@import_app.command("ratings")
def ratings(  # noqa: PLR0917 - typer makes options of them
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV, TSV, JSON Lines, Parquet or .xlsx with one rating per line; with --preset, its folder."
        ),
    ],
    out: Out,
    preset: Annotated[
        Literal["avt"] | None,
        typer.Option(help="A known study: avt is the AVT AI image study 2; sets what follows."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images [beside it].")] = None,
    prompts: Annotated[Path | None, typer.Option(help="CSV with an id and a text.")] = None,
    rater: Annotated[str | None, typer.Option(help="Column of the person [rater].")] = None,
    image: Annotated[str | None, typer.Option(help="Column of the image [image].")] = None,
    value: Annotated[str | None, typer.Option(help="Column of the rating [value].")] = None,
    dimension: Annotated[
        str | None,
        typer.Option(help="Column of what is rated [dimension]; '' for one dimension, overall."),
    ] = None,
    dimension_name: Annotated[
        list[str] | None, typer.Option(help="Rename a dimension: old=new; several times.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Column of the prompt [prompt].")] = None,
    image_pattern: Annotated[
        str | None,
        typer.Option(
            help="Pattern of the image cell with (?P<prompt>…) or (?P<prompt_id>…), and if wanted "
            "(?P<generator>…) and (?P<file>…)."
        ),
    ] = None,
    prompt_id: Annotated[str | None, typer.Option(help="Column of the id in prompts [id].")] = None,
    prompt_text: Annotated[
        str | None, typer.Option(help="Column of the text in prompts [prompt].")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="1 is the best rating.")
    ] = False,
    form: Annotated[
        Literal["groups", "pairs"] | None,
        typer.Option(help="One choice per person and prompt, or per pair of images [groups]."),
    ] = None,
    minimum_gap: Annotated[
        float | None, typer.Option(help="Leave pairs out that differ by less [0]; equal is a tie.")
    ] = None,
    repeats: Annotated[
        Literal["fail", "first", "last"] | None,
        typer.Option(help="Which of several ratings of one image by one person counts [fail]."),
    ] = None,
    missing_images: Annotated[
        Literal["fail", "keep", "drop"] | None,
        typer.Option(help="What happens to ratings of an image without file [fail]."),
    ] = None,
    minimum_share: Annotated[
        float | None, typer.Option(help="Leave out people who rated less than this share [0].")
    ] = None,
    allow_errors: AllowErrors = False,
    headers_only: HeadersOnly = False,
    max_pixels: MaxPixels = 100_000_000,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Turn ratings into choices: same person, same prompt, equal ratings are ties.

    Example: palate data import ratings study/avt --preset avt --out data/avt
    """
    from palate.data.importing import imported_source
    from palate.data.sources.ratings import read_ratings

    given = {
        "rater": rater,
        "image": image,
        "value": value,
        "dimension": dimension,
        "dimension_names": _renames(dimension_name),
        "prompt": prompt,
        "image_pattern": image_pattern,
        "prompt_id": prompt_id,
        "prompt_text": prompt_text,
        "higher_is_better": False if lower_is_better else None,
        "form": form,
        "minimum_gap": minimum_gap,
        "repeats": repeats,
        "missing_images": missing_images,
        "minimum_share": minimum_share,
        "allow_errors": allow_errors or None,
        "decode": False if headers_only else None,
        "max_pixels": max_pixels,
    }
    settings = _ratings_settings(preset, given)
    if preset == "avt" and table.is_dir():
        images, prompts = images or table / "images", prompts or table / "prompts.csv"
        table /= "ratings_study2.csv"
    images = images or table.parent
    imported = read_ratings(table, images, prompts, settings)
    inputs = {"ratings": table} | ({} if prompts is None else {"prompts": prompts})
    source = imported_source("ratings", settings, inputs, imported, images)
    run_import(source, out, overwrite=overwrite, as_json=as_json, keep=[table, images, prompts])


def _ratings_settings(preset: str | None, given: dict[str, Any]) -> Any:
    """Settings of the preset, or the defaults, with what was given on top."""
    import dataclasses

    from palate.data.sources.ratings import AVT, RatingsSettings

    known = {name: value for name, value in given.items() if value is not None}
    if known.get("dimension") == "":
        known["dimension"] = None
    if preset == "avt":
        return dataclasses.replace(AVT, **known)
    if "image_pattern" not in known:
        known.setdefault("prompt", "prompt")
    return RatingsSettings(**known)


def _renames(given: list[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    for rename in given:
        if "=" not in rename:
            raise typer.BadParameter(f"{rename!r} is not old=new", param_hint="--dimension-name")
    return dict(rename.split("=", 1) for rename in given)

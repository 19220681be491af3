"""`palate data import`: turn what other people collected into a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from palate.cli._text import plural

import_app = typer.Typer(
    help="Turn images and choices from elsewhere into a data set.", no_args_is_help=True
)

Out = Annotated[Path, typer.Option(help="Folder for the data set; new, or of the same import.")]
AllowErrors = Annotated[
    bool, typer.Option("--allow-errors", help="Leave bad rows out and count them.")
]
HeadersOnly = Annotated[
    bool,
    typer.Option("--headers-only", help="Do not decode images: quicker, misses truncated files."),
]
MaxPixels = Annotated[int, typer.Option(help="Refuse images with more pixels than this.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@import_app.command("hpd-v1")
def hpd_v1(  # noqa: PLR0917 - typer makes options of them
    records: Annotated[Path, typer.Argument(help="preference_train.json or preference_test.json.")],
    out: Out,
    images: Annotated[
        Path | None, typer.Option(help="Folder that the file_path entries count from [beside it].")
    ] = None,
    require_images: Annotated[
        bool, typer.Option("--require-images", help="Refuse if an image file is not there.")
    ] = False,
    allow_errors: AllowErrors = False,
    headers_only: HeadersOnly = False,
    max_pixels: MaxPixels = 100_000_000,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import the human preference data of HPS v1 (official JSON).

    The release has no images beside the JSON; without them the choices are imported all the same.

    Example: palate data import hpd-v1 preference_test.json --out data/hpd
    """
    from palate.data.importing import write_import
    from palate.data.sources.hpd_v1 import HpdV1Settings, read_hpd_v1

    settings = HpdV1Settings(
        missing_images="fail" if require_images else "keep",
        allow_errors=allow_errors,
        decode=not headers_only,
        max_pixels=max_pixels,
    )
    imported = read_hpd_v1(records, images, settings)
    inputs = {"records": records}
    _tell(
        write_import("hpd-v1", imported, out, settings, inputs, overwrite=overwrite), out, as_json
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
    from palate.data.importing import write_import
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
    _tell(
        write_import("folder", imported, out, settings, inputs, overwrite=overwrite), out, as_json
    )


@import_app.command("ratings")
def ratings(  # noqa: PLR0917 - typer makes options of them
    table: Annotated[
        Path, typer.Argument(help="CSV with one rating per line; with --preset, its folder.")
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
        Literal["fail", "first", "last", "mean"] | None,
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
    from palate.data.importing import write_import
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
    imported = read_ratings(table, images or table.parent, prompts, settings)
    inputs = {"ratings": table} | ({} if prompts is None else {"prompts": prompts})
    _tell(
        write_import("ratings", imported, out, settings, inputs, overwrite=overwrite), out, as_json
    )


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


def _tell(result: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    typer.echo(
        f"{plural(result['choices'], 'choice')} between {plural(result['images'], 'image')}"
        f" of {plural(result['prompts'], 'prompt')}: {out}"
    )
    for line in _remarks(result):
        typer.echo(f"  {line}")


def _remarks(result: dict[str, Any]) -> list[str]:
    """What was left out or is odd, one line each."""
    missing = result.get("missing_images", 0)
    faults, repeats = result["faults"], result.get("repeats", {"count": 0})
    unfinished = result.get("unfinished_raters", {"count": 0})
    remarks = [
        (missing, f"images without a file: {_named(missing)}"),
        (faults["count"], f"bad rows left out: {faults['count']}, first {faults['first'][:1]}"),
        (repeats["count"], f"images rated again by the same person: {repeats['count']}"),
        (
            unfinished["count"],
            f"unfinished people: {unfinished['count']}, left out: {unfinished.get('left_out')}",
        ),
        (result.get("single"), f"answers with one image only: {result.get('single')}"),
        (result.get("too_close"), f"pairs below the minimum gap: {result.get('too_close')}"),
        (result.get("all_tied"), f"choices that tie all their images: {result.get('all_tied')}"),
    ]
    return [text for count, text in remarks if count]


def _named(missing: Any) -> str:
    if isinstance(missing, int):
        return f"{missing:,}"
    return f"{len(missing)} ({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''})"

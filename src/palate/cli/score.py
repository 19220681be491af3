"""`palate score`: score images for their prompts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli._options import (
    ArchitectureOption,
    ClipOption,
    DeviceOption,
    JsonOption,
    TokenizerOption,
    WeightsOption,
)
from palate.cli._startup import spare_pandas

if TYPE_CHECKING:
    from palate.scoring.cache import FeatureCache
    from palate.scoring.engine import Engine
    from palate.scoring.recipe import Recipe
    from palate.scoring.score import PieceScorer

_SHOWN = 60
_READ_BACK = 20_000
_WORTH_KEEPING = 16


def score(  # noqa: PLR0917 - typer makes options of them
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files, a folder, a manifest (.csv, .jsonl, .parquet with image and prompt), "
            "images.parquet, a data set folder, WebDataset tars, or Parquet with the images inside; or URLs of "
            "these such as s3://bucket/name."
        ),
    ],
    scorer: Annotated[
        list[str],
        typer.Option(
            help="hps-v1, hps-v2, hps-v2.1, pickscore, image-reward, mps, clip-score, aesthetic, miniature, or a "
            "saved folder; NAME@PROFILE for another official code path, NAME=WEIGHTS to name the weights. "
            "Give it again for more scorers."
        ),
    ],
    weights: WeightsOption = None,
    tokenizer: TokenizerOption = None,
    architecture: ArchitectureOption = None,
    clip: ClipOption = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            help="What mps judges: overall, aesthetics, detail, alignment, or words. Give it again for more."
        ),
    ] = None,
    mask_threshold: Annotated[
        float | None, typer.Option(help="How relevant a prompt token must be to count, for mps.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="One prompt for all images.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompt of each image: .csv or .jsonl with image and prompt, or .txt."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Table to write (.parquet, .csv or .jsonl), a folder for it, or a URL."),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(help="A page (.html) of the images, best first in each prompt."),
    ] = None,
    allow_errors: Annotated[
        bool, typer.Option("--allow-errors", help="Accept images that cannot be scored.")
    ] = False,
    exif: Annotated[
        bool, typer.Option("--exif", help="Turn images as EXIF says; the official codes do not.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that open images beside the network; one per core if not given."
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the feature cache, by which no image is looked at twice; $PALATE_CACHE or "
            "palate in the user's cache folder if not given."
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither read nor write the feature cache.")
    ] = False,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast/--exact",
            help="Fewer bits where this processor or GPU is then faster, or float32 as the official codes.",
        ),
    ] = False,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of the image tower, instead of the choice of --fast: float32, bfloat16, int8."
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="What computes the image tower: torch or openvino; the faster one if not given."
        ),
    ] = None,
    device: DeviceOption = "cpu",
    engine: Annotated[
        str,
        typer.Option(help="local, or ray: several processes or machines, the same table."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster that is there, HOST:PORT; one is started here if not given."
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that hold the scorers, for --engine ray; one per GPU if not given."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Score images for their prompts; higher is better.

    Scores compare the images of one prompt, not images of different prompts. So beside each score stand its place
    among the images of the prompt: the percentile, and the softmax share, which says how often people would pick it as
    the scorer's paper reads its scores. The card of a scorer says its unit: hps is 100 times the cosine, pickscore and
    mps give the cosine times the logit scale, image-reward its standardised reward.

    With --out the scores are written as a table, and an interrupted command goes on where it stopped. An image that
    cannot be read is a row with an error, and the exit status is not 0 unless --allow-errors is given; the same command
    then tries such images again.

    Scores are exact float32; --fast takes fewer bits where that is faster here, and the fingerprint says so.

    Example: palate score fox.png cat.png --scorer hps-v1 --weights hpc.pt --prompt "a red fox"

    Example: palate score images --scorer hps-v2.1=HPS_v2.1_compressed.pt --scorer pickscore=PickScore_v1 --out s.csv

    Example: palate score runs/images --scorer runs/train --out scores.parquet --gallery scores.html

    Example: palate score list.csv --scorer hps-v2.1=HPS_v2.1_compressed.pt --out s.parquet --engine ray --ray-workers 2
    """
    from palate.data.urls import as_place
    from palate.scoring.engine import choose_engine
    from palate.scoring.inputs import gather_images
    from palate.scoring.recipe import Recipe, use_engine
    from palate.scoring.score import ScoreSettings, refuse_errors, run_scores, score_gathered

    _refuse_early(out, gallery, engine, address, ray_workers)
    settings = ScoreSettings(
        batch=batch, exif=exif, **({} if workers is None else {"workers": workers})
    )
    if engine != "ray":
        spare_pandas()
    recipe = Recipe(
        scorers=tuple(scorer),
        weights=weights,
        tokenizer=tokenizer,
        architecture=architecture,
        clip=clip,
        conditions=tuple(condition or ()),
        mask_threshold=mask_threshold,
        device=device,
    )
    # the workers have the device; this process only says which scorers they are
    judges = (replace(recipe, device="cpu") if engine == "ray" else recipe).load()
    reads = any(judge.reads_prompts for judge in judges)
    places = [as_place(text) for text in images]
    gathered = gather_images(places, prompt=prompt, prompts=prompts, need_prompts=reads)
    if gallery is not None:
        gathered.refuse_gallery()
    count = gathered.survey.images
    how = choose_engine(
        device=device, images=count, fast=fast, precision=precision, backend=backend
    )
    use_engine(judges, how)
    scores: Any = None
    with _cache(cache, count, off=no_cache) as kept:
        if out is None:
            scores, result = score_gathered(gathered, judges, settings, cache=kept)
        else:
            result = run_scores(
                gathered,
                judges,
                as_place(out),
                settings,
                cache=kept,
                score=_on_ray(recipe, how, address, ray_workers) if engine == "ray" else None,
                allow_errors=allow_errors,
                overwrite=overwrite,
            )
    _tell(scores, result, as_json=as_json)
    if gallery is not None:
        from palate.evaluation.gallery import write_gallery
        from palate.scoring.output import read_scores

        scores = read_scores(_written(result)) if scores is None else scores
        write_gallery(scores, gathered.images, gathered.folder, gallery, exif=exif)
        typer.echo(f"gallery: {gallery}", err=as_json)
    refuse_errors(result, out, allow_errors=allow_errors)


def _refuse_early(
    out: str | None,
    gallery: Path | None,
    engine: str,
    address: str | None,
    ray_workers: int | None,
) -> None:
    """Refuse what could not be done before anything is loaded."""
    from palate.errors import DataError, SettingsError
    from palate.scoring.output import is_score_file

    pages = {".html", ".htm"}
    if gallery is not None and (gallery.suffix.lower() not in pages or gallery.is_dir()):
        raise DataError(f"{gallery}: the gallery is a page, expected a name that ends in .html")
    if out is not None:
        is_score_file(Path(out))
    if engine not in {"local", "ray"}:
        raise SettingsError(f"--engine is '{engine}', expected local or ray")
    if engine == "ray" and out is None:
        raise SettingsError("--engine ray writes its scores, expected --out as well")
    if engine == "local" and (address is not None or ray_workers is not None):
        raise SettingsError("--address and --ray-workers go with --engine ray")


def _on_ray(recipe: Recipe, how: Engine, address: str | None, workers: int | None) -> PieceScorer:
    from palate.scoring.ray_engine import Cluster, RayEngine

    return RayEngine(recipe, how, Cluster(address=address, workers=workers))


@contextlib.contextmanager
def _cache(folder: Path | None, images: int | None, *, off: bool) -> Iterator[FeatureCache | None]:
    """Open the cache; for a few images it costs more to name their features than to look at them."""
    from palate.errors import SettingsError
    from palate.scoring.cache import FeatureCache, default_folder, default_limit

    if off and folder is not None:
        raise SettingsError("--no-cache and --cache exclude each other")
    if off or (folder is None and images is not None and images < _WORTH_KEEPING):
        yield None
        return
    with FeatureCache(folder or default_folder(), default_limit()) as cache:
        yield cache


def _tell(scores: Any, result: dict[str, Any], *, as_json: bool) -> None:
    """Print scores for machines or for people: all of a table in memory, of a large file the first."""
    from palate.scoring.output import read_first, read_scores, rows_with_standing

    if as_json:
        shown = result if scores is None else {"scores": rows_with_standing(scores)}
        typer.echo(json.dumps(shown, ensure_ascii=False))
        return
    count = result["images"] * len(result["scorers"])
    if scores is None and count > _READ_BACK:
        lines = [_plain(row) for row in read_first(_written(result), _SHOWN)]
        lines.append(f"… and {count - len(lines)} scores more")
    else:
        table = read_scores(_written(result)) if scores is None else scores
        lines = _lines(rows_with_standing(table, 100_000))
    for line in lines:
        typer.echo(line)
    if result["scores"] is not None:
        typer.echo(f"{count} scores: {result['scores']}{_from_cache(result)}")


def _written(result: dict[str, Any]) -> Path:
    """Find the table that was written; one behind a URL is copied here."""
    from palate.data.urls import as_place, copy_here

    place = as_place(result["scores"])
    return place if isinstance(place, Path) else copy_here(place)


def _plain(row: dict[str, Any]) -> str:
    value = f"{float(row['value']):.4f}" if row["value"] not in {None, ""} else "error"
    return f"{value}  {row['image']}  {_short(row['prompt'])!r}"


def _from_cache(result: dict[str, Any]) -> str:
    rate = (result.get("cache") or {}).get("hit_rate")
    return f" ({100 * rate:.0f} % of the image features from the cache)" if rate else ""


def _lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Write scores as tables for people: one per scorer and prompt, the best image first."""
    from palate.cli._text import text_table

    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["prompt"], row["scorer"], row["dimension"]), []).append(row)
    lines: list[str] = []
    for (prompt, name, dimension), members in groups.items():
        lines.append(f"{_short(prompt)!r}{_cut(members)}")
        members.sort(key=lambda row: (row["rank"] is None, row["rank"] or 0))
        told = [f"{name} {dimension}" if dimension != "overall" else name, "share", "%ile", "image"]
        cells = [_cells(row) for row in members]
        lines += text_table([f"{told[0]} [{members[0]['unit']}]", *told[1:]], cells, "012").split(
            "\n"
        )
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"… and {len(lines) - _SHOWN} lines more"]
    return lines


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 70 else prompt[:69] + "…"


def _cut(rows: Sequence[dict[str, Any]]) -> str:
    """Say how much of a prompt was read, where not all was."""
    told = [row for row in rows if row["tokens_given"] is not None]
    if not told or told[0]["tokens_kept"] == told[0]["tokens_given"]:
        return ""
    return f"  (read {told[0]['tokens_kept']} of {told[0]['tokens_given']} tokens)"


def _cells(row: dict[str, Any]) -> list[str]:
    value = "error" if row["value"] is None else f"{row['value']:.4f}"
    share = "" if row["share"] is None else f"{100 * row['share']:.1f} %"
    place = "" if row["percentile"] is None else f"{row['percentile']:.0f}"
    area = row["area_kept"]
    crop = f"  (sees {100 * area:.0f} % of it)" if area is not None and area < 0.995 else ""
    why = f": {row['error']}" if row["error"] else ""
    return [value, share, place, f"{row['image']}{crop}{why}"]

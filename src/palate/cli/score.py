"""`palate score`: score images for their prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

_SHOWN = 40


def score(  # noqa: PLR0917 - typer makes options of them
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, a folder of images, images.parquet, or a data set folder."
        ),
    ],
    scorer: Annotated[
        str,
        typer.Option(
            help="miniature, hps-v1, or a folder that `palate train` or transformers saved."
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(help="The scorer's official checkpoint file (hps-v1: hpc.pt).")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="Vocabulary for a checkpoint file: bpe_simple_vocab_16e6.txt.gz or a folder; looked for "
            "beside the weights if not given."
        ),
    ] = None,
    architecture: Annotated[
        Path | None,
        typer.Option(help="JSON with the attention heads of weights of an unusual size."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="One prompt for all images.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompt of each image: .csv or .jsonl with image and prompt, or .txt."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write (scores.parquet), or a folder for it.")
    ] = None,
    allow_errors: Annotated[
        bool, typer.Option("--allow-errors", help="Accept images that cannot be scored.")
    ] = False,
    exif: Annotated[
        bool, typer.Option("--exif", help="Turn images as EXIF says; the official codes do not.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    device: Annotated[str, typer.Option(help="Where it runs: cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score images for their prompts; higher is better.

    Scores compare the images of one prompt, not images of different prompts. The unit hps is 100
    times the cosine. With --out the scores are written as a table, and an interrupted command goes
    on where it stopped. An image that cannot be read is a row with an error, and the exit status is
    not 0 unless --allow-errors is given.

    Example: palate score fox.png cat.png --scorer hps-v1 --weights hpc.pt --prompt "a red fox"

    Example: palate score runs/images --scorer runs/train --out scores.parquet
    """
    from palate.data.tables import read_table
    from palate.scoring.catalog import load_scorer
    from palate.scoring.inputs import gather_images
    from palate.scoring.score import ScoreSettings, accept_errors, score_images, score_table

    gathered = gather_images(images, prompt=prompt, prompts=prompts)
    judge = load_scorer(
        scorer, weights, tokenizer=tokenizer, architecture=architecture, device=device
    )
    settings = ScoreSettings(batch=batch, exif=exif)
    if out is None:
        scores = score_table(gathered.images, gathered.folder, judge, settings)
        _tell(scores, {"scores": None}, as_json=as_json)
        accept_errors(scores, None, allow_errors=allow_errors)
        return
    result = score_images(
        gathered, judge, out, settings, allow_errors=allow_errors, overwrite=overwrite
    )
    _tell(read_table(Path(result["scores"]), "scores"), result, as_json=as_json)


def _tell(scores: Any, result: dict[str, Any], *, as_json: bool) -> None:
    """Print scores for machines or for people."""
    if as_json:
        rows = scores.to_pylist() if result["scores"] is None else None
        typer.echo(json.dumps(result if rows is None else {"scores": rows}, ensure_ascii=False))
        return
    for line in _lines(scores):
        typer.echo(line)
    if result["scores"] is not None:
        typer.echo(f"{len(scores)} scores: {result['scores']}")


def _lines(scores: Any) -> list[str]:
    """Write scores as a table for people: prompt by prompt, the best first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in scores.slice(0, 100_000).to_pylist():
        groups.setdefault(row["prompt"], []).append(row)
    lines: list[str] = []
    for prompt, rows in groups.items():
        tokens = [row for row in rows if row["tokens_given"] is not None]
        cut = tokens[0] if tokens and tokens[0]["tokens_kept"] < tokens[0]["tokens_given"] else None
        short = prompt if len(prompt) <= 70 else prompt[:69] + "…"
        told = f"  (read {cut['tokens_kept']} of {cut['tokens_given']} tokens)" if cut else ""
        lines.append(f"{short!r}{told}")
        rows.sort(key=lambda row: -row["value"] if row["value"] is not None else float("inf"))
        for row in rows:
            value = f"{row['value']:10.4f}" if row["value"] is not None else "     error"
            why = f": {row['error']}" if row["error"] else ""
            lines.append(f"{value} {row['unit']}  {row['image']}{why}")
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"… and {len(lines) - _SHOWN} lines more"]
    return lines

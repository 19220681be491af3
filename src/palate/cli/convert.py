"""`palate convert`: write an official checkpoint once as a standard folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.cli._options import ArchitectureOption, ClipOption, JsonOption, TokenizerOption


def convert(  # noqa: PLR0917 - typer makes options of them
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="The official checkpoint: a path, or a Hub id such as "
            "xswu/HPSv2@REVISION/HPS_v2.1_compressed.pt."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; it becomes a scorer.")],
    scorer: Annotated[
        str | None,
        typer.Option(
            help="hps-v1, hps-v2, hps-v2.1, pickscore, image-reward, mps, aesthetic or clip-score; "
            "NAME@PROFILE for another official code path. Told from the tensors where they leave no doubt."
        ),
    ] = None,
    tokenizer: TokenizerOption = None,
    architecture: ArchitectureOption = None,
    clip: ClipOption = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in 16 bits.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an older conversion.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write an official checkpoint once as a standard folder with the same scores.

    `palate score --scorer FOLDER` reads it, the Hub shows its README.md, and transformers loads it where it is a CLIP.
    Nothing from the checkpoint is run. The folder appears in whole or not at all, after its scores were found to be
    those of the checkpoint. With --half, what the scores lose is said; a checkpoint of 16 bits loses nothing.

    Example: palate convert hpc.pt models/hps-v1 --scorer hps-v1 --half

    Example: palate convert MPS_overall_checkpoint.pth models/mps --tokenizer CLIP-ViT-H-14

    Example: palate convert sac+logos+ava1-l14-linearMSE.pth models/aesthetic --clip ViT-L-14.pt
    """
    from palate.scoring.convert import ConvertSettings, convert_checkpoint

    result = convert_checkpoint(
        checkpoint,
        out,
        scorer,
        tokenizer=tokenizer,
        architecture=architecture,
        clip=clip,
        settings=ConvertSettings(half=half),
        overwrite=overwrite,
    )
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _sentence(result, out))


def _sentence(result: dict[str, Any], out: Path) -> str:
    """Say what was written, and whether anything was lost."""
    size = result["bytes"] / 1e6
    told = f"{result['scorer']}@{result['profile']}, {size:,.1f} MB: {out}"
    source = result["source"]["file"]
    if result["identical"]:
        return f"{told}\nits scores are those of {source}, bit for bit"
    return (
        f"{told}\nin 16 bits its scores differ from those of {source}: by up to "
        f"{result['loss']:.2g} ({result['unit']}) on made-up pictures"
    )

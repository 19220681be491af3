"""`palate convert`: write an official checkpoint once as a standard folder, or an adapter in another form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from palate.cli._options import ArchitectureOption, ClipOption, JsonOption, TokenizerOption


def convert(  # noqa: PLR0917 - typer makes options of them
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="The official checkpoint: a path, or a Hub id such as "
            "xswu/HPSv2@REVISION/HPS_v2.1_compressed.pt. Or an adapter: a LoRA file, or its folder."
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="Folder to write; it becomes a scorer. For an adapter also a file that ends in .safetensors."
        ),
    ],
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
    form: Annotated[
        Literal["diffusers", "kohya"] | None,
        typer.Option("--format", help="How an adapter is written [diffusers]."),
    ] = None,
    identifier: Annotated[
        str | None,
        typer.Option(help="Words that an adapter marks rejected images with, put into its file."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an older conversion.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write an official checkpoint once as a standard folder with the same scores, or an adapter for other tools.

    `palate score --scorer FOLDER` reads it, the Hub shows its README.md, and transformers loads it where it is a CLIP.
    Nothing from the checkpoint is run. The folder appears in whole or not at all, after its scores were found to be
    those of the checkpoint. With --half, what the scores lose is said; a checkpoint of 16 bits loses nothing.

    An adapter (LoRA) is told by its tensors. It is read in diffusers' form, in kohya's, and in that of the adapter
    that HPS published; --format kohya is for most tools that make images. The product of every layer stays the same.

    Example: palate convert hpc.pt models/hps-v1 --scorer hps-v1 --half

    Example: palate convert MPS_overall_checkpoint.pth models/mps --tokenizer CLIP-ViT-H-14

    Example: palate convert sac+logos+ava1-l14-linearMSE.pth models/aesthetic --clip ViT-L-14.pt

    Example: palate convert adapted_model.bin adapters/hps --identifier "Weird image. "

    Example: palate convert runs/adapted adapted.safetensors --format kohya
    """
    from palate.errors import SettingsError
    from palate.generation.adapters import is_adapter
    from palate.scoring.convert import ConvertSettings, convert_checkpoint

    path = Path(checkpoint)
    if scorer is None and path.exists() and is_adapter(path):
        if tokenizer or architecture or clip or half:
            raise SettingsError(
                f"{checkpoint}: is an adapter, which --tokenizer, --architecture, --clip and --half are not for"
            )
        _convert_adapter(path, out, form, identifier, overwrite=overwrite, as_json=as_json)
        return
    if form is not None or identifier is not None:
        raise SettingsError(
            f"{checkpoint}: is no adapter, expected one with --format or --identifier"
        )

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


def _convert_adapter(
    path: Path,
    out: Path,
    form: Literal["diffusers", "kohya"] | None,
    identifier: str | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write an adapter in another form, and say what it is."""
    from palate.adaptation.lora_files import convert_adapter

    result = convert_adapter(
        path, out, form or "diffusers", identifier=identifier, overwrite=overwrite
    )
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    ranks, alphas = (", ".join(f"{n:g}" for n in result[name]) for name in ("ranks", "alphas"))
    typer.echo(
        f"adapter of {result['layers']} layers, rank {ranks}, alpha {alphas}, "
        f"from {result['read_as']} to {result['written_as']}: {result['adapter']}"
    )
    if result["identifier"]:
        typer.echo(f"`palate generate` takes {result['identifier']!r} as its negative prompt")
    else:
        typer.echo("note: it names no identifier; give one with --identifier if it has one")


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

"""Options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

WeightsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="The scorer's official checkpoint: a path, or a Hub id such as "
        "xswu/HPSv2@REVISION/HPS_v2.1_compressed.pt.",
    ),
]
TokenizerOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        help="Vocabulary for a checkpoint file: bpe_simple_vocab_16e6.txt.gz, vocab.txt, or a folder; "
        "looked for beside the weights if not given.",
    ),
]
ArchitectureOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--architecture", help="JSON with what the weights do not tell, such as attention heads."
    ),
]
ClipOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--clip", help="The CLIP that an aesthetic head was trained on."),
]
DeviceOption: TypeAlias = Annotated[
    str, typer.Option("--device", help="Where it runs: cpu or cuda.")
]
ImagesOption: TypeAlias = Annotated[
    int | None, typer.Option("--images", help="Images per prompt [4].")
]
StepsOption: TypeAlias = Annotated[int | None, typer.Option("--steps", help="Sampling steps [50].")]
GuidanceOption: TypeAlias = Annotated[
    float | None, typer.Option("--guidance", help="Guidance scale [7.5].")
]
BatchOption: TypeAlias = Annotated[
    int | None, typer.Option("--batch", help="Images at a time [4].")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

DataArgument: TypeAlias = Annotated[
    Path, typer.Argument(help="Folder of a data set with choices, or choices.parquet.")
]
DimensionOption: TypeAlias = Annotated[
    str | None, typer.Option("--dimension", help="One dimension; all of them if not given.")
]


def scores_path(path: Path) -> Path:
    """The table of scores that a path names: a file, or the one in the folder of a run of `score`."""
    return path / "scores.parquet" if path.is_dir() else path

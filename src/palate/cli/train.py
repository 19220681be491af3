"""`palate train`: teach a scorer from choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def train(  # noqa: PLR0917 - typer makes options of them
    dataset: Annotated[Path, typer.Argument(help="Folder of a data set with images and choices.")],
    base: Annotated[
        str,
        typer.Option(help="What to start from: miniature, a saved folder, or a checkpoint file."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the run; it becomes a scorer.")],
    validation: Annotated[
        Path | None,
        typer.Option(help="Data set whose top-1 accuracy picks the best checkpoint."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file with a [train] table.")] = None,
    dimension: Annotated[
        list[str] | None,
        typer.Option(help="Which choices to learn ['overall']; several times for several."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Kind of scorer: towers [a CLIP or SigLIP], mps, image-reward or aesthetic [towers]."
        ),
    ] = None,
    objective: Annotated[
        Literal["choice", "pairs", "rankings"] | None,
        typer.Option(help="Softmax over a prompt's images, over two, or ranked pairs [choice]."),
    ] = None,
    image_layers: Annotated[
        int | None, typer.Option(help="Last layers of the image tower to train [3].")
    ] = None,
    text_layers: Annotated[
        int | None, typer.Option(help="Last layers of the text tower to train [3].")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps [from --epochs].")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Times that every choice is seen [10, without --steps].")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Choices at a time [24].")] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts in which a batch is computed, to save memory [1].")
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Of the towers [float32].")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Highest learning rate [5e-4].")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the order of choices and images [0].")
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between saved states [100].")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Vocabulary file or folder for a checkpoint file.")
    ] = None,
    architecture: Annotated[
        Path | None, typer.Option(help="JSON with the attention heads of a checkpoint file.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where it runs: cpu or cuda.")] = "cpu",
    licence: Annotated[
        str | None,
        typer.Option(
            "--license", help="Licence of the weights for the model card, in the Hub's words."
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Upload the scorer to this repository of the Hub, private if it is new."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Teach a scorer from choices: of a prompt's images, the chosen one should score highest.

    The last layers of a CLIP, SigLIP, MPS or BLIP are trained, or a head on a CLIP's features. The result
    is a folder for `palate score --scorer`, with a model card (README.md) that has curves, accuracy,
    calibration and audits. An interrupted training goes on where it was saved last, and ends bit for bit
    as if it had not been.

    Example: palate train choices/train --base miniature --validation choices/val --out runs/hps

    Example: palate train hpd_v1 --base clip-vit-l-14 --recipe recipes/hps-v1.toml --out runs/hps
    """
    from palate.data.tables import load_dataset
    from palate.evaluation.trained.describe import describe_trained
    from palate.evaluation.trained.push import push_trained
    from palate.scoring.catalog import miniature_folder
    from palate.settings import read_settings
    from palate.training.learners.make import load_base
    from palate.training.processes import start_processes
    from palate.training.settings import TrainSettings
    from palate.training.train import train as teach

    given = {
        "model": model,
        "dimensions": tuple(dimension) if dimension else None,
        "objective": objective,
        "accumulate": accumulate,
        "precision": precision,
        "image_layers": image_layers,
        "text_layers": text_layers,
        "steps": steps,
        "epochs": 10.0 if (recipe, steps, epochs) == (None, None, None) else epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "seed": seed,
        "save_every": save_every,
    }
    settings = read_settings(TrainSettings, recipe, given, section="train" if recipe else None)
    choices = load_dataset(dataset)
    held = load_dataset(validation) if validation else None
    path = miniature_folder() if base == "miniature" else Path(base)
    start = load_base(path, settings, tokenizer=tokenizer, architecture=architecture, device=device)
    processes = start_processes(str(start.device.type), out, settings.trackers)
    result = teach(choices, start, out, settings, held, overwrite=overwrite, processes=processes)
    if not processes.first:
        return
    describe_trained(out, choices, held, base=base, licence=licence)
    typer.echo(json.dumps(result) if as_json else _sentence(result, out))
    if push_to_hub:
        typer.echo(f"pushed to {push_trained(out, push_to_hub)}", err=as_json)


def _sentence(result: dict[str, Any], out: Path) -> str:
    """Say what a training found."""
    learnt = f"{result['steps']} steps on {result['choices']} choices: {out}"
    if not result["validation"]:
        return f"{learnt}\nno validation: the last step is kept"
    return (
        f"{learnt}\nvalidation top-1 {result['validation']['accuracy']:.3f} at step "
        f"{result['best_step']} (before training {result['before']['accuracy']:.3f}, chance "
        f"{result['chance']:.3f}; {result['validation_choices']} choices, ties: expected)"
    )

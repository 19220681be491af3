"""`palate demo`: the whole loop in the simulated world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run [default: runs/demo, runs/demo-quick, …]."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smaller run, to see every step once.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="The whole experiment: three seeds, 1,003 prompts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Run the whole loop in a small simulated world and write a report with pictures.

    Simulated people choose between images, a classifier learns from their choices, images are
    scored and labelled, a generator is adapted, and the report says whether it got better.
    Interrupted, the same command goes on where it stopped.

    Example: palate demo --quick
    """
    from palate.errors import SettingsError
    from palate.miniature.demo import run_demo
    from palate.miniature.loop import Preset

    if quick and full:
        raise SettingsError("--quick and --full were both given, expected one of them")
    preset: Preset = "quick" if quick else "full" if full else "demo"
    folder = out or Path("runs") / ("demo" if preset == "demo" else f"demo-{preset}")
    page, found, sentence = run_demo(folder, preset, say=lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(sentence)
        typer.echo(f"Report: {page}")

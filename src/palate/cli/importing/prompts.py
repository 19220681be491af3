"""`palate data import prompts`: the prompt lists that generators are compared on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from palate.cli.importing.app import AllowErrors, AsJson, import_app


@import_app.command("prompts")
def prompts(
    file: Annotated[
        Path,
        typer.Argument(
            help="PartiPrompts.tsv, a CSV of DrawBench, anime.json or another list of the HPS v2 "
            "benchmark, benchmark-prompts.json, or text with one prompt a line."
        ),
    ],
    out: Annotated[Path, typer.Option(help="JSON Lines file for the prompts.")],
    form: Annotated[
        Literal["parti", "drawbench", "hps", "image-reward", "text"] | None,
        typer.Option("--list", help="Form of the list [guessed]."),
    ] = None,
    allow_errors: AllowErrors = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a prompt list into the file that `palate generate --prompts` reads.

    Categories and notes stay beside the prompts. Repeated prompts are kept and counted.

    Example: palate data import prompts PartiPrompts.tsv --out parti.jsonl
    """
    from palate.cli._text import plural
    from palate.data.prompt_lists import (
        expected_prompts,
        guess_list,
        read_prompt_list,
        write_prompts,
    )
    from palate.data.sources.common import Faults
    from palate.errors import RunError, SettingsError

    if out.suffix.lower() != ".jsonl":
        raise SettingsError(f"{out}: prompts are written as JSON Lines, expected a name in .jsonl")
    if out.exists() and not overwrite:
        raise RunError(f"{out}: exists; --overwrite replaces it")
    kind = form or guess_list(file)
    faults = Faults(str(file), allow_errors)
    read = read_prompt_list(file, kind, faults)
    counts = write_prompts(read, out, expected=expected_prompts(file, kind))
    result = {"list": kind, **counts.to_dict(), "faults": faults.to_dict()}
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    typer.echo(f"{plural(counts.prompts, 'prompt')} ({kind}): {out}")
    if counts.repeats:
        typer.echo(f"  repeated prompts: {counts.repeats:,}, first {counts.first_repeat!r}")
    if counts.expected not in {None, counts.prompts}:
        typer.echo(f"  note: the official list has {plural(counts.expected or 0, 'prompt')}")
    if faults.count:
        typer.echo(f"  bad rows left out: {faults.count:,}, first {faults.examples[:1]}")

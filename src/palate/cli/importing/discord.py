"""`palate data import discord`: picks from a channel in which a bot made images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from palate.cli.importing.app import (
    AllowErrors,
    AsJson,
    MaxPixels,
    NoExtract,
    Out,
    Overwrite,
    import_app,
    run_import,
)


@import_app.command("discord")
def discord(  # noqa: PLR0917 - typer makes options of them
    export: Annotated[
        Path,
        typer.Argument(
            help="JSON of DiscordChatExporter, or a folder with the parts of a channel."
        ),
    ],
    out: Out,
    legal_basis: Annotated[
        str, typer.Option(help="Why these people's messages may be used; kept in the run record.")
    ],
    key: Annotated[
        Path, typer.Option(help="File of the secret for pseudonyms; made if it is not there.")
    ],
    dialect: Annotated[
        str, typer.Option(help="dreambot, midjourney, reactions, or a .toml file.")
    ] = "dreambot",
    deletions: Annotated[
        Path | None, typer.Option(help="User ids to leave out, one per line.")
    ] = None,
    several: Annotated[
        Literal["drop", "first", "last", "multi"],
        typer.Option(help="What happens if one person picked several images of a grid."),
    ] = "drop",
    who: Annotated[
        Literal["requester", "anyone"], typer.Option(help="Whose picks count.")
    ] = "requester",
    within_hours: Annotated[
        float, typer.Option(help="How long after a grid a pick is inferred.")
    ] = 24.0,
    without_media: Annotated[
        bool, typer.Option("--without-media", help="Import an export whose files were not saved.")
    ] = False,
    truncated: Annotated[
        Literal["fail", "keep"], typer.Option(help="What happens with an unfinished export.")
    ] = "fail",
    allow_errors: AllowErrors = False,
    no_extract: NoExtract = False,
    max_pixels: MaxPixels = 100_000_000,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import who picked which image in a channel, with a funnel that accounts for every message.

    Export the channel with a bot token, --media, --utc and --markdown false. Picks are inferred by named
    rules; each choice says by which, and how sure that is.

    Example: palate data import discord export --dialect midjourney --key secrets/discord.key
    --legal-basis "members agreed on 2026-01-15 (form 3)" --out data/channel
    """
    from palate.data.sources.discord import DiscordSettings
    from palate.data.sources.discord import discord as open_export

    settings = DiscordSettings(
        legal_basis=legal_basis,
        dialect=dialect,
        several=several,
        who=who,
        within_hours=within_hours,
        media=not without_media,
        truncated=truncated,
        allow_errors=allow_errors,
        extract=not no_extract,
        max_pixels=max_pixels,
    )
    source = open_export(export, key, settings, deletions)
    result = run_import(
        source, out, overwrite=overwrite, as_json=as_json, keep=[export, key, deletions]
    )
    if not as_json:
        _tell_funnel(result)


def _tell_funnel(result: dict[str, object]) -> None:
    """Say what became of every message and of every grid."""
    from palate.cli._text import plural, text_table

    for name, noun in (("messages", "message"), ("grids", "grid"), ("rules", "choice")):
        counts = result[name]
        if isinstance(counts, dict) and counts:
            typer.echo(f"\n{plural(sum(counts.values()), noun)}")
            rows = [
                [kind.replace("_", " "), f"{number:,}"]
                for kind, number in sorted(counts.items(), key=lambda item: -item[1])
            ]
            typer.echo(
                text_table([{"rules": "rule"}.get(name, "what it was"), "number"], rows, "1")
            )

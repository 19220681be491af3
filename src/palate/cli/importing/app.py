"""The group of import commands, the options they share, and what they say at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from palate.cli._text import plural

if TYPE_CHECKING:
    from palate.data.sources.common import Source

import_app = typer.Typer(
    help="Turn images and choices from elsewhere into a data set.", no_args_is_help=True
)

Out: TypeAlias = Annotated[
    Path, typer.Option(help="Folder for the data set; new, or of the same import.")
]
Images: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder that the names of image files count from [beside it].")
]
RequireImages: TypeAlias = Annotated[
    bool, typer.Option("--require-images", help="Refuse if an image file is not there.")
]
AllowErrors: TypeAlias = Annotated[
    bool, typer.Option("--allow-errors", help="Leave bad rows out and count them.")
]
HeadersOnly: TypeAlias = Annotated[
    bool,
    typer.Option("--headers-only", help="Do not decode images: quicker, misses truncated files."),
]
MaxPixels: TypeAlias = Annotated[
    int, typer.Option(help="Refuse images with more pixels than this.")
]
NoExtract: TypeAlias = Annotated[
    bool, typer.Option("--no-extract", help="Do not write images that lie inside other files.")
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")]
Own: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A setting of this set, name=value; its page in docs/sources has them."
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

_TOLD_ELSEWHERE = {"images", "choices", "prompts", "missing_first", "faults", "missing_images"}
_AMOUNTS = {"records", "files", "ratings", "raters", "rankings", "surveys"}
_WORDS = {
    "all_tied": "choices that tie all their images",
    "repeats": "images rated again by the same person",
    "single": "answers with one image only",
    "too_close": "pairs below the minimum gap",
    "unfinished_raters": "unfinished people",
}


def run_import(
    source: Source, out: Path, *, overwrite: bool, as_json: bool, keep: Sequence[Path | None] = ()
) -> dict[str, Any]:
    """Import a source, say what came in and what was left out, and return the result."""
    from palate.data.importing import write_import

    result = write_import(
        source, out, overwrite=overwrite, keep=[path for path in keep if path is not None]
    )
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return result
    typer.echo(
        f"{plural(result['choices'], 'choice')} between {plural(result['images'], 'image')}"
        f" of {plural(result['prompts'], 'prompt')}: {out}"
    )
    for line in _remarks(result):
        typer.echo(f"  {line}")
    return result


def _remarks(result: dict[str, Any]) -> list[str]:
    """What was left out or is odd, one line each."""
    remarks = []
    missing = result.get("missing_images", 0)
    names = missing if isinstance(missing, list) else result.get("missing_first", [])
    count = len(missing) if isinstance(missing, list) else missing
    if count:
        shown = ", ".join(names[:3]) + (", …" if count > 3 else "")
        remarks.append(f"images without a file: {count:,} ({shown})")
    faults = result["faults"]
    if faults["count"]:
        remarks.append(f"bad rows left out: {faults['count']:,}, first {faults['first'][:1]}")
    for name, value in result.items():
        if name not in _TOLD_ELSEWHERE | _AMOUNTS:
            remarks += _remark(_WORDS.get(name, name.replace("_", " ")), value)
    return remarks


def _remark(name: str, value: Any) -> list[str]:
    extra = ""
    if isinstance(value, dict):
        extra = f", left out: {value['left_out']}" if "left_out" in value else ""
        value = value.get("count", 0)
    if isinstance(value, bool) or not isinstance(value, int) or not value:
        return []
    return [f"{name}: {value:,}{extra}"]

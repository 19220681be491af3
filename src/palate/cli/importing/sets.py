"""`palate data import SET`: the public sets, each by its own reader.

A set that needs nothing but its files is one entry of `SETS`: its command is made from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.cli.importing.app import (
    AllowErrors,
    AsJson,
    HeadersOnly,
    Images,
    MaxPixels,
    NoExtract,
    Out,
    Overwrite,
    RequireImages,
    import_app,
    run_import,
)


@dataclass(frozen=True)
class PublicSet:
    """A set that is read by one function of its file or folder, the folder of images and settings.

    `reader` is `module:function` in `palate.data.sources`; `takes` explains the argument.
    """

    reader: str
    takes: str
    help: str
    example: str


SETS: dict[str, PublicSet] = {
    "hpd-v1": PublicSet(
        reader="hpd_v1:hpd_v1",
        takes="preference_train.json or preference_test.json.",
        help="Import the human preference data of HPS v1 (official JSON).\n\n"
        "The release has no images beside the JSON; without them the choices are imported all the same.",
        example="palate data import hpd-v1 preference_test.json --out data/hpd",
    ),
    "hpd-v2": PublicSet(
        reader="hpd_v2:hpd_v2",
        takes="train.json (pairs) or test.json (rankings).",
        help="Import the human preference data of HPS v2 (official JSON).\n\n"
        "Every annotator's ranking of the test part is a choice of its own.",
        example="palate data import hpd-v2 HPDv2/test.json --out data/hpd2-test",
    ),
}


def _command(known: PublicSet) -> Callable[..., None]:
    """Make the command of a public set."""

    def command(  # noqa: PLR0917 - typer makes options of them
        path: Path,
        out: Out,
        images: Images = None,
        require_images: RequireImages = False,
        allow_errors: AllowErrors = False,
        headers_only: HeadersOnly = False,
        no_extract: NoExtract = False,
        max_pixels: MaxPixels = 100_000_000,
        overwrite: Overwrite = False,
        as_json: AsJson = False,
    ) -> None:
        from palate.data.sources.common import SourceSettings

        settings = SourceSettings(
            missing_images="fail" if require_images else "keep",
            allow_errors=allow_errors,
            decode=not headers_only,
            extract=not no_extract,
            max_pixels=max_pixels,
        )
        module, _, function = known.reader.partition(":")
        read: Any = getattr(import_module(f"palate.data.sources.{module}"), function)
        run_import(read(path, images, settings), out, overwrite=overwrite, as_json=as_json)

    command.__annotations__["path"] = Annotated[Path, typer.Argument(help=known.takes)]
    return command


for _name, _set in SETS.items():
    import_app.command(_name, help=f"{_set.help}\n\nExample: {_set.example}")(_command(_set))

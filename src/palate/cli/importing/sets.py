"""`palate data import SET`: the public sets, each by its own reader.

A set that needs nothing but its files is one entry of `SETS`: its command is made from it.
"""

from __future__ import annotations

import tomllib
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
    Own,
    RequireImages,
    import_app,
    run_import,
)


@dataclass(frozen=True)
class PublicSet:
    """A set that is read by one function of its file or folder, the folder of images and settings.

    `reader` is `module:function` in `palate.data.sources`; `takes` explains the argument. `settings` is
    the class of settings in that module, where the set has some of its own.
    """

    reader: str
    takes: str
    help: str
    example: str
    settings: str | None = None


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
    "image-reward": PublicSet(
        reader="image_reward:image_reward",
        takes="test.json, or the metadata of ImageRewardDB (JSON, JSON Lines or Parquet).",
        help="Import the rankings and ratings of ImageReward.\n\n"
        "Each of the three ratings of ImageRewardDB is a dimension.",
        example="palate data import image-reward test.json --out data/image-reward",
    ),
    "pick-a-pic": PublicSet(
        reader="pick_a_pic:pick_a_pic",
        takes="A Parquet file of Pick-a-Pic v1 or v2, or the folder of them.",
        help="Import the pairs of Pick-a-Pic, and write the images that lie inside the Parquet files.\n\n"
        "Rows without a label are no choices; they are counted, and their images come in.",
        example="palate data import pick-a-pic pickapic_v2 --out data/pick-a-pic",
    ),
    "agiqa-3k": PublicSet(
        reader="agiqa:agiqa_3k",
        takes="data.csv.",
        help="Import AGIQA-3K: mean opinions on quality and alignment.\n\n"
        "No person's own answers were released; choices say that they come from means.",
        example="palate data import agiqa-3k AGIQA-3K/data.csv --out data/agiqa3k",
        settings="OpinionSettings",
    ),
    "agiqa-1k": PublicSet(
        reader="agiqa:agiqa_1k",
        takes="AIGC_all.csv, AIGC_MOS_Zscore.xlsx, or the folder with both.",
        help="Import AGIQA-1K: mean opinions on quality.\n\n"
        "The workbook needs the extra 'sheets'; without it prompts are made of the names.",
        example="palate data import agiqa-1k AGIQA-1K/AIGC_all.csv --out data/agiqa1k",
        settings="OpinionSettings",
    ),
    "mhp": PublicSet(
        reader="mhp:mhp",
        takes="A JSON Lines file of pairs, as docs/sources/mhp.md describes it.",
        help="Import pairs judged on the four dimensions of MPS.\n\n"
        "MHP itself was never released; the layout is Palate's own.",
        example="palate data import mhp pairs.jsonl --images images --out data/mhp",
    ),
    "rich-hf": PublicSet(
        reader="rich_hf:rich_hf",
        takes="A .tfrecord file of RichHF-18K, or the folder of them.",
        help="Import RichHF-18K: scores, heat maps and word labels.\n\n"
        "Prompts and files come from an imported Pick-a-Pic v1 (--images FOLDER); without it there are no "
        "choices.",
        example="palate data import rich-hf richhf-18k --images data/pick-a-pic --out data/rich",
        settings="OpinionSettings",
    ),
    "simulacra": PublicSet(
        reader="simulacra:simulacra",
        takes="The folder of graded samples, or the SQLite database.",
        help="Import Simulacra Aesthetic Captions: grades or ratings.\n\n"
        "It says whether the database tells who rated; where not, the annotator is unknown.",
        example="palate data import simulacra sac_public_2022_06_29.sqlite --images sac --out data/sac",
    ),
    "diffusion-db": PublicSet(
        reader="diffusion_db:diffusion_db",
        takes="metadata.parquet, metadata-large.parquet, a folder of parts, or one part.",
        help="Import the images of DiffusionDB with prompts and settings; there are no choices.\n\n"
        "Images that the host's filter blurred are marked; NSFW marks stay in the details.",
        example="palate data import diffusion-db metadata.parquet --images images --out data/diffusiondb",
        settings="DiffusionDbSettings",
    ),
    "hps-benchmark": PublicSet(
        reader="hps_benchmark:hps_benchmark",
        takes="Folder of generated images, or the folder of prompts (then --images says where they are).",
        help="Import images of the HPS v2 benchmark by the place of their prompt; there are no choices.",
        example="palate data import hps-benchmark images/sd14 --out data/sd14",
        settings="HpsBenchmarkSettings",
    ),
    "webdataset": PublicSet(
        reader="webdataset:webdataset",
        takes="A tar, or a folder of tars.",
        help="Import images and prompts from WebDataset tars, and the choices in Palate's own.",
        example="palate data import webdataset shards --out data/mine",
    ),
}


def _given(own: list[str]) -> dict[str, object]:
    """Settings as they were typed: numbers and truth values by TOML, anything else as text."""
    found: dict[str, object] = {}
    for pair in own:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not name=value", param_hint="--set")
        try:
            found[name] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            found[name] = value
    return found


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
        own: Own = None,
    ) -> None:
        from palate.data.sources.common import SourceSettings
        from palate.settings import read_settings

        name, _, function = known.reader.partition(":")
        module: Any = import_module(f"palate.data.sources.{name}")
        settings = read_settings(
            getattr(module, known.settings) if known.settings else SourceSettings,
            None,
            {
                "missing_images": "fail" if require_images else "keep",
                "allow_errors": allow_errors,
                "decode": not headers_only,
                "extract": not no_extract,
                "max_pixels": max_pixels,
                **_given(own or []),
            },
        )
        read = getattr(module, function)
        run_import(
            read(path, images, settings),
            out,
            overwrite=overwrite,
            as_json=as_json,
            keep=[path, images],
        )

    command.__annotations__["path"] = Annotated[Path, typer.Argument(help=known.takes)]
    return command


for _name, _set in SETS.items():
    import_app.command(_name, help=f"{_set.help}\n\nExample: {_set.example}")(_command(_set))

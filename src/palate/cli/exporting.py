"""`palate data export`: write a data set in the shapes that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from palate.cli._text import plural

if TYPE_CHECKING:
    from palate.data.exports.common import Images

export_app = typer.Typer(
    help="Write a data set in the shapes that other tools read.", no_args_is_help=True
)

DatasetFolder: TypeAlias = Annotated[Path, typer.Argument(help="Folder of a data set.")]
Out: TypeAlias = Annotated[
    Path, typer.Option(help="Folder for the export; new, or of the same export.")
]
Dimension: TypeAlias = Annotated[
    str | None, typer.Option(help="Take the choices of this dimension [the only one].")
]
AnyDimension: TypeAlias = Annotated[
    str | None, typer.Option("--dimension", help="Take the choices of this dimension only [all].")
]
LeaveOut: TypeAlias = Annotated[
    bool, typer.Option("--leave-out", help="Leave out and count choices that do not fit.")
]
Copy: TypeAlias = Annotated[
    bool, typer.Option("--copy", help="Copy image files, where hard links are made otherwise.")
]
WithoutImages: TypeAlias = Annotated[
    bool, typer.Option("--without-images", help="Take no image files along; they may be missing.")
]
AnnotatorKey: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Secret that names of people are hashed with [from the data set's content]."),
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

_WORDS = {
    "annotators_left_out": "choices whose annotator has no place in the shape",
    "images_without_files": "images without their files",
    "reordered": "rankings put into the order of their record's first",
    "ties_left_out": "tied pairs left out",
    "ties": "tied pairs, with label 0.5",
}


@export_app.command("hpd")
def hpd(  # noqa: PLR0917 - typer makes options of them
    dataset: DatasetFolder,
    out: Out,
    dimension: Dimension = None,
    leave_out: LeaveOut = False,
    copy: Copy = False,
    without_images: WithoutImages = False,
    annotator_key: AnnotatorKey = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write pick-one answers as the JSON of HPD v1, for the trainer of HPS v1.

    Only one best image with all others equal fits. Image files lie beside the JSON, in preference_images.

    Example: palate data export hpd data/mine --out exports/hpd --leave-out
    """
    from palate.data.exports.hpd_v1 import HpdSettings, export_hpd

    images = _images(copy, without_images)
    settings = HpdSettings(dimension, images, leave_out, annotator_key)
    _say(export_hpd(_load(dataset), out, settings, overwrite=overwrite), out, as_json)


@export_app.command("hpd-v2")
def hpd_v2(  # noqa: PLR0917 - typer makes options of them
    dataset: DatasetFolder,
    out: Out,
    form: Annotated[
        Literal["auto", "pairs", "rankings"],
        typer.Option(help="Pairs (train.json), rankings (test.json), or what each choice is."),
    ] = "auto",
    dimension: Dimension = None,
    leave_out: LeaveOut = False,
    copy: Copy = False,
    without_images: WithoutImages = False,
    annotator_key: AnnotatorKey = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write choices as the JSON of HPD v2: pairs for training, rankings for testing.

    A pair is a choice between two images with one winner. Choices between the same images of the same prompt
    are one ranking, with every annotator's own.

    Example: palate data export hpd-v2 data/mine --out exports/hpd2 --form pairs --leave-out
    """
    from palate.data.exports.hpd_v2 import HpdV2Settings, export_hpd_v2

    images = _images(copy, without_images)
    settings = HpdV2Settings(dimension, images, leave_out, form, annotator_key)
    _say(export_hpd_v2(_load(dataset), out, settings, overwrite=overwrite), out, as_json)


@export_app.command("pairs")
def pairs(  # noqa: PLR0917 - typer makes options of them
    dataset: DatasetFolder,
    out: Out,
    table: Annotated[
        Literal["jsonl", "csv", "parquet"], typer.Option("--format", help="Format of the table.")
    ] = "jsonl",
    ties: Annotated[
        bool, typer.Option("--ties", help="Keep pairs of equal rank, with label 0.5.")
    ] = False,
    annotators: Annotated[
        Literal["keep", "hash", "drop"], typer.Option(help="What becomes of the names of people.")
    ] = "keep",
    dimension: AnyDimension = None,
    copy: Copy = False,
    without_images: WithoutImages = False,
    annotator_key: AnnotatorKey = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a table of chosen and rejected images, for trainers of rewards and preferences (DPO).

    Every choice is taken apart into its pairs; a pick from four is three pairs and three ties.

    Example: palate data export pairs data/mine --out exports/pairs --format parquet
    """
    from palate.data.exports.pairs import PairsSettings, export_pairs

    settings = PairsSettings(
        dimension=dimension,
        images=_images(copy, without_images),
        format=table,
        ties=ties,
        annotators=annotators,
        annotator_key=annotator_key,
    )
    _say(export_pairs(_load(dataset), out, settings, overwrite=overwrite), out, as_json)


@export_app.command("imagereward")
def imagereward(
    dataset: DatasetFolder,
    out: Out,
    dimension: Dimension = None,
    copy: Copy = False,
    without_images: WithoutImages = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write rankings as the test.json of ImageReward, with ranks as they are.

    Example: palate data export imagereward data/mine --out exports/image-reward
    """
    from palate.data.exports.common import ExportSettings
    from palate.data.exports.image_reward import export_image_reward

    settings = ExportSettings(dimension, _images(copy, without_images))
    _say(export_image_reward(_load(dataset), out, settings, overwrite=overwrite), out, as_json)


@export_app.command("webdataset")
def webdataset(
    dataset: DatasetFolder,
    out: Out,
    images_per_tar: Annotated[int, typer.Option(help="Begin a new tar after so many.")] = 10_000,
    megabytes_per_tar: Annotated[
        int, typer.Option(help="Begin a new tar before it has more megabytes.")
    ] = 1000,
    dimension: AnyDimension = None,
    without_images: WithoutImages = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write images, prompts and choices as WebDataset tars, with all that the tables say.

    All choices are the last file of the last tar. Two exports of one data set are equal byte for byte.

    Example: palate data export webdataset data/mine --out exports/tars --images-per-tar 1000
    """
    from palate.data.exports.webdataset import WebDatasetSettings, export_webdataset

    settings = WebDatasetSettings(
        dimension=dimension,
        images=_images(False, without_images),
        images_per_tar=images_per_tar,
        megabytes_per_tar=megabytes_per_tar,
    )
    _say(export_webdataset(_load(dataset), out, settings, overwrite=overwrite), out, as_json)


@export_app.command("hf")
def hf(  # noqa: PLR0917 - typer makes options of them
    dataset: DatasetFolder,
    out: Out,
    split: Annotated[str, typer.Option(help="Name of the split.")] = "train",
    columns: Annotated[
        Literal["image", "bytes"],
        typer.Option(help="Image columns that decode, or plain bytes as in Pick-a-Pic."),
    ] = "image",
    megabytes_per_file: Annotated[
        int, typer.Option(help="Begin a new file before it has more megabytes.")
    ] = 500,
    dimension: AnyDimension = None,
    without_images: WithoutImages = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write pairs as Parquet in Pick-a-Pic's shape with a data card, for Hugging Face's datasets.

    Images lie inside the files, once for every pair. Every dimension is a configuration; people are numbered.

    Example: palate data export hf data/mine --out exports/hf --split train
    """
    from palate.data.exports.hf import HfSettings, export_hf

    settings = HfSettings(
        dimension=dimension,
        images=_images(False, without_images),
        split=split,
        columns=columns,
        megabytes_per_file=megabytes_per_file,
    )
    _say(export_hf(_load(dataset), out, settings, overwrite=overwrite), out, as_json)


def _load(folder: Path) -> Any:
    from palate.data.tables import load_dataset

    return load_dataset(folder)


def _images(copy: bool, without: bool) -> Images:
    if copy and without:
        raise typer.BadParameter("cannot be together with --copy", param_hint="--without-images")
    return "none" if without else "copy" if copy else "link"


def _say(result: dict[str, Any], out: Path, as_json: bool) -> None:
    """Say what was written and what was left out."""
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    nouns = ("record", "pair", "tar", "choice", "image")
    amounts = [plural(result[f"{noun}s"], noun) for noun in nouns if result.get(f"{noun}s")]
    typer.echo(f"{', '.join(amounts)}: {out}")
    left = result.get("left_out")
    if left:
        typer.echo(f"  {plural(left['count'], 'choice')} left out, first {left['first']}")
    for name, words in _WORDS.items():
        if result.get(name):
            typer.echo(f"  {words}: {result[name]:,}")

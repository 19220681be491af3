"""What looks at images: the options that say it, and how it is loaded and used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    from palate.evaluation.looks import Looks, NamedExtractor

InceptionOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--inception",
        help="Weights of an Inception v3, such as pt_inception-2015-12-05-6726825d.pth.",
    ),
]
VariantOption: TypeAlias = Annotated[
    Literal["fid", "torchvision"] | None,
    typer.Option(
        "--variant",
        help="Which Inception it is: that of published FIDs, or torchvision's own [fid].",
    ),
]
PreparationOption: TypeAlias = Annotated[
    Literal["pytorch-fid", "clean-fid"] | None,
    typer.Option(
        "--preparation", help="Whose way to 299 × 299 pixels the Inception gets [pytorch-fid]."
    ),
]
EyeOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--eye",
        help="Look through the image tower of a scorer instead: NAME=WEIGHTS or a saved folder.",
    ),
]
ColoursOption: TypeAlias = Annotated[
    bool, typer.Option("--colours", help="Look at colours alone, which needs no weights.")
]
FeaturesOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--features",
        help="Folder that keeps features, by extractor and content, for several runs; OUT/features if not given.",
    ),
]


def choose_extractor(
    inception: Path | None,
    variant: Literal["fid", "torchvision"] | None,
    preparation: str | None,
    eye: str | None,
    device: str,
    *,
    colours: bool,
) -> NamedExtractor | None:
    """Load what looks at images, if one was asked for."""
    from palate.errors import SettingsError
    from palate.evaluation.looks import COLOURS, eye_extractor, inception_extractor

    given = {"--inception": inception is not None, "--eye": eye is not None, "--colours": colours}
    asked = [name for name, own in given.items() if own]
    if len(asked) > 1:
        raise SettingsError(f"{' and '.join(asked)} exclude each other: images are seen by one")
    if inception is None and (variant or preparation):
        raise SettingsError("--variant and --preparation go with --inception")
    if inception is not None:
        from palate.models.inception import load_inception
        from palate.scoring.builders import check_device

        check_device(device)
        profile = preparation or "pytorch-fid"
        return inception_extractor(
            load_inception(inception, variant or "fid", profile, device=device)
        )
    if eye is not None:
        from palate.scoring.recipe import Recipe

        return eye_extractor(Recipe(scorers=(eye,), device=device).load()[0])
    return COLOURS if colours else None


def name_of(extractor: NamedExtractor | None) -> dict[str, str] | None:
    """Say for a run's record what looked."""
    return (
        None
        if extractor is None
        else {"name": extractor.name, "fingerprint": extractor.fingerprint}
    )


def look_at_path(
    path: Path, extractor: NamedExtractor, keep: Path | None, *, strict: bool, label: str
) -> Looks:
    """Look at the images of a folder, a data set, a table or a manifest; prompts are not needed."""
    from palate.errors import DataError
    from palate.evaluation.looks import look_at
    from palate.scoring.inputs import gather_images
    from palate.scoring.packed import PackedSource

    gathered = gather_images([path], need_prompts=False)
    if isinstance(gathered.source, PackedSource):
        raise DataError(f"{path}: holds images inside tar or Parquet files, expected image files")
    return look_at(
        gathered.images, gathered.folder, extractor, strict=strict, keep=keep, label=label
    )

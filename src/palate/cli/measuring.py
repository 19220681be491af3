"""`palate stats correlation` and `distribution`: measures of sets of images, by what a network sees of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from palate.cli._looking import (
    ColoursOption,
    EyeOption,
    FeaturesOption,
    InceptionOption,
    PreparationOption,
    VariantOption,
    choose_extractor,
    look_at_path,
    name_of,
)
from palate.cli._options import DataArgument, DeviceOption, JsonOption, scores_path
from palate.cli._text import text_table

if TYPE_CHECKING:
    from palate.data.tables import Dataset
    from palate.evaluation.contrasts import CorrelationSettings, CorrelationStudy
    from palate.evaluation.image_sets import SetComparison, Statistics
    from palate.evaluation.looks import Looks, NamedExtractor

MissingOption: TypeAlias = Annotated[
    Literal["fail", "leave-out"] | None,
    typer.Option("--missing", help="Images that do not open or have no score [fail]."),
]


def correlation(  # noqa: PLR0917 - typer makes options of them
    dataset: DataArgument,
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="Scores of its images: a table or the run of `score`; several times."),
    ] = None,
    inception: InceptionOption = None,
    variant: VariantOption = None,
    preparation: PreparationOption = None,
    eye: EyeOption = None,
    colours: ColoursOption = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Folder or data set of real images, for FID and KID to them; between chosen and others if not given."
        ),
    ] = None,
    features: FeaturesOption = None,
    dimension: Annotated[
        str | None, typer.Option(help="Dimension of the choices, if there are several.")
    ] = None,
    missing: MissingOption = None,
    relabellings: Annotated[
        int | None, typer.Option(help="Relabellings for the null distribution [499].")
    ] = None,
    resamples: Annotated[
        int | None, typer.Option(help="Resamples of prompts for intervals [200].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all that is drawn [0].")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file with a table [correlation].")
    ] = None,
    device: DeviceOption = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for study.json, .md, .csv, a page and the run record."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether Inception Score, FID, KID and scorers follow what people choose: the HPS paper's correlation study.

    Images that people chose are compared with those they did not, and each difference with what it is when the images
    that were shown together change places at random.

    Example: palate stats correlation data/study --colours --scores hps.parquet --out runs/correlation

    Example: palate stats correlation data/study --inception pt_inception-2015-12-05-6726825d.pth --reference coco/val2014
    """
    from palate.errors import SettingsError
    from palate.evaluation.contrasts import CorrelationSettings, CorrelationStudy
    from palate.evaluation.relabelling import decided_choices
    from palate.runs import start_run
    from palate.settings import read_settings

    given = {"dimension": dimension, "missing": missing, "seed": seed}
    given |= {"relabellings": relabellings, "resamples": resamples}
    settings = read_settings(CorrelationSettings, recipe, given, section="correlation")
    extractor = choose_extractor(inception, variant, preparation, eye, device, colours=colours)
    if extractor is None and not scores:
        raise SettingsError(
            "nothing to compare by: give --scores, or --inception, --eye or --colours"
        )
    if extractor is None and reference is not None:
        raise SettingsError("--reference goes with --inception, --eye or --colours")
    found, tables = _dataset(dataset, extractor), [scores_path(path) for path in scores or []]
    # choices that are refused leave no run behind
    decided_choices(found.choices, settings.dimension)

    def study(keep: Path | None) -> CorrelationStudy:
        return _study(found, tables, extractor, reference, features or keep, settings)

    if out is None:
        told = study(None)
    else:
        inputs = _inputs(dataset, tables, reference)
        facts = {"correlation": settings, "features": name_of(extractor)}
        with start_run("stats correlation", out, facts, inputs, overwrite=overwrite) as run:
            if run.finished:
                told = CorrelationStudy.from_dict(json.loads((out / "study.json").read_text()))
            else:
                told = study(out / "features")
                files = _write_study(told, found, out)
                run.finish({"measures": len(told.contrasts)}, files=files)
    typer.echo(json.dumps(told.to_dict(), ensure_ascii=False) if as_json else told.to_text())


def distribution(  # noqa: PLR0917 - typer makes options of them
    images: Annotated[
        Path,
        typer.Argument(help="Images to judge: a folder, a data set, images.parquet or a manifest."),
    ],
    reference: Annotated[
        Path,
        typer.Option(
            help="Images to compare with, given likewise; or .npz with mu and sigma, for the FID alone."
        ),
    ],
    inception: InceptionOption = None,
    variant: VariantOption = None,
    preparation: PreparationOption = None,
    eye: EyeOption = None,
    colours: ColoursOption = False,
    features: FeaturesOption = None,
    splits: Annotated[
        int | None, typer.Option(help="Splits of the Inception Score; published ones take 10 [1].")
    ] = None,
    points: Annotated[
        int | None, typer.Option(help="Sizes that FID∞ is drawn through; 0 leaves it out [15].")
    ] = None,
    missing: MissingOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of FID∞ and of splits [0].")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file with a table [distribution].")
    ] = None,
    device: DeviceOption = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Folder for distribution.json and the run record.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how far a set of images is from a reference set: FID, FID∞, KID and Inception Score.

    It needs no choices. docs/statistics/distribution.md says which preparation equals which tool.

    Example: palate stats distribution runs/images --reference coco/val2014 --inception pt_inception-2015-12-05-6726825d.pth
    """
    from palate.errors import SettingsError
    from palate.evaluation.image_sets import DistributionSettings
    from palate.runs import start_run, write_atomic
    from palate.settings import read_settings

    given = {"splits": splits, "points": points, "missing": missing, "seed": seed}
    settings = read_settings(
        DistributionSettings, recipe, given, section="distribution" if recipe else None
    )
    extractor = choose_extractor(inception, variant, preparation, eye, device, colours=colours)
    if extractor is None:
        raise SettingsError("nothing to look with: give --inception, --eye or --colours")
    if out is None:
        found = _compared(images, reference, extractor, features, settings)
        facts, text = found.to_dict(), _comparison_text(found)
    else:
        about = {"distribution": settings, "features": name_of(extractor)}
        inputs: dict[str, Path | str] = {"images": images, "reference": reference}
        with start_run("stats distribution", out, about, inputs, overwrite=overwrite) as run:
            if not run.finished:
                keep = features or out / "features"
                found = _compared(images, reference, extractor, keep, settings)
                file = out / "distribution.json"
                write_atomic(file, json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n")
                run.finish({"text": _comparison_text(found)}, files=[file])
            facts = json.loads((out / "distribution.json").read_text(encoding="utf-8"))
            text = run.result["text"]
    typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else text)


def _dataset(path: Path, extractor: NamedExtractor | None) -> Dataset:
    """Open a data set; one whose images are looked at must have them."""
    from palate.data.schemas import SCHEMAS
    from palate.data.tables import Dataset, load_dataset, read_table
    from palate.errors import DataError

    if path.suffix == ".parquet":
        images = SCHEMAS["images"].empty_table()
        found = Dataset(images, read_table(path, "choices"), path.parent)
    else:
        found = load_dataset(path)
    if extractor is not None and not len(found.images):
        raise DataError(
            f"{path}: has choices and no table of images, expected the folder of a data set with images to look at"
        )
    return found


def _study(
    dataset: Dataset,
    tables: Sequence[Path],
    extractor: NamedExtractor | None,
    reference: Path | None,
    keep: Path | None,
    settings: CorrelationSettings,
) -> CorrelationStudy:
    """Look at the images that were shown, and compare the chosen with the others."""
    import pyarrow.compute as pc

    from palate.data.tables import read_table
    from palate.evaluation.correlation_study import correlation_study
    from palate.evaluation.looks import look_at
    from palate.evaluation.relabelling import decided_choices

    scores = [
        table.filter(pc.equal(table.column("scorer"), name))
        for table in (read_table(path, "scores") for path in tables)
        for name in table.column("scorer").unique().to_pylist()
    ]
    looks = real = None
    strict = settings.missing == "fail"
    if extractor is not None:
        decided, _ = decided_choices(dataset.choices, settings.dimension)
        shown = pc.list_flatten(decided.column("images")).unique().to_pylist()
        looks = look_at(
            dataset.images, dataset.folder, extractor, only=shown, strict=strict, keep=keep
        )
    if extractor is not None and reference is not None:
        real = look_at_path(
            reference, extractor, keep, strict=strict, label="looking at the reference"
        )
    return correlation_study(dataset.choices, looks, scores, real, settings)


def _inputs(dataset: Path, tables: Sequence[Path], reference: Path | None) -> dict[str, Path | str]:
    is_table = dataset.suffix == ".parquet"
    inputs: dict[str, Path | str] = {
        "choices": dataset if is_table else dataset / "choices.parquet"
    }
    if not is_table and (dataset / "images.parquet").exists():
        inputs["images"] = dataset / "images.parquet"
    inputs |= {f"scores {number}": path for number, path in enumerate(tables, start=1)}
    return inputs if reference is None else inputs | {"reference": reference}


def _write_study(study: CorrelationStudy, dataset: Dataset, out: Path) -> list[Path]:
    """Write a study as JSON, Markdown and CSV, and as a page where the extra is there."""
    from palate.runs import write_atomic

    written = {
        "study.json": json.dumps(study.to_dict(), indent=1, ensure_ascii=False) + "\n",
        "study.md": study.to_markdown(),
        "study.csv": study.to_csv(),
    }
    for name, text in written.items():
        write_atomic(out / name, text)
    files = [out / name for name in written]
    try:
        from palate.evaluation.correlation_page import write_correlation_page

        write_correlation_page(study, dataset, out / "study.html")
    except ModuleNotFoundError as fault:
        if (fault.name or "").partition(".")[0] not in {"jinja2", "matplotlib"}:
            raise
        typer.echo("no page: it needs pip install 'palate[report]'", err=True)
        return files
    return [*files, out / "study.html"]


def _compared(
    images: Path,
    reference: Path,
    extractor: NamedExtractor,
    keep: Path | None,
    settings: Any,
) -> SetComparison:
    """Look at both sets and compare them."""
    from palate.evaluation.image_sets import compare_image_sets, read_statistics

    strict = settings.missing == "fail"
    real: Looks | Statistics
    if reference.suffix == ".npz":
        real = read_statistics(reference)
    else:
        real = look_at_path(
            reference, extractor, keep, strict=strict, label="looking at the reference"
        )
    own = look_at_path(images, extractor, keep, strict=strict, label="looking at the images")
    return compare_image_sets(own, real, settings)


def _comparison_text(found: SetComparison) -> str:
    counts = f"{found.images:,} images"
    if found.reference is not None:
        counts += f" beside {found.reference:,} of the reference"
    lines = [counts, f"features of {found.features}", ""]
    lines += text_table(["measure", "value", "better", ""], found.rows(), right="1").split("\n")
    return "\n".join([*lines, *(["", *found.cautions] if found.cautions else [])])

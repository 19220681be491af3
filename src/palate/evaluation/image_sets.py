"""How far a set of images is from a reference set: FID, FID∞, KID and Inception Score, with what they cannot tell."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError, SettingsError
from palate.evaluation.distribution import (
    Distance,
    Extrapolated,
    InceptionScore,
    frechet_cautions,
    frechet_distance,
    frechet_inception_distance,
    frechet_infinity,
    inception_score,
    kernel_inception_distance,
    moments,
)
from palate.evaluation.looks import Looks, same_extractor


@dataclass(frozen=True)
class DistributionSettings:
    """How two sets of images are compared.

    `splits` are those of the Inception Score; published ones take 10. `points` are the sizes that FID∞ is drawn through,
    and 0 leaves it out. `missing` says what happens to images that do not open. `seed` is that of FID∞ and of splits.
    """

    splits: int = 1
    points: int = 15
    missing: Literal["fail", "leave-out"] = "fail"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that make no measure."""
        if self.splits < 1:
            raise SettingsError(f"splits is {self.splits}, expected at least 1")
        if self.points != 0 and self.points < 3:
            raise SettingsError(f"points is {self.points}, expected 0 or at least 3")


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Mean (dims) and covariance (dims × dims) of features, as pytorch-fid and clean-fid keep them of a reference."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SetComparison:
    """A set of images beside a reference: distances (0 is the same, lower is closer) and scores (higher is better).

    A measure that could not be computed is None, and `cautions` say why.
    """

    fid: float
    infinity: Extrapolated | None
    kid: Distance | None
    score: InceptionScore | None
    reference_score: InceptionScore | None
    images: int
    reference: int | None
    dims: int
    features: str | None
    cautions: tuple[str, ...]
    settings: DistributionSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found = {name: getattr(self, name) for name in self.__slots__}
        for name in ("infinity", "kid", "score", "reference_score"):
            found[name] = None if found[name] is None else found[name].to_dict()
        return found | {"cautions": list(self.cautions), "settings": asdict(self.settings)}

    def rows(self) -> list[list[str]]:
        """One row of text per measure: name, value, which way is better, and how it was computed."""
        rows = [["FID", f"{self.fid:.4f}", "lower", f"{self.dims:,} numbers per image"]]
        if self.infinity is not None:
            sizes = self.infinity.sizes
            told = f"line through {len(sizes)} sizes, {sizes[0]:,} to {sizes[-1]:,} images"
            rows.append(["FID∞", f"{self.infinity.value:.4f}", "lower", told])
        if self.kid is not None:
            told = f"{1000 * self.kid.value:.3f} × 10⁻³, over all images"
            rows.append(["KID", f"{self.kid.value:.6f}", "lower", told])
        for name, its in (
            ("Inception Score", self.score),
            ("Inception Score of the reference", self.reference_score),
        ):
            if its is not None:
                told = (
                    "1 split" if its.splits == 1 else f"± {its.deviation:.4f}, {its.splits} splits"
                )
                rows.append([name, f"{its.value:.4f}", "higher", told])
        return rows


def compare_image_sets(
    images: Looks, reference: Looks | Statistics, settings: DistributionSettings | None = None
) -> SetComparison:
    """Compare a set of images with a reference set as wholes, by every measure there is.

    Both were looked at by the same extractor. A reference of which there are only statistics gives the FID and nothing
    else. FID∞ thins the images and keeps the reference whole, whose own bias stays. Raises `DataError` for a reference
    by another extractor and for fewer than two images.
    """
    settings = settings or DistributionSettings()
    own, told = images.features, list[str]()
    infinity, kid, reference_score = None, None, None
    if isinstance(reference, Statistics):
        fid, count = _fid_to_statistics(own, reference), None
        told.append(
            "the reference is given by its statistics, which do not say how many images, network and preparation they"
            " are of: KID and FID∞ are left out"
        )
    else:
        same_extractor(images, reference)
        real, count = reference.features, len(reference.features)
        fid = frechet_inception_distance(own, real).value
        kid = kernel_inception_distance(own, real)
        infinity = _infinity(own, real, settings, told)
        reference_score = _score(reference, settings)
    return SetComparison(
        fid=fid,
        infinity=infinity,
        kid=kid,
        score=_score(images, settings),
        reference_score=reference_score,
        images=len(own),
        reference=count,
        dims=own.shape[1],
        features=None if images.seen_by is None else images.seen_by.name,
        cautions=(*told, *_cautions(images, reference, settings)),
        settings=settings,
    )


def _infinity(
    own: NDArray[Any], real: NDArray[Any], settings: DistributionSettings, told: list[str]
) -> Extrapolated | None:
    """Extrapolate the FID, or tell why not."""
    if not settings.points:
        return None
    try:
        return frechet_infinity(own, real, fixed=True, points=settings.points, seed=settings.seed)
    except DataError as fault:
        told.append(f"FID∞ is left out: {fault}")
        return None


def _score(looks: Looks, settings: DistributionSettings) -> InceptionScore | None:
    if looks.probabilities is None:
        return None
    return inception_score(looks.probabilities, splits=settings.splits, seed=settings.seed)


def _cautions(
    images: Looks, reference: Looks | Statistics, settings: DistributionSettings
) -> Iterator[str]:
    """Say what the numbers cannot tell: sizes, the extractor, and files that did not open."""
    count = len(images.features)
    sets = [("images", images)]
    if isinstance(reference, Looks):
        sets.append(("images of the reference", reference))
    yield from frechet_cautions(count, len(sets[-1][1].features), images.features.shape[1])
    for what, looks in sets:
        score = _score(looks, settings)
        if score is not None:
            yield from (f"Inception Score, {what}: {caution}" for caution in score.cautions)
    if images.seen_by is not None:
        yield from images.seen_by.cautions()
    for what, looks in sets:
        yield from looks.left_out(what)


def _fid_to_statistics(own: NDArray[Any], reference: Statistics) -> float:
    """FID between features and the statistics of others."""
    if own.shape[1] != len(reference.mean):
        raise DataError(
            f"the images have features of {own.shape[1]:,} numbers and the reference of {len(reference.mean):,},"
            " expected the same extractor"
        )
    found = moments(own)
    return frechet_distance(found.mean, found.covariance, reference.mean, reference.covariance)


def read_statistics(path: Path) -> Statistics:
    """Read a mean `mu` and a covariance `sigma` from an .npz file, as pytorch-fid and clean-fid write them.

    Raises `DataError` for a file that is missing, damaged or holds something else.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            missing = [name for name in ("mu", "sigma") if name not in file]
            if missing:
                held = ", ".join(file) or "nothing"
                raise DataError(
                    f"{path}: holds {held}, expected a mean 'mu' and a covariance 'sigma'"
                )
            mean, covariance = (file[name].astype(np.float64) for name in ("mu", "sigma"))
    except OSError as error:
        raise DataError(f"{path}: could not be read: {error.strerror}") from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise DataError(f"{path}: is no .npz file, or a damaged one") from None
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise DataError(
            f"{path}: a mean of shape {mean.shape} and a covariance of shape {covariance.shape},"
            " expected dims and dims × dims"
        )
    return Statistics(mean, covariance)

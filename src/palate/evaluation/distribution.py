"""How two sets of images differ as wholes: Fréchet and kernel distance, Inception Score and mean CLIP score.

None of these looks at a prompt and its image together but the CLIP score, and none but that says anything about one
image. The features come from any extractor (`palate.evaluation.looks`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.evaluation.joins import one_scorer
from palate.stats.intervals import Bootstrap, Estimate, mean_estimate

Floats = NDArray[np.float64]
MANY: Final = 10_000
"""Images from which on a Fréchet distance is usually reported; below it only sets of equal size compare."""

PER_SPLIT: Final = 5_000
"""Images in each split of the published Inception Scores: 50,000 in ten."""

MOST_KEPT: Final = 8_000
"""Images up to which the kernel of all pairs is kept: half a gigabyte."""

ClipRule = Literal["cosine", "clipscore", "clipscore-100"]
_BLOCK: Final = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Count, mean (dims) and scatter (dims × dims: the sum of outer products about the mean) of features."""

    count: int
    mean: Floats
    scatter: Floats

    @property
    def covariance(self) -> Floats:
        """The unbiased covariance: the scatter over count - 1."""
        if self.count < 2:
            raise DataError(f"{self.count} images have no covariance, expected at least 2")
        return np.asarray(self.scatter / (self.count - 1))


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance between two sets of images, 0 for the same distribution, and what to keep in mind."""

    measure: Literal["FID", "KID"]
    value: float
    count_a: int
    count_b: int
    dims: int
    cautions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "cautions": list(self.cautions)
        }


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """A Fréchet distance extrapolated to sets without end: the line's value at 1/count = 0, and its points."""

    value: float
    slope: float
    sizes: tuple[int, ...]
    values: tuple[float, ...]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "measure": "FID extrapolated",
            "value": self.value,
            "slope": self.slope,
            "sizes": list(self.sizes),
            "values": list(self.values),
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class InceptionScore:
    """An Inception Score: the mean and the deviation (by count) over its splits; higher is better."""

    value: float
    deviation: float
    splits: int
    count: int
    classes: int
    cautions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "cautions": list(self.cautions)
        }


def moments(features: NDArray[Any]) -> Moments:
    """Count, mean and scatter of features (images × dims) in float64."""
    rows = _matrix(features)
    mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
    about = rows - mean
    return Moments(len(rows), mean, about.T @ about)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of two sets together, without their features (Chan, Golub and LeVeque 1983)."""
    if a.mean.shape != b.mean.shape:
        raise DataError(f"features of {len(a.mean)} and of {len(b.mean)} numbers do not mix")
    if not a.count or not b.count:
        return a if a.count else b
    count, gap = a.count + b.count, b.mean - a.mean
    scatter = a.scatter + b.scatter + np.outer(gap, gap) * (a.count * b.count / count)
    return Moments(count, a.mean + gap * (b.count / count), scatter)


def stream_moments(batches: Iterable[NDArray[Any]]) -> Moments:
    """Moments of features that come in batches, which are not kept. Raises `DataError` for none."""
    parts = map(moments, batches)
    first = next(parts, None)
    if first is None:
        raise DataError("there are no features: 0 batches")
    return reduce(merge_moments, parts, first)


def frechet_distance(
    mean_a: NDArray[Any],
    covariance_a: NDArray[Any],
    mean_b: NDArray[Any],
    covariance_b: NDArray[Any],
) -> float:
    """Fréchet distance of two Gaussians, squared as FID is: |m - n|² + tr(A + B - 2 (A B)^½); at least 0.

    Dowson and Landau 1982; Heusel et al. 2017 for images. With A = L Lᵀ and B = M Mᵀ the last trace is the sum of the
    singular values of Lᵀ M, which is real and exact for covariances without full rank, where a matrix root of A B is
    neither. Raises `DataError` for shapes that do not match and for a matrix that is no covariance.
    """
    return factors_distance(
        *(np.asarray(mean_a, dtype=np.float64), _root(covariance_a)),
        *(np.asarray(mean_b, dtype=np.float64), _root(covariance_b)),
    )


def factors_distance(mean_a: Floats, factor_a: Floats, mean_b: Floats, factor_b: Floats) -> float:
    """Fréchet distance of two Gaussians by factors L (dims × any) of their covariances L Lᵀ."""
    if mean_a.shape != mean_b.shape or len(factor_a) != len(factor_b):
        raise DataError(f"features of {mean_a.shape} and of {mean_b.shape} numbers do not compare")
    gap = mean_a - mean_b
    shared = np.linalg.svd(factor_a.T @ factor_b, compute_uv=False).sum()
    value = gap @ gap + (factor_a**2).sum() + (factor_b**2).sum() - 2 * shared
    return max(0.0, float(value))


def factor(features: NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean, and a factor L with L Lᵀ = the unbiased covariance, of features (images × dims).

    The factor has the fewer columns of dims and images, so a small set costs little. At least 2 images.
    """
    rows = _matrix(features)
    if len(rows) < 2:
        raise DataError(f"{len(rows)} images have no covariance, expected at least 2")
    mean = rows.mean(axis=0)
    about = (rows - mean) / math.sqrt(len(rows) - 1)
    return mean, np.asarray(np.linalg.qr(about, mode="r") if len(rows) > rows.shape[1] else about).T


def frechet_inception_distance(a: NDArray[Any], b: NDArray[Any]) -> Distance:
    """FID between the features (images × dims) of two sets of images; lower is closer.

    It is biased upwards by about a constant over the number of images (Chong and Forsyth 2020), so that the smaller
    set seems worse: only sets of equal size compare, with the same extractor and preparation.
    """
    value = factors_distance(*factor(a), *factor(b))
    return Distance(
        "FID", value, len(a), len(b), a.shape[1], frechet_cautions(len(a), len(b), a.shape[1])
    )


def frechet_cautions(count_a: int, count_b: int, dims: int) -> tuple[str, ...]:
    """Say what is wrong with a Fréchet distance of so few images."""
    least, told = min(count_a, count_b), []
    few = f"{least:,} images" + ("" if count_a == count_b else " in the smaller set")
    if least <= dims:
        told.append(
            f"{few} for {dims:,} dimensions: the covariance has no full rank and the FID is mostly bias;"
            " the kernel distance has none"
        )
    if least < MANY:
        told.append(
            f"{few}, fewer than {MANY:,}: the FID is biased upwards by about 1/count;"
            " compare sets of equal size only"
        )
    if count_a != count_b:
        told.append(f"sets of {count_a:,} and {count_b:,} images")
    return tuple(told)


def frechet_infinity(
    a: NDArray[Any], b: NDArray[Any], *, fixed: bool = False, points: int = 15, seed: int = 0
) -> Extrapolated:
    """FID extrapolated to sets without end (FID∞, Chong and Forsyth 2020): a line through FID over 1/count.

    The sizes go in equal steps from a tenth of the smaller set to all of it. Both sets are thinned at once, or only
    `a` where `b` is a `fixed` reference, whose own bias then stays. The line may end below 0.
    """
    least = len(a) if fixed else min(len(a), len(b))
    sizes = np.unique(np.linspace(max(2, least // 10), least, points).astype(int))
    if least < 20:
        raise DataError(f"{least} images are too few to extrapolate from, expected at least 20")
    rng, whole = np.random.default_rng(seed), factor(b) if fixed else None
    values = []
    for size in sizes:
        thin_a = factor(a[rng.choice(len(a), size, replace=False)])
        thin_b = whole or factor(b[rng.choice(len(b), size, replace=False)])
        values.append(factors_distance(*thin_a, *thin_b))
    slope, value = np.polyfit(1 / sizes, values, 1)
    return Extrapolated(float(value), float(slope), tuple(sizes.tolist()), tuple(values), seed)


def kernel_inception_distance(a: NDArray[Any], b: NDArray[Any]) -> Distance:
    """KID: the unbiased squared MMD with the kernel (x·y / dims + 1)³, over all images; lower is closer.

    Binkowski et al. 2018. It has no bias at any size, so it is the better choice for small sets; it may be below 0.
    Published KIDs average it over subsets of 1,000 images, which has the same mean.
    """
    first, second = _matrix(a), _matrix(b)
    if first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise DataError(f"features of {first.shape} and {second.shape} do not compare")
    value = _within(first) + _within(second) - 2 * _between(first, second)
    return Distance("KID", value, len(first), len(second), first.shape[1], ())


class Kernel:
    """The kernel of KID between the images of one table, which is computed once for many sets of them.

    `reference` are features of other images. Above `MOST_KEPT` images the kernel is not kept and computed each time.
    """

    def __init__(self, features: NDArray[Any], reference: NDArray[Any] | None = None) -> None:
        """Take features (images × dims)."""
        self.features = _matrix(features)
        self.kept = None
        if len(self.features) <= MOST_KEPT:
            self.kept = _kernel(self.features, self.features)
        if reference is not None:
            real = _matrix(reference)
            self.real_within = _within(real)
            starts = range(0, len(real), _BLOCK)
            sums = [_kernel(self.features, real[s : s + _BLOCK]).sum(axis=1) for s in starts]
            self.to_real = np.sum(sums, axis=0) / len(real)

    def distance(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
        """KID between two sets, given by the rows of their images."""
        if self.kept is None:
            between = _between(self.features[a], self.features[b])
        else:
            between = float(self.kept[np.ix_(a, b)].mean())
        return self._inside(a) + self._inside(b) - 2 * between

    def to_reference(self, a: NDArray[np.int64]) -> float:
        """KID between a set and the reference."""
        return self._inside(a) + self.real_within - 2 * float(self.to_real[a].mean())

    def _inside(self, a: NDArray[np.int64]) -> float:
        if self.kept is None:
            return _within(self.features[a])
        total = self.kept[np.ix_(a, a)].sum() - self.kept[a, a].sum()
        return float(total / (len(a) * (len(a) - 1)))


def _kernel(a: Floats, b: Floats) -> Floats:
    """The kernel (x·y / dims + 1)³ of every row of a with every row of b."""
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


def _between(a: Floats, b: Floats) -> float:
    """Mean of the kernel over all pairs of two sets."""
    sums = (float(_kernel(a[s : s + _BLOCK], b).sum()) for s in range(0, len(a), _BLOCK))
    return math.fsum(sums) / (len(a) * len(b))


def _within(rows: Floats) -> float:
    """Mean of the kernel over all pairs of different rows of a set."""
    own = float((((rows**2).sum(axis=1) / rows.shape[1] + 1) ** 3).sum())
    return (_between(rows, rows) * len(rows) ** 2 - own) / (len(rows) * (len(rows) - 1))


def inception_score(
    probabilities: NDArray[Any], *, splits: int = 1, seed: int = 0
) -> InceptionScore:
    """Inception Score: exp of the mean KL divergence of the images' classes from their mean; 1 to the classes.

    Salimans et al. 2016. `probabilities` is images × classes. Published scores take 10 splits; more than one shuffle
    the images by the seed first, so that the order of the rows matters then. Fewer images give a lower score: only
    equal numbers of images per split compare. A class of no chance adds nothing.
    """
    from scipy.special import xlogy

    chances = _matrix(probabilities)
    if (chances < 0).any() or not np.allclose(chances.sum(axis=1), 1, atol=1e-4):
        raise DataError("probabilities of classes are below 0 or do not sum to 1")
    if not 1 <= splits <= len(chances):
        raise DataError(f"{splits} splits of {len(chances)} images, expected 1 to the images")
    if splits > 1:
        chances = chances[np.random.default_rng(seed).permutation(len(chances))]
    found = []
    for part in np.array_split(chances, splits):
        middle = part.mean(axis=0)
        found.append(
            math.exp(
                max(0.0, float(xlogy(part, part).sum() / len(part) - xlogy(middle, middle).sum()))
            )
        )
    each = len(chances) // splits
    told = (
        f"{each:,} images per split, fewer than {PER_SPLIT:,}: compare equal numbers of images only"
    )
    cautions = (told,) if each < PER_SPLIT else ()
    value, deviation = float(np.mean(found)), float(np.std(found))
    return InceptionScore(value, deviation, splits, len(chances), chances.shape[1], cautions)


def clip_score(
    scores: Any,
    *,
    scorer: str | None = None,
    rule: ClipRule = "cosine",
    bootstrap: Bootstrap | None = None,
) -> Estimate:
    """Mean CLIP score of a table of scores, with an interval that resamples prompts; higher is better.

    The rule `cosine` is the plain mean, as the HPS paper prints it (0.28); `clipscore` is 2.5 × max(cosine, 0) (Hessel
    et al. 2021) and `clipscore-100` torchmetrics' 100 × max(cosine, 0). Raises `DataError` for scores that are not
    made of a cosine, for several scorers without a name, and for an image that could not be scored.
    """
    from palate.scoring.units import COSINES, cosine_scale

    rows = one_scorer(scores, scorer)
    units = rows.column("unit").unique().to_pylist()
    if len(units) != 1 or units[0] not in COSINES or COSINES[units[0]][0] is None:
        raise DataError(
            f"a CLIP score needs scores made of a cosine, found the unit {', '.join(units)}"
        )
    if rows.column("value").null_count:
        bad = next(row for row in rows.to_pylist() if row["value"] is None)
        raise DataError(f"image {bad['image']!r} has no CLIP score: {bad['error']}")
    (scale, cut), (wanted, cuts) = cosine_scale(units[0], 1.0), cosine_scale(rule, 1.0)
    cosines = rows.column("value").to_numpy() / scale
    if cut and not cuts and (cosines == 0).any():
        raise DataError(
            f"scores in {units[0]} are cut at 0, so that their mean cosine is not known"
        )
    values = wanted * (np.maximum(cosines, 0) if cuts else cosines)
    prompts = rows.column("prompt").to_numpy(zero_copy_only=False).astype(str)
    return mean_estimate(values, prompts, bootstrap=bootstrap)


def _root(covariance: NDArray[Any]) -> Floats:
    """A factor L of a covariance L Lᵀ; what rounding makes of no variance is dropped."""
    matrix = np.atleast_2d(np.asarray(covariance, dtype=np.float64))
    if matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T, atol=1e-8):
        raise DataError(f"a covariance of shape {matrix.shape} is not symmetric")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    noise = len(values) * np.finfo(np.float64).eps * max(values.max(), 0.0)
    if values.min() < -max(1e-6 * values.max(), noise):
        raise DataError(f"a covariance has the negative variance {values.min():.3g}")
    kept = values > noise
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _matrix(features: NDArray[Any]) -> Floats:
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2:
        raise DataError(f"features of shape {rows.shape}, expected images × dims")
    return rows

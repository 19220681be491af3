"""A set of images beside a reference: the measures are those of the functions, and what is missing is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from palate.errors import DataError, SettingsError
from palate.evaluation.distribution import (
    frechet_inception_distance,
    frechet_infinity,
    inception_score,
    kernel_inception_distance,
)
from palate.evaluation.image_sets import (
    DistributionSettings,
    Statistics,
    compare_image_sets,
    read_statistics,
)
from palate.evaluation.looks import Looks


def some_looks(count: int, seed: int = 0, shift: float = 0.0, classes: bool = True) -> Looks:
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.ones(4), count) if classes else None
    keys = tuple(map(str, range(count)))
    return Looks(keys, rng.normal(size=(count, 3)) + shift, chances, {})


def test_the_measures_are_those_of_the_functions() -> None:
    one, real = some_looks(60), some_looks(80, 1, 0.5)
    found = compare_image_sets(one, real, DistributionSettings(splits=3, seed=5))
    assert found.fid == frechet_inception_distance(one.features, real.features).value
    assert found.kid == kernel_inception_distance(one.features, real.features)
    assert found.infinity == frechet_infinity(one.features, real.features, fixed=True, seed=5)
    assert found.score == inception_score(one.probabilities, splits=3, seed=5)
    assert found.reference_score == inception_score(real.probabilities, splits=3, seed=5)
    assert [row[0] for row in found.rows()] == [
        *("FID", "FID∞", "KID", "Inception Score", "Inception Score of the reference")
    ]
    assert json.loads(json.dumps(found.to_dict()))["fid"] == found.fid
    assert any("sets of 60 and 80 images" in caution for caution in found.cautions)


def test_what_cannot_be_computed_is_left_out_and_said() -> None:
    one, real = some_looks(12, classes=False), some_looks(30, 1)
    found = compare_image_sets(one, real)
    assert found.score is found.infinity is None
    assert "FID∞ is left out: 12 images are too few to extrapolate from, expected at least 20" in (
        found.cautions
    )
    assert compare_image_sets(some_looks(40), real, DistributionSettings(points=0)).infinity is None
    broken = Looks(one.keys, one.features, None, {"x": "x.png: no such file"})
    assert compare_image_sets(broken, broken).cautions[-2:] == (
        "1 images left out, the first: x.png: no such file",
        "1 images of the reference left out, the first: x.png: no such file",
    )


def test_statistics_give_the_fid_of_the_images_that_they_are_of(tmp_path) -> None:
    one, real = some_looks(60), some_looks(80, 1, 0.5)
    path = tmp_path / "stats.npz"
    np.savez(path, mu=real.features.mean(axis=0), sigma=np.cov(real.features, rowvar=False))
    found = compare_image_sets(one, read_statistics(path))
    assert found.fid == pytest.approx(compare_image_sets(one, real).fid)
    assert found.kid is found.infinity is found.reference is None
    assert "KID and FID∞ are left out" in found.cautions[0]


def test_statistics_of_another_extractor_or_file_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="features of 3 numbers and the reference of 5"):
        compare_image_sets(some_looks(9), Statistics(np.zeros(5), np.eye(5)))
    path = tmp_path / "other.npz"
    np.savez(path, features=np.zeros(3))
    with pytest.raises(DataError, match=r"other\.npz: holds features, expected a mean 'mu'"):
        read_statistics(path)
    np.savez(path, mu=np.zeros(3), sigma=np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"a covariance of shape \(3, 2\)"):
        read_statistics(path)
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"other\.npz: is no \.npz file, or a damaged one"):
        read_statistics(path)
    with pytest.raises(DataError, match=r"none\.npz: could not be read: No such file"):
        read_statistics(tmp_path / "none.npz")


def test_settings_that_make_no_measure_are_refused() -> None:
    with pytest.raises(SettingsError, match="points is 2, expected 0 or at least 3"):
        DistributionSettings(points=2)
    with pytest.raises(SettingsError, match="splits is 0"):
        DistributionSettings(splits=0)

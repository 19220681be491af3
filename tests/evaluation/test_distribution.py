"""Distances and scores of whole sets: closed forms, slow twins, and what must not matter."""

from __future__ import annotations

import json
import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import linalg

from palate.data.records import Image as ImageRow
from palate.data.records import Score
from palate.data.tables import to_table
from palate.errors import DataError
from palate.evaluation.distribution import (
    Kernel,
    clip_score,
    factor,
    frechet_distance,
    frechet_inception_distance,
    frechet_infinity,
    inception_score,
    kernel_inception_distance,
    merge_moments,
    moments,
    stream_moments,
)
from palate.evaluation.looks import colour_histogram, eye_look, look_at

SEEDS = st.integers(0, 10_000)


def normal(count: int, dims: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dims)) @ rng.normal(size=(dims, dims)) + shift


def slow_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """FID by the root of the product of both covariances, as the official code computes it."""
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    gap = a.mean(axis=0) - b.mean(axis=0)
    root = linalg.sqrtm(covariance_a @ covariance_b)
    return float(gap @ gap + np.trace(covariance_a + covariance_b - 2 * np.real(root)))


def slow_kernel(a: np.ndarray, b: np.ndarray) -> float:
    """KID pair by pair."""

    def k(x, y):
        return (x @ y / len(x) + 1) ** 3

    within = [np.mean([k(x, y) for x, y in permutations(rows, 2)]) for rows in (a, b)]
    return float(sum(within) - 2 * np.mean([k(x, y) for x in a for y in b]))


def slow_inception(chances: np.ndarray) -> float:
    middle = chances.mean(axis=0)
    kl = [
        sum(p * math.log(p / q) for p, q in zip(row, middle, strict=True) if p) for row in chances
    ]
    return math.exp(np.mean(kl))


# -- Fréchet distance


@given(*[st.floats(-3, 3)] * 2, *[st.floats(0, 4)] * 2)
def test_of_two_gaussians_on_a_line_it_is_the_closed_form(m, n, s, t) -> None:
    found = frechet_distance(np.array([m]), np.array([[s * s]]), np.array([n]), np.array([[t * t]]))
    assert found == pytest.approx((m - n) ** 2 + (s - t) ** 2, abs=1e-12)


def test_of_diagonal_covariances_it_is_the_sum_over_the_axes() -> None:
    rng = np.random.default_rng(0)
    m, n, s, t = rng.random((4, 6))
    found = frechet_distance(m, np.diag(s**2), n, np.diag(t**2))
    assert found == pytest.approx(((m - n) ** 2 + (s - t) ** 2).sum(), rel=1e-12)


@given(SEEDS)
def test_it_equals_the_matrix_root_of_the_official_code(seed) -> None:
    a, b = normal(40, 5, seed), normal(30, 5, seed + 1, shift=0.5)
    slow = slow_frechet(a, b)
    assert frechet_inception_distance(a, b).value == pytest.approx(slow, rel=1e-6)
    one, two = moments(a), moments(b)
    closed = frechet_distance(one.mean, one.covariance, two.mean, two.covariance)
    assert closed == pytest.approx(slow, rel=1e-6)


def test_fewer_images_than_dims_are_exact_although_no_covariance_has_full_rank() -> None:
    a, b = normal(12, 40, 0), normal(9, 40, 1)
    one, two = moments(a), moments(b)
    # the twin: both sets span at most 21 directions, in which nothing but the mean is lost
    basis = np.linalg.qr(np.concatenate([a, b]).T)[0]
    twin = slow_frechet(np.array(a @ basis, dtype=np.longdouble).astype(float), b @ basis)
    found = frechet_inception_distance(a, b).value
    assert found == pytest.approx(twin, rel=1e-5)
    by_moments = frechet_distance(one.mean, one.covariance, two.mean, two.covariance)
    assert by_moments == pytest.approx(found, rel=1e-9)


@given(SEEDS, st.sampled_from([(30, 4), (5, 20)]))
def test_laws_of_a_distance(seed, shape) -> None:
    a, b = normal(*shape, seed), normal(*shape, seed + 1, shift=1.0)
    value = frechet_inception_distance(a, b).value
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(shape[1], shape[1])))[0]
    rows = np.random.default_rng(seed).permutation(len(a))
    assert frechet_inception_distance(b, a).value == pytest.approx(value, rel=1e-9)
    assert frechet_inception_distance(a[rows], b).value == pytest.approx(value, rel=1e-9)
    assert frechet_inception_distance(a @ turn, b @ turn).value == pytest.approx(value, rel=1e-9)
    assert frechet_inception_distance(3 * a, 3 * b).value == pytest.approx(9 * value, rel=1e-9)
    scale = float((factor(a)[1] ** 2).sum())
    assert 0 <= frechet_inception_distance(a, a[rows]).value <= 1e-9 * scale


def test_small_sets_are_far_from_themselves_and_the_cautions_say_so() -> None:
    values = []
    for count in (20, 40, 80):
        a, b = np.random.default_rng(count).normal(size=(2, count, 50))
        found = frechet_inception_distance(a, b)
        values.append(found.value)
        assert any("no full rank" in line for line in found.cautions) == (count <= 50)
        assert any("compare sets of equal size" in line for line in found.cautions)
    assert values[0] > values[1] > values[2] > 1
    many = np.zeros((10_000, 1))
    assert frechet_inception_distance(many, many).cautions == ()
    assert (
        frechet_inception_distance(many, many[:-1]).cautions[-1]
        == "sets of 10,000 and 9,999 images"
    )


def test_extrapolation_takes_most_of_the_bias_away() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 2000, 20))
    plain, found = frechet_inception_distance(a, b).value, frechet_infinity(a, b)
    assert abs(found.value) < plain / 2
    assert found.slope > 0
    assert found.sizes[-1] == 2000
    assert found.values[-1] == pytest.approx(plain)
    assert frechet_infinity(a, b) == found
    fixed = frechet_infinity(a, b[:500], fixed=True)
    assert 0 < fixed.value < frechet_inception_distance(a[:500], b[:500]).value
    assert json.loads(json.dumps(found.to_dict()))["sizes"] == list(found.sizes)
    with pytest.raises(DataError, match="3 images are too few to extrapolate from"):
        frechet_infinity(a[:3], b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), "do not compare"),
        (
            (np.zeros(2), np.ones((2, 3)), np.zeros(2), np.eye(2)),
            r"shape \(2, 3\) is not symmetric",
        ),
        ((np.zeros(2), np.diag([1.0, -0.5]), np.zeros(2), np.eye(2)), "negative variance -0.5"),
    ],
)
def test_what_is_no_gaussian_is_refused(arguments, message) -> None:
    with pytest.raises(DataError, match=message):
        frechet_distance(*arguments)


def test_one_image_has_no_distance() -> None:
    with pytest.raises(DataError, match="1 images have no covariance, expected at least 2"):
        frechet_inception_distance(np.zeros((1, 2)), np.zeros((5, 2)))
    with pytest.raises(DataError, match=r"features of shape \(4,\), expected images × dims"):
        factor(np.zeros(4))


# -- moments


@given(SEEDS, st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_streamed_moments_are_those_of_all_at_once(seed, sizes) -> None:
    rows = np.random.default_rng(seed).normal(1e4, 1.0, size=(sum(sizes), 3))
    batches = np.split(rows, np.cumsum(sizes)[:-1])
    whole, streamed = moments(rows), stream_moments(iter(batches))
    backwards = stream_moments(batches[::-1])
    for found in (streamed, backwards):
        assert found.count == whole.count == len(rows)
        assert np.allclose(found.mean, whole.mean, rtol=1e-13)
        assert np.allclose(found.scatter, whole.scatter, atol=1e-6)
    if len(rows) > 1:
        assert np.allclose(streamed.covariance, np.cov(rows, rowvar=False), atol=1e-6)


def test_moments_of_nothing_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(DataError, match="0 batches"):
        stream_moments([])
    with pytest.raises(DataError, match="1 images have no covariance"):
        _ = moments(np.zeros((1, 2))).covariance
    with pytest.raises(DataError, match="features of 2 and of 3 numbers do not mix"):
        merge_moments(moments(np.zeros((1, 2))), moments(np.zeros((1, 3))))


# -- kernel distance


@given(SEEDS)
@settings(max_examples=20)
def test_the_kernel_distance_equals_its_slow_twin(seed) -> None:
    a, b = normal(7, 3, seed), normal(6, 3, seed + 1, shift=0.4)
    found = kernel_inception_distance(a, b)
    assert found.value == pytest.approx(slow_kernel(a, b), rel=1e-9, abs=1e-9)
    assert kernel_inception_distance(b, a[::-1]).value == pytest.approx(
        found.value, rel=1e-9, abs=1e-9
    )
    assert (found.measure, found.count_a, found.count_b, found.dims) == ("KID", 7, 6, 3)


def test_the_kernel_distance_has_no_bias_where_fid_has_much() -> None:
    draws = [np.random.default_rng(seed).normal(size=(2, 15, 8)) for seed in range(400)]
    kernel = np.array([kernel_inception_distance(a, b).value for a, b in draws])
    assert abs(kernel.mean()) < 4 * kernel.std() / 20
    assert min(frechet_inception_distance(a, b).value for a, b in draws) > 1
    assert kernel.min() < 0


def test_kernel_distances_of_many_images_go_in_blocks() -> None:
    a, b = normal(2100, 2, 0), normal(2050, 2, 1)
    gram = (np.concatenate([a, b]) @ np.concatenate([a, b]).T / 2 + 1) ** 3
    np.fill_diagonal(gram, 0)
    n, m = len(a), len(b)
    whole = gram[:n, :n].sum() / (n * (n - 1)) + gram[n:, n:].sum() / (m * (m - 1))
    whole -= 2 * gram[:n, n:].mean()
    assert kernel_inception_distance(a, b).value == pytest.approx(whole, rel=1e-9)
    with pytest.raises(DataError, match="do not compare"):
        kernel_inception_distance(a, b[:1])


@pytest.mark.parametrize("most", [0, 1000])
def test_a_kernel_computed_once_gives_the_same_distances(monkeypatch, most) -> None:
    monkeypatch.setattr("palate.evaluation.distribution.MOST_KEPT", most)
    features, reference = normal(40, 5, 0), normal(30, 5, 1)
    kernel, rng = Kernel(features, reference), np.random.default_rng(0)
    assert (kernel.kept is None) == (most == 0)
    for _ in range(5):
        a, b = rng.integers(0, 40, size=(2, 12))
        whole = kernel_inception_distance(features[a], features[b]).value
        assert kernel.distance(a, b) == pytest.approx(whole, rel=1e-9)
        real = kernel_inception_distance(features[a], reference).value
        assert kernel.to_reference(a) == pytest.approx(real, rel=1e-9)


# -- Inception Score


@given(SEEDS)
def test_the_inception_score_equals_its_slow_twin(seed) -> None:
    chances = np.random.default_rng(seed).dirichlet(np.full(5, 0.3), size=12)
    found = inception_score(chances)
    assert found.value == pytest.approx(slow_inception(chances), rel=1e-9)
    assert 1 <= found.value <= 5
    assert inception_score(chances[::-1]).value == pytest.approx(found.value, rel=1e-12)
    assert inception_score(chances[:, ::-1]).value == pytest.approx(found.value, rel=1e-12)


def test_its_ends_are_one_and_the_number_of_classes() -> None:
    assert inception_score(np.full((6, 4), 0.25)).value == 1
    assert inception_score(np.eye(4)).value == pytest.approx(4)
    assert inception_score(np.tile(np.eye(4)[:1], (6, 1))).value == 1


def test_splits_give_a_mean_and_a_deviation_that_the_seed_decides() -> None:
    chances = np.random.default_rng(0).dirichlet(np.full(6, 0.2), size=40)
    found = inception_score(chances, splits=4, seed=3)
    parts = np.split(chances[np.random.default_rng(3).permutation(40)], 4)
    each = [slow_inception(part) for part in parts]
    assert (found.value, found.deviation) == pytest.approx((np.mean(each), np.std(each)))
    assert found == inception_score(chances, splits=4, seed=3)
    assert inception_score(chances).deviation == 0
    assert json.loads(json.dumps(found.to_dict()))["splits"] == 4
    assert "10 images per split, fewer than 5,000" in found.cautions[0]


@pytest.mark.parametrize(
    ("chances", "splits", "message"),
    [
        (np.array([[0.5, 0.6]]), 1, "below 0 or do not sum to 1"),
        (np.array([[1.5, -0.5]]), 1, "below 0 or do not sum to 1"),
        (np.eye(3), 4, "4 splits of 3 images"),
        (np.zeros((0, 3)), 1, "1 splits of 0 images"),
    ],
)
def test_what_are_no_chances_is_refused(chances, splits, message) -> None:
    with pytest.raises(DataError, match=message):
        inception_score(chances, splits=splits)


# -- CLIP score


def scored(values, unit="cosine"):
    rows = []
    for place, value in enumerate(values):
        error = "no file" if value is None else None
        prompt = f"p{place // 2}"
        rows.append(Score(str(place), prompt, "clip", "overall", value, unit, "f", error=error))
    return to_table(rows, "scores")


def test_the_clip_score_under_each_rule_and_from_each_unit() -> None:
    cosines = [0.2, 0.4, -0.1, 0.1]
    assert clip_score(scored(cosines)).value == pytest.approx(0.15)
    assert clip_score(scored(cosines), rule="clipscore").value == pytest.approx(2.5 * 0.7 / 4)
    assert clip_score(scored(cosines), rule="clipscore-100").value == pytest.approx(17.5)
    assert clip_score(scored([100 * c for c in cosines], "hps")).value == pytest.approx(0.15)
    cut = scored([2.5 * max(c, 0) for c in cosines], "clipscore")
    assert clip_score(cut, rule="clipscore-100").value == pytest.approx(17.5)
    with pytest.raises(DataError, match="scores in clipscore are cut at 0"):
        clip_score(cut)


def test_its_interval_resamples_prompts() -> None:
    found = clip_score(scored([0.1, 0.1, 0.3, 0.3]))
    assert (found.clusters, found.count) == (2, 4)
    assert found.low < found.value < found.high


def test_scores_without_a_cosine_and_images_without_a_score_are_refused() -> None:
    with pytest.raises(DataError, match="made of a cosine, found the unit reward"):
        clip_score(scored([1.0], "reward"))
    with pytest.raises(DataError, match="found the unit logit"):
        clip_score(scored([1.0], "logit"))
    with pytest.raises(DataError, match="image '1' has no CLIP score: no file"):
        clip_score(scored([0.1, None]))


# -- looks


@pytest.fixture
def pictures(tmp_path):
    colours = {"b": (255, 0, 0), "a": (0, 0, 255), "c": (0, 255, 0)}
    for name, colour in colours.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    rows = [ImageRow(name, "p", path=f"{name}.png") for name in colours]
    return to_table([*rows, ImageRow("d", "p", path="d.png"), ImageRow("e", "p")], "images")


def test_every_image_is_looked_at_in_the_order_of_the_keys_and_faults_are_told(
    pictures, tmp_path
) -> None:
    looks = look_at(pictures, tmp_path, colour_histogram, batch=2)
    assert looks.keys == ("a", "b", "c")
    assert looks.features.argmax(axis=1).tolist() == [3, 48, 12]
    assert looks.features.shape == looks.probabilities.shape == (3, 64)
    assert set(looks.faults) == {"d", "e"}
    assert looks.faults["d"].startswith("d.png: ")
    assert str(tmp_path) not in looks.faults["d"]
    some = look_at(pictures, tmp_path, lambda found: colour_histogram(found)[0], only=["c", "a"])
    assert some.keys == ("a", "c")
    assert some.probabilities is None


@pytest.mark.parametrize("given", [np.zeros(3), np.zeros((2, 4)), np.full((1, 2), np.nan)])
def test_an_extractor_that_gives_no_row_per_image_is_refused(pictures, tmp_path, given) -> None:
    with pytest.raises(DataError, match=r"an extractor gave features of shape .* for 1 images"):
        look_at(pictures, tmp_path, lambda _: given, only=["a"])


def test_no_images_are_refused(pictures, tmp_path) -> None:
    with pytest.raises(DataError, match="none of 2 images could be looked at"):
        look_at(pictures, tmp_path, colour_histogram, only=["d", "e"])


def test_a_scorers_eye_is_an_extractor(pictures, tmp_path) -> None:
    from palate.scoring.catalog import load

    looks = look_at(pictures, tmp_path, eye_look(load("miniature").eye))
    assert looks.features.shape[0] == 3
    assert looks.probabilities is None

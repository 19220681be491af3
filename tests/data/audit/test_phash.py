"""The perceptual hash finds pictures that look the same, and the search misses none of them."""

from __future__ import annotations

import io
import time

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate.data.audit.phash import NEAR, hash_greys, near_pairs, perceptual_hash
from palate.errors import DataError


def every_pair(
    hashes: NDArray[np.uint64], distance: int, others: NDArray[np.uint64] | None = None
) -> list[tuple[int, int, int]]:
    """The slow and obvious twin of `near_pairs`."""
    found = []
    for i, a in enumerate(hashes.tolist()):
        for j, b in enumerate((hashes if others is None else others).tolist()):
            far = (a ^ b).bit_count()
            if far <= distance and (others is not None or i < j):
                found.append((i, j, far))
    return found


def picture(seed: int, side: int = 96) -> PIL.Image.Image:
    """A picture with the frequencies of a photograph: weaker where higher."""
    rng = np.random.default_rng(seed)
    size = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    waves = rng.normal(size=(3, side, side // 2 + 1)) + 1j * rng.normal(
        size=(3, side, side // 2 + 1)
    )
    values = np.fft.irfft2(waves / np.maximum(size, 1 / side) ** 1.2, s=(side, side))
    values = values.mean(axis=0, keepdims=True) + 0.3 * values
    values = 128 + 45 * (values - values.mean()) / values.std()
    return PIL.Image.fromarray(np.clip(values, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def jpeg(image: PIL.Image.Image, quality: int) -> PIL.Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return PIL.Image.open(file).convert("RGB")


def distance(a: PIL.Image.Image, b: PIL.Image.Image) -> int:
    first, second = perceptual_hash(a), perceptual_hash(b)
    assert first is not None
    assert second is not None
    return (first ^ second).bit_count()


flips = st.lists(st.integers(0, 63), max_size=5, unique=True)
clusters = st.lists(st.tuples(st.integers(0, 3), flips), max_size=14).map(
    lambda rows: np.array(
        [
            int(np.random.default_rng(base).integers(0, 2**63)) ^ sum(1 << k for k in bits)
            for base, bits in rows
        ],
        np.uint64,
    )
)


@given(clusters, st.integers(0, 9))
def test_the_search_finds_what_comparing_all_pairs_finds(
    hashes: NDArray[np.uint64], most: int
) -> None:
    pairs, far = near_pairs(hashes, most)
    found = [(i, j, d) for (i, j), d in zip(pairs.tolist(), far.tolist(), strict=True)]
    assert found == every_pair(hashes, most)


@given(clusters, clusters, st.integers(0, 5))
def test_between_two_sets_too(
    hashes: NDArray[np.uint64], others: NDArray[np.uint64], most: int
) -> None:
    pairs, far = near_pairs(hashes, most, others)
    found = [(i, j, d) for (i, j), d in zip(pairs.tolist(), far.tolist(), strict=True)]
    assert found == every_pair(hashes, most, others)


def test_many_equal_bands_hide_no_pair() -> None:
    # three bands are the same everywhere: nothing can be told by them
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**16, 300).astype(np.uint64)
    pairs, far = near_pairs(hashes)
    found = [(i, j, d) for (i, j), d in zip(pairs.tolist(), far.tolist(), strict=True)]
    assert found == every_pair(hashes, NEAR)


def test_a_hundred_thousand_hashes_take_seconds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 100_000).astype(np.uint64)
    hashes[-1] = hashes[0] ^ np.uint64(0b10101)
    begin = time.process_time()
    pairs, far = near_pairs(hashes)
    assert time.process_time() - begin < 5
    assert pairs.tolist() == [[0, 99_999]]
    assert far.tolist() == [3]


def test_a_distance_that_is_none_is_refused() -> None:
    for wrong in (-1, 32):
        with pytest.raises(DataError, match=f"a distance of {wrong} bits is not between 0 and 31"):
            near_pairs(np.zeros(2, np.uint64), wrong)


@pytest.mark.parametrize("seed", range(12))
def test_what_looks_the_same_is_near(seed: int) -> None:
    image = picture(seed)
    for side in (48, 150, 300):
        assert distance(image, image.resize((side, side))) <= NEAR
    assert distance(image, jpeg(image, 50)) <= NEAR
    assert distance(image, PIL.ImageEnhance.Brightness(image).enhance(1.05)) <= NEAR
    assert distance(image, PIL.ImageEnhance.Contrast(image).enhance(0.9)) <= NEAR


def test_different_pictures_and_mirrored_ones_are_far() -> None:
    images = [picture(seed) for seed in range(40)]
    far = [distance(a, b) for k, a in enumerate(images) for b in images[:k]]
    assert min(far) > 8
    assert np.mean(far) == pytest.approx(32, abs=1)
    for image in images:
        for turn in (
            PIL.Image.Transpose.FLIP_LEFT_RIGHT,
            PIL.Image.Transpose.FLIP_TOP_BOTTOM,
            PIL.Image.Transpose.ROTATE_90,
        ):
            assert distance(image, image.transpose(turn)) > 8


def test_a_picture_without_structure_has_no_hash() -> None:
    assert perceptual_hash(PIL.Image.new("RGB", (50, 30), "white")) is None
    assert perceptual_hash(PIL.Image.new("RGB", (50, 30), (90, 20, 10))) is None
    assert hash_greys(np.full((32, 32), 7.0)) is None


def test_a_symmetric_picture_keeps_its_hash_in_noise() -> None:
    """Half of its frequencies are 0; their bits must not be a coin toss."""
    across = np.minimum(np.arange(32), np.arange(32)[::-1])
    greys = np.add.outer(across * 6.0, across * 3.0)
    first = hash_greys(greys)
    assert first is not None
    for seed in range(20):
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, greys.shape)
        second = hash_greys(greys + noise)
        assert second is not None
        assert (first ^ second).bit_count() <= NEAR


def test_the_real_images_are_told_apart(shared) -> None:
    paths = sorted((shared / "data/avt/images").rglob("*.jpg"))
    found = [perceptual_hash(PIL.Image.open(path).convert("RGB")) for path in paths]
    hashes = np.array([value for value in found if value is not None], np.uint64)
    assert len(hashes) == len(paths) == 69
    far = np.bitwise_count(hashes[:, None] ^ hashes)[np.triu_indices(69, 1)]
    # docs/audit.md says so
    assert far.min() == 18
    assert len(near_pairs(hashes)[0]) == 0

from __future__ import annotations

import numpy as np
import pytest

from palate.adaptation.labelling.blur import BLUR_TESTS, is_blurry_both_ways, is_blurry_published

FLAT = np.full((6, 8, 3), 90, dtype=np.uint8)


def stripes(axis):
    image = FLAT.copy()
    image[(slice(None, None, 2),) if axis == 0 else (slice(None), slice(None, None, 2))] = 200
    return image


def official(image):
    """As `process_diffusion_db.py` of align_sd says it, twice the same term and all."""
    image = np.array(image).astype(float)
    across = image[:, :-1] - image[:, 1:]
    return max(across.max(), across.max()) < 10.0


@pytest.mark.parametrize("seed", range(20))
def test_the_published_test_is_the_official_one(seed):
    draw = np.random.default_rng(seed)
    image = draw.integers(0, draw.integers(2, 25), (5, 7, 3)).astype(np.uint8)
    assert is_blurry_published(image) == official(image)


def test_the_published_test_misses_horizontal_stripes_and_rising_edges():
    assert is_blurry_published(FLAT)
    assert is_blurry_published(stripes(axis=0))
    assert not is_blurry_published(stripes(axis=1))
    rising = FLAT.copy()
    rising[:, 4:] = 250
    assert is_blurry_published(rising)
    assert not is_blurry_published(rising[:, ::-1])


@pytest.mark.parametrize("seed", range(20))
def test_a_flip_or_a_turn_never_matters_to_the_corrected_test(seed):
    draw = np.random.default_rng(seed)
    image = draw.integers(0, draw.integers(5, 16), (6, 6, 3)).astype(np.uint8)
    found = {
        is_blurry_both_ways(np.rot90(turned, turns))
        for turned in (image, image[::-1], image[:, ::-1])
        for turns in range(4)
    }
    assert len(found) == 1


def test_the_corrected_test_sees_every_edge_of_ten_levels():
    assert is_blurry_both_ways(FLAT)
    for axis in (0, 1):
        assert not is_blurry_both_ways(stripes(axis))
    edge = FLAT.copy()
    edge[3:] = 99
    assert is_blurry_both_ways(edge)
    edge[3:] = 100
    assert not is_blurry_both_ways(edge)


@pytest.mark.parametrize("name", BLUR_TESTS)
def test_a_single_pixel_has_no_edge(name):
    assert BLUR_TESTS[name](FLAT[:1, :1])

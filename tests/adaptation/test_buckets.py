from __future__ import annotations

from dataclasses import dataclass

import pytest

from palate.adaptation.buckets import bucket_sizes, nearest_shapes


@dataclass
class Picture:
    width: int
    height: int

    def ratio(self):
        return self.width / self.height


@pytest.mark.parametrize(("side", "step"), [(512, 64), (1024, 64), (768, 64), (1024, 16), (16, 4)])
def test_shapes_are_multiples_of_about_one_area_and_lie_and_stand(side, step):
    sizes = bucket_sizes(side, step)
    assert sizes[0] == (side, side)
    assert len(set(sizes)) == len(sizes)
    for height, width in sizes:
        assert height % step == width % step == 0
        # rounding moves each side by at most half a step
        slack = step * (height + width) / 2 + step**2
        assert abs(height * width - side**2) <= slack
        assert (width, height) in sizes


def test_the_nearest_shape_is_as_wide_for_its_height():
    sizes = bucket_sizes(512, 64)
    pictures = [Picture(*size) for size in ((100, 100), (1920, 1080), (1080, 1920), (99, 100))]
    found = [sizes[number] for number in nearest_shapes(pictures, sizes)]
    assert found[0] == found[3] == (512, 512)
    assert found[1] == found[2][::-1]
    assert found[1][1] > found[1][0]


def test_a_picture_of_a_shape_goes_into_it_whatever_its_size():
    sizes = bucket_sizes(1024, 64)
    for factor in (1, 3):
        pictures = [Picture(width * factor, height * factor) for height, width in sizes]
        assert nearest_shapes(pictures, sizes).tolist() == list(range(len(sizes)))


def test_one_shape_asks_no_picture():
    class Lost(Picture):
        def ratio(self):
            raise AssertionError

    assert nearest_shapes([Lost(0, 0)] * 2, [(512, 512)]).tolist() == [0, 0]

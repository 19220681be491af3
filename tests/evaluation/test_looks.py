"""Looking at images: nothing is looked at twice, and what is stale is not used."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from palate.data.records import Image
from palate.data.tables import to_table
from palate.errors import DataError
from palate.evaluation.looks import (
    COLOURS,
    Looks,
    NamedExtractor,
    colour_histogram,
    look_at,
    same_extractor,
)


def draw(path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path):
    """Ten images, of which the last two are the same file twice."""
    rows = []
    for number in range(10):
        draw(tmp_path / "images" / f"{number}.png", min(number, 8))
        rows.append(Image(str(number), "p", path=f"images/{number}.png"))
    return to_table(rows, "images")


class Counting:
    """An extractor that counts what it is shown, and stops at a number."""

    def __init__(self, stop: int | None = None) -> None:
        self.shown, self.stop = 0, stop

    def __call__(self, pictures):
        self.shown += len(pictures)
        if self.stop is not None and self.shown > self.stop:
            raise KeyboardInterrupt
        return colour_histogram(pictures)


def counting(stop=None, fingerprint: str = "f") -> tuple[Counting, NamedExtractor]:
    inner = Counting(stop)
    return inner, NamedExtractor("colours", fingerprint, inner)


def equal(one: Looks, other: Looks) -> bool:
    return (
        one.keys == other.keys
        and one.faults == other.faults
        and np.array_equal(one.features, other.features)
        and np.array_equal(one.probabilities, other.probabilities)
    )


def test_an_interrupted_look_goes_on_where_it_stopped(images, tmp_path) -> None:
    keep = tmp_path / "features"
    first, extractor = counting(stop=6)
    with pytest.raises(KeyboardInterrupt):
        look_at(images, tmp_path, extractor, batch=3, keep=keep)
    assert first.shown == 9  # the third batch was never answered
    second, extractor = counting()
    resumed = look_at(images, tmp_path, extractor, batch=3, keep=keep)
    assert second.shown == 3  # nine contents, of which six were kept
    assert equal(resumed, look_at(images, tmp_path, COLOURS))
    third, extractor = counting()
    assert equal(look_at(images, tmp_path, extractor, keep=keep), resumed)
    assert third.shown == 0


def test_another_content_and_another_extractor_are_looked_at_again(images, tmp_path) -> None:
    keep = tmp_path / "features"
    look_at(images, tmp_path, counting()[1], keep=keep)
    draw(tmp_path / "images" / "4.png", 99)
    again, extractor = counting()
    found = look_at(images, tmp_path, extractor, keep=keep)
    assert again.shown == 1
    assert equal(found, look_at(images, tmp_path, COLOURS))
    other, extractor = counting(fingerprint="g")
    look_at(images, tmp_path, extractor, keep=keep)
    assert other.shown == 9


def test_features_of_an_extractor_without_classes_are_kept_too(images, tmp_path) -> None:
    plain = NamedExtractor("plain", "p", lambda pictures: colour_histogram(pictures)[0])
    first = look_at(images, tmp_path, plain, keep=tmp_path / "features")
    again = look_at(images, tmp_path, plain, keep=tmp_path / "features")
    assert first.probabilities is again.probabilities is None
    assert np.array_equal(first.features, again.features)


def test_the_same_content_is_looked_at_once_without_a_folder_as_well(images, tmp_path) -> None:
    inner = Counting()
    found = look_at(images, tmp_path, inner, batch=4)
    assert inner.shown == 9
    assert found.seen_by is None
    assert np.array_equal(found.features[8], found.features[9])


def test_a_damaged_file_of_features_is_named(images, tmp_path) -> None:
    keep = tmp_path / "features"
    look_at(images, tmp_path, COLOURS, keep=keep)
    (file,) = keep.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"{file.name}: is damaged .*remove it"):
        look_at(images, tmp_path, COLOURS, keep=keep)


def test_features_without_a_fingerprint_are_not_kept(images, tmp_path) -> None:
    with pytest.raises(DataError, match="kept by the fingerprint of their extractor"):
        look_at(images, tmp_path, colour_histogram, keep=tmp_path / "features")


def test_files_that_do_not_open_are_refused_or_told(images, tmp_path) -> None:
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"image '3' was not looked at: 3\.png: "):
        look_at(images, tmp_path, COLOURS, strict=True)
    found = look_at(images, tmp_path, COLOURS)
    assert len(found.keys) == 9
    assert found.left_out()[0].startswith("1 images left out, the first: 3.png: ")
    with pytest.raises(DataError, match=r"none of 1 images could be looked at, the first: 3\.png"):
        look_at(images, tmp_path, COLOURS, only=["3"])


def test_sets_seen_by_different_extractors_do_not_compare() -> None:
    features = np.zeros((2, 3))
    one, other = (
        Looks(("a", "b"), features, None, {}, NamedExtractor(name, name, colour_histogram))
        for name in ("first", "second")
    )
    same_extractor(one, one)
    with pytest.raises(DataError, match=r"by first \(first\) and the reference by second"):
        same_extractor(one, other)
    with pytest.raises(DataError, match="features of 3 numbers and the reference of 5"):
        same_extractor(one, Looks((), np.zeros((2, 5)), None, {}))

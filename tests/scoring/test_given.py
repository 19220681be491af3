"""What a caller gives as images and prompts: taken in any mixture, or refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from palate.errors import DataError, ImageError
from palate.models.tiny import tiny_clip
from palate.scoring.given import as_items, as_picture, as_pixels, paired
from palate.scoring.networks import ClipScorer


@pytest.fixture(scope="module")
def scorer():
    return ClipScorer(tiny_clip(0), "tiny")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def test_one_picture_in_every_form_scores_the_same(scorer, pixels, tmp_path):
    picture = Image.fromarray(pixels, "RGB")
    picture.save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [
        picture,
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        pixels,
        tensor,
        tensor[None],
        [picture],
        (tmp_path / "a.png",),
        iter([picture]),
    ]
    scores = [scorer.score(form, "a fox") for form in forms]
    assert {score.shape for score in scores} == {(1,)}
    assert {score.dtype for score in scores} == {np.dtype(np.float32)}
    assert len({float(score[0]) for score in scores}) == 1


def test_a_mixture_keeps_its_order(scorer, pixels):
    picture, floats = Image.fromarray(pixels, "RGB"), torch.rand(3, 33, 44)
    mixed = scorer.score([floats, picture, floats, pixels], ["a", "b", "a", "b"])
    assert mixed[0] == mixed[2]
    assert mixed[1] == pytest.approx(mixed[3], abs=1e-4)
    assert mixed[0] == pytest.approx(float(scorer.forward(floats[None], ["a"])[0]), abs=1e-4)
    assert mixed[1] == pytest.approx(scorer.score(picture, "b")[0], abs=1e-4)


def test_a_float_picture_is_its_8_bit_picture_up_to_rounding(scorer, pixels):
    floats = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    assert scorer.score(floats, "x")[0] == pytest.approx(scorer.score(pixels, "x")[0], abs=0.5)


def test_nothing_gives_nothing(scorer):
    assert scorer.score([], []).shape == (0,)
    assert scorer.score([], "a prompt").shape == (0,)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (None, "images: found a NoneType, expected paths, Pillow images or tensors"),
        ([3], "image 0: found a int, expected a path, a Pillow image or a tensor"),
        (torch.rand(3, 4), r"image 0: a tensor of shape \(3, 4\), expected 3 × height × width"),
        (torch.rand(4, 8, 8), r"a tensor of shape \(4, 8, 8\)"),
        (torch.rand(3, 0, 8), r"a tensor of shape \(3, 0, 8\)"),
        (255 * torch.ones(3, 8, 8), r"floats from 255 to 255, expected \[0, 1\]; levels"),
        (torch.full((3, 8, 8), float("nan")), r"floats from nan to nan, expected \[0, 1\]"),
        (torch.ones(3, 8, 8, dtype=torch.int64), "a tensor of torch.int64, expected uint8"),
        (np.ones((8, 8), dtype=np.uint8), r"an array of uint8 and shape \(8, 8\)"),
        (np.ones((8, 8, 3)), "an array of float64"),
    ],
)
def test_what_is_no_image_is_told(images, said):
    with pytest.raises(DataError, match=said):
        [as_picture(item, place) for place, item in enumerate(as_items(images))]


def test_a_file_that_is_no_image_is_told(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ImageError, match=r"a\.png: is no image"):
        as_picture(tmp_path / "a.png", 0)


def test_swapped_arguments_are_told(scorer):
    with pytest.raises(DataError, match="images come first, then prompts"):
        scorer.score([Image.new("RGB", (8, 8))], Image.new("RGB", (8, 8)))
    with pytest.raises(DataError, match="found a Image, expected texts"):
        paired(1, [Image.new("RGB", (8, 8))])
    with pytest.raises(DataError, match="2 images but 1 prompts"):
        paired(2, ["x"])
    with pytest.raises(DataError, match="prompts: found a int"):
        scorer.score([Image.new("RGB", (8, 8))], 3)
    with pytest.raises(DataError, match="prompts: found a dict"):
        scorer.score([Image.new("RGB", (8, 8))], {"a": "fox"})
    with pytest.raises(DataError, match="tiny reads prompts, expected a text"):
        scorer.score([Image.new("RGB", (8, 8))])


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (torch.zeros(1, 1, 8, 8), r"found \(1, 1, 8, 8\)"),
        (torch.zeros(1, 4, 8, 8), r"found \(1, 4, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"found \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "found torch.uint8, expected floats"),
        ("a.png", "found a str"),
    ],
)
def test_pixels_that_are_none_are_told(pixels, said):
    with pytest.raises(DataError, match=said):
        as_pixels(pixels)


def test_half_precision_pixels_are_scored_in_single(scorer):
    pixels = torch.rand(1, 3, 40, 40).half()
    assert scorer.score(pixels, "a")[0] == scorer.score(pixels.float(), "a")[0]


def test_files_are_opened_a_few_at_a_time(scorer, tmp_path, monkeypatch):
    from palate.scoring import scorer as module

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    held = []
    real = type(scorer)._score_some

    def counted(self, pictures, texts):
        held.append(len(pictures))
        return real(self, pictures, texts)

    monkeypatch.setattr(module.Scorer, "_score_some", counted)
    assert scorer.score([tmp_path / "a.png"] * 70, "x").shape == (70,)
    assert held == [32, 32, 6]


def test_threads_can_share_a_scorer(scorer, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    from palate.scoring import reading as module

    monkeypatch.setattr(module, "_REMEMBERED_BYTES", 200)
    picture = Image.new("RGB", (8, 8))
    prompts = [f"prompt {number % 7}" for number in range(60)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda prompt: float(scorer.score(picture, prompt)[0]), prompts))
    assert found == pytest.approx([float(scorer.score(picture, p)[0]) for p in prompts], abs=1e-4)

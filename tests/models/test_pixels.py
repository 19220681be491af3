"""One preparation for all: sizes, modes, and the tensor path beside Pillow's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from palate.errors import CheckpointError
from palate.models.pixels import (
    PROFILES,
    Preparation,
    normalise,
    preparation_dict,
    preparation_from,
    prepare,
    prepare_tensor,
    resized,
    squares,
)

CLIP = PROFILES["openai-clip"]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(width * 1000 + height)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels, "RGB").convert(mode)


def slowly(image: Image.Image) -> torch.Tensor:
    """openai/CLIP's preparation, line by line."""
    width, height = image.size
    upright = width <= height
    size = (224, int(224 * height / width)) if upright else (int(224 * width / height), 224)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((image.width - 224) / 2.0), round((image.height - 224) / 2.0)
    image = image.crop((left, top, left + 224, top + 224)).convert("RGB")
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    return (pixels - mean) / std


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
@pytest.mark.parametrize("size", [(224, 224), (225, 224), (224, 225), (40, 90), (512, 340), (5, 7)])
def test_the_clip_profile_is_openais(size, mode):
    image = picture(*size, mode=mode)
    found = prepare([image], CLIP)
    assert found.shape == (1, 3, 224, 224)
    assert torch.allclose(found[0], slowly(image), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 33), (33, 1), (1, 40)])
def test_a_strip_is_prepared_as_if_it_had_been_resized_whole(size):
    image = picture(*size)
    assert torch.allclose(prepare([image], CLIP)[0], slowly(image), atol=0.02)


def test_a_strip_one_pixel_wide_needs_no_gigabytes():
    assert prepare([picture(1, 60_000)], CLIP).isfinite().all()


def test_no_images_give_none():
    assert prepare([], CLIP).shape == (0, 3, 224, 224)
    tensors = Preparation(size=16, domain="tensor")
    assert prepare([], tensors).shape == (0, 3, 16, 16)


def test_sixteen_bits_keep_their_range():
    ramp = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16)
    found = squares([Image.fromarray(ramp)], CLIP)
    assert found.min() < 5
    assert found.max() > 250
    assert 100 < found.float().mean() < 155


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_shorter_edge_becomes_the_size(height, width):
    tall, wide = resized(height, width, CLIP)
    assert min(tall, wide) == 224
    assert (tall >= wide) == (height >= width) or tall == wide


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_longer_edge_becomes_the_size(height, width):
    tall, wide = resized(height, width, Preparation(size=224, resize="longer"))
    assert max(tall, wide) == 224
    assert min(tall, wide) >= 1


def test_the_longer_edge_pads_the_middle():
    how = Preparation(size=32, resize="longer", pad=0.0)
    found = squares([Image.new("RGB", (64, 32), "white")], how)[0]
    assert found[:, 8:24].min() == 255
    assert found[:, :8].max() == 0
    assert found[:, 24:].max() == 0
    floats = prepare_tensor(torch.ones(1, 3, 32, 64), how)
    whole = normalise(found[None], how)
    assert torch.allclose(floats, whole, atol=1e-5)


@pytest.mark.parametrize("resize", ["shorter", "longer", "exact"])
def test_the_tensor_path_agrees_with_pillow_up_to_rounding(resize):
    how = Preparation(size=48, resize=resize)
    image = picture(131, 97).resize((100, 160), Image.Resampling.BICUBIC)
    floats = torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    difference = (prepare_tensor(floats, how) - prepare([image], how)).abs()
    assert difference.max() < 1.6 / 255 / 0.26
    assert difference.mean() < 0.4 / 255 / 0.26


def test_gradients_reach_pixels():
    pixels = torch.rand(2, 3, 50, 70, requires_grad=True)
    prepare_tensor(pixels, Preparation(size=24)).sum().backward()
    assert pixels.grad.isfinite().all()
    assert pixels.grad.abs().sum() > 0


def test_a_preparation_is_written_and_read():
    how = Preparation(size=32, resize="longer", pad=0.5, convert="after")
    assert preparation_from(preparation_dict(how), "here") == how


def test_what_cannot_be_done_is_refused():
    with pytest.raises(CheckpointError, match="at least 1"):
        Preparation(size=0)
    with pytest.raises(CheckpointError, match="antialias"):
        Preparation(size=8, antialias=False)
    with pytest.raises(CheckpointError, match="unknown preparation setting 'sise'"):
        preparation_from({"sise": 3}, "palate.json")
    with pytest.raises(CheckpointError, match="no size"):
        preparation_from({}, "palate.json")
    with pytest.raises(CheckpointError, match="8-bit squares"):
        squares([], Preparation(size=8, domain="tensor"))

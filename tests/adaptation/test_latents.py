from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
import torch

from palate.adaptation import latents as module
from palate.adaptation.latents import ImageFile, encode_latents, encode_moments, prepare_pixels
from palate.data.images import hash_image, open_image
from palate.errors import ImageError

SIZE = (16, 16)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    found = []
    for number in range(7):
        path = folder / f"{number}.png"
        PIL.Image.fromarray(draw.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(path)
        found.append(ImageFile(path, hash_image(path)))
    return found


def test_a_cached_draw_is_the_autoencoders_own_bit_for_bit(generator, base, pictures, tmp_path):
    pipeline = generator.pipeline
    cached = encode_latents(pipeline, base, pictures, SIZE, tmp_path)
    pixels = torch.stack([prepare_pixels(open_image(file.path), SIZE) for file in pictures])
    with torch.no_grad():
        seen = pipeline.vae.encode(pixels).latent_dist
        drawn = seen.sample(torch.Generator().manual_seed(3)) * pipeline.vae.config.scaling_factor
    ours = cached.draw(np.arange(7), torch.Generator().manual_seed(3))
    assert torch.equal(ours, drawn)
    assert cached.moments(np.arange(7))[1].min() > 0


def test_the_cache_is_found_again_and_follows_what_is_in_it(
    generator, base, pictures, tmp_path, monkeypatch
):
    first = encode_latents(generator.pipeline, base, pictures, SIZE, tmp_path)

    def never(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(module, "encode_moments", never)
    again = encode_latents(generator.pipeline, base, pictures, SIZE, tmp_path)
    assert np.array_equal(first.values, again.values)
    with pytest.raises(AssertionError, match="encoded again"):
        encode_latents(generator.pipeline, base, pictures[::-1], SIZE, tmp_path)
    with pytest.raises(AssertionError, match="encoded again"):
        encode_latents(generator.pipeline, base, pictures, (32, 32), tmp_path)


def test_interrupted_it_goes_on_with_the_same_numbers(
    generator, base, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "CHUNK", 2)
    whole = encode_latents(generator.pipeline, base, pictures, SIZE, tmp_path / "whole")
    calls = []

    def failing(pipeline, pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode_moments(pipeline, pixels)

    monkeypatch.setattr(module, "encode_moments", failing)
    with pytest.raises(KeyboardInterrupt):
        encode_latents(generator.pipeline, base, pictures, SIZE, tmp_path / "cut")
    progress = next((tmp_path / "cut").glob("*.json"))
    assert json.loads(progress.read_text()) == {"done": 4}
    rest = encode_latents(generator.pipeline, base, pictures, SIZE, tmp_path / "cut")
    assert calls == [2, 2, 2, 2, 1]
    assert np.array_equal(rest.values, whole.values)


def test_a_missing_picture_is_named(generator, base, pictures, tmp_path):
    lost = [*pictures, ImageFile(tmp_path / "lost.png", "0" * 64)]
    with pytest.raises(ImageError, match=r"lost\.png.*does not exist"):
        encode_latents(generator.pipeline, base, lost, SIZE, tmp_path)


def test_pixels_of_the_right_size_are_only_scaled():
    image = np.arange(16 * 16 * 3, dtype=np.int64).reshape(16, 16, 3) % 256
    pixels = prepare_pixels(PIL.Image.fromarray(image.astype(np.uint8)), SIZE)
    assert torch.equal(pixels, torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1)


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (9, 31), (17, 16), (300, 200)])
def test_the_short_side_is_resized_and_the_middle_is_kept(shape):
    width, height = shape
    row = np.linspace(0, 255, width).round().astype(np.uint8)
    image = PIL.Image.fromarray(np.broadcast_to(row[None, :, None], (height, width, 3)).copy())
    pixels = prepare_pixels(image, SIZE)
    assert pixels.shape == (3, 16, 16)
    assert abs(pixels.mean()) < 0.07  # an odd pixel falls off one side
    assert (pixels.diff(dim=2) > 0).all()

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from palate.adaptation import latents as module
from palate.adaptation.latents import (
    ImageFile,
    encode_latents,
    encode_missing,
    encode_moments,
    prepare_pixels,
)
from palate.data.images import hash_image, open_image
from palate.errors import ImageError, RunError
from palate.generation.tiny import write_tiny_pipeline

SIZE = (16, 16)
SIZES = [SIZE]


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
    cached = encode_latents(pipeline, base, pictures, SIZES, tmp_path)
    pixels = torch.stack([prepare_pixels(open_image(file.path), SIZE) for file in pictures])
    with torch.no_grad():
        # a forward always has as many pictures
        filled = torch.cat([pixels, pixels[-1:].expand(module.CHUNK - 7, -1, -1, -1)])
        seen = DiagonalGaussianDistribution(pipeline.vae.encode(filled).latent_dist.parameters[:7])
        drawn = seen.sample(torch.Generator().manual_seed(3)) * pipeline.vae.config.scaling_factor
    noise = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(3))
    ours = cached.draw(np.arange(7), noise)
    assert torch.equal(ours, drawn)
    assert cached.moments(np.arange(7))[1].min() > 0


def everything(latents):
    return torch.stack(latents.moments(np.arange(len(latents.files))))


def test_the_cache_is_found_again_by_any_run_and_follows_what_is_in_it(
    generator, base, pictures, tmp_path, monkeypatch
):
    first = everything(encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path))

    def never(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(module, "encode_moments", never)
    again = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path)
    assert torch.equal(everything(again), first)
    some = encode_latents(generator.pipeline, base, pictures[5:1:-1], SIZES, tmp_path)
    assert torch.equal(everything(some), first[:, [5, 4, 3, 2]])
    with pytest.raises(AssertionError, match="encoded again"):
        encode_latents(generator.pipeline, base, pictures, [(32, 32)], tmp_path)
    other = write_tiny_pipeline(tmp_path / "other", seed=1)
    with pytest.raises(AssertionError, match="encoded again"):
        encode_latents(generator.pipeline, other, pictures, SIZES, tmp_path)


def test_interrupted_it_goes_on_with_the_same_numbers(
    generator, base, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "CHUNK", 2)
    whole = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path / "whole")
    calls = []

    def failing(pipeline, pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode_moments(pipeline, pixels)

    monkeypatch.setattr(module, "encode_moments", failing)
    with pytest.raises(KeyboardInterrupt):
        encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path / "cut")
    assert len(list((tmp_path / "cut").rglob("*.npy"))) == 4
    rest = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path / "cut")
    assert calls == [2, 2, 2, 2, 2]  # the last one is filled up
    assert torch.equal(everything(rest), everything(whole))


def test_what_is_encoded_does_not_depend_on_the_company(generator, base, pictures, tmp_path):
    whole = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path / "whole")
    for number, picture in enumerate(pictures):
        alone = encode_latents(generator.pipeline, base, [picture], SIZES, tmp_path / str(number))
        assert torch.equal(everything(alone), everything(whole)[:, [number]])


def test_several_processes_share_the_pictures_out(generator, base, pictures, tmp_path):
    whole = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path / "whole")
    counts = []
    for number in (2, 0, 1):
        encode_missing(generator.pipeline, base, pictures, SIZES, tmp_path / "cut", (number, 3))
        counts.append(len(list((tmp_path / "cut").rglob("*.npy"))))
    assert counts[0] in {2, 3}
    rest = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path / "cut")
    assert torch.equal(everything(rest), everything(whole))


def test_from_memory_and_from_disk_it_is_the_same(generator, base, pictures, tmp_path, monkeypatch):
    kept = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path)
    monkeypatch.setattr(module, "MEMORY", 0)
    read = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path)
    assert len(kept.known) == 7
    assert not read.known
    assert torch.equal(everything(read), everything(kept))


def test_a_broken_file_of_the_cache_is_named(generator, base, pictures, tmp_path):
    latents = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path)
    latents.files[3].write_bytes(b"")
    with pytest.raises(RunError, match="is no readable file of the cache"):
        encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path)


def test_noise_has_the_shape_of_each_picture_and_comes_from_the_draw_alone(
    generator, base, pictures, tmp_path
):
    latents = encode_latents(generator.pipeline, base, pictures, SIZES, tmp_path)
    rows = np.array([3, 0, 3])
    one, two = (latents.noise(rows, torch.Generator().manual_seed(4)) for _ in range(2))
    whole = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(4))
    assert torch.equal(torch.stack(one), torch.stack(two))
    assert torch.equal(torch.stack(one), whole)


def test_a_missing_picture_is_named(generator, base, pictures, tmp_path):
    lost = [*pictures, ImageFile(tmp_path / "lost.png", "0" * 64)]
    with pytest.raises(ImageError, match=r"lost\.png.*does not exist"):
        encode_latents(generator.pipeline, base, lost, SIZES, tmp_path)


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

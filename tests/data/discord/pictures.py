"""Small pictures that tell each other apart: smooth random fields, collages, upscales."""

from __future__ import annotations

import io
import random

import numpy as np
import PIL.Image
import PIL.ImageFilter

# Rows and columns of a collage of k images; the order is row-major.
LAYOUTS = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 2), 6: (2, 3), 8: (2, 4), 9: (3, 3)}


def field(rng: random.Random, width: int = 64, height: int = 64) -> PIL.Image.Image:
    """A smooth field of colours with a base colour of its own, so that two of them differ."""
    numbers = np.random.default_rng(rng.getrandbits(63))
    base = numbers.uniform(40, 215, size=3)
    coarse = base + numbers.normal(0, 48, size=(5, 5, 3))
    small = PIL.Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
    return small.resize((width, height), PIL.Image.Resampling.BICUBIC)


def sibling(rng: random.Random, image: PIL.Image.Image, amount: float) -> PIL.Image.Image:
    """The same picture with a soft change: what a variation of it looks like."""
    other = field(rng, *image.size)
    return PIL.Image.blend(image, other, amount)


def collage(
    images: list[PIL.Image.Image], layout: tuple[int, int] | None = None
) -> PIL.Image.Image:
    """The images side by side, row-major; cells without an image stay black."""
    rows, columns = layout or LAYOUTS.get(len(images)) or (1, len(images))
    width, height = images[0].size
    whole = PIL.Image.new("RGB", (columns * width, rows * height))
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        whole.paste(image, (column * width, row * height))
    return whole


def upscale(rng: random.Random, image: PIL.Image.Image, strength: float = 1.0) -> PIL.Image.Image:
    """Twice as large, with a little new detail and another tone, as an upscaler gives it back."""
    numbers = np.random.default_rng(rng.getrandbits(63))
    size = (2 * image.width, 2 * image.height)
    large = image.resize(size, PIL.Image.Resampling.LANCZOS)
    large = large.filter(PIL.ImageFilter.UnsharpMask(2, 60))
    noise = numbers.normal(0, 5 * strength, size=(size[1] // 2, size[0] // 2, 3))
    fine = np.kron(noise, np.ones((2, 2, 1))) + numbers.normal(0, 4 * strength, size=3)
    return PIL.Image.fromarray((np.asarray(large) + fine).clip(0, 255).astype(np.uint8))


def encode(image: PIL.Image.Image, kind: str = "PNG", quality: int = 85) -> bytes:
    """The bytes of a PNG or JPEG file."""
    out = io.BytesIO()
    if kind == "PNG":
        image.save(out, "PNG", compress_level=1)
    else:
        image.save(out, kind, quality=quality)
    return out.getvalue()


def decode(data: bytes) -> PIL.Image.Image:
    """The picture of the bytes of a file."""
    image = PIL.Image.open(io.BytesIO(data))
    image.load()
    return image

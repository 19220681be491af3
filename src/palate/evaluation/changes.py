"""The changes that probe a scorer: of images, by Pillow alone, and of prompts."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from palate.data.images import to_rgb

Picture = PIL.Image.Image
Wanted = Literal["the same", "not higher", "lower"]
ChangeImage = Callable[[Picture, str, np.random.Generator], Picture]
ChangePrompt = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Probe:
    """One change of the image or of the prompt, and what an honest scorer does.

    `image` gets the picture, its prompt and random numbers; `prompt` gets the prompt and one of another
    image. `wanted`: the score stays `the same`, is `not higher`, or is `lower`.
    """

    name: str
    what: str
    wanted: Wanted
    image: ChangeImage | None = None
    prompt: ChangePrompt | None = None


def _resized(factor: float, *, back: bool = False) -> ChangeImage:
    def change(picture: Picture, _: str, __: np.random.Generator) -> Picture:
        width, height = (max(1, round(factor * side)) for side in picture.size)
        made = picture.resize((width, height), PIL.Image.Resampling.BICUBIC)
        return made.resize(picture.size, PIL.Image.Resampling.BICUBIC) if back else made

    return change


def _jpeg(quality: int) -> ChangeImage:
    def change(picture: Picture, _: str, __: np.random.Generator) -> Picture:
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=quality)
        return to_rgb(PIL.Image.open(sink))

    return change


def _enhanced(kind: Any, factor: float) -> ChangeImage:
    def change(picture: Picture, _: str, __: np.random.Generator) -> Picture:
        made: Picture = kind(picture).enhance(factor)
        return made

    return change


def _sharpened(picture: Picture, _: str, __: np.random.Generator) -> Picture:
    return picture.filter(ImageFilter.UnsharpMask(radius=2, percent=150, threshold=0))


def _bordered(picture: Picture, _: str, __: np.random.Generator) -> Picture:
    return ImageOps.expand(picture, max(1, round(0.08 * min(picture.size))), "white")


def _padded(picture: Picture, _: str, __: np.random.Generator) -> Picture:
    """Stand the picture between black bars, twice as wide."""
    made = PIL.Image.new("RGB", (2 * picture.width, picture.height))
    made.paste(picture, (picture.width // 2, 0))
    return made


def _flipped(picture: Picture, _: str, __: np.random.Generator) -> Picture:
    return ImageOps.mirror(picture)


def _cropped(picture: Picture, _: str, random: np.random.Generator) -> Picture:
    """Keep nine tenths of both sides, at a random place."""
    width, height = (max(1, round(0.9 * side)) for side in picture.size)
    left = int(random.integers(picture.width - width + 1))
    top = int(random.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def _letters(text: str, width: int) -> Picture:
    """Draw a line of text as a mask of a given width, in Pillow's own letters, the same everywhere."""
    plain = text.encode("latin-1", "replace").decode("latin-1")[:40] or " "
    font = ImageFont.load_default_imagefont()
    box = font.getbbox(plain)
    mask = PIL.Image.new("L", (max(1, round(box[2])), max(1, round(box[3]))))
    ImageDraw.Draw(mask).text((0, 0), plain, fill=255, font=font)
    height = max(1, round(mask.height * width / mask.width))
    return mask.resize((max(1, width), height), PIL.Image.Resampling.BILINEAR)


def _written(picture: Picture, prompt: str, _: np.random.Generator) -> Picture:
    """Write the prompt on the picture, white on a black bar at the bottom."""
    made, mask = picture.copy(), _letters(prompt, picture.width)
    mask = mask.crop((0, 0, mask.width, min(mask.height, max(1, picture.height // 3))))
    top = picture.height - mask.height
    made.paste("black", (0, top, picture.width, picture.height))
    made.paste("white", (0, top), mask)
    return made


def _watermarked(picture: Picture, _: str, random: np.random.Generator) -> Picture:
    """Lay a half transparent word over half of the width, at a random height."""
    mask = _letters("SAMPLE", max(1, picture.width // 2)).point(lambda value: value // 2)
    made = picture.copy()
    top = int(random.integers(max(1, picture.height - mask.height + 1)))
    made.paste("white", (picture.width // 4, top), mask)
    return made


PROBES: Final = (
    Probe("half size", "both sides halved", "the same", _resized(0.5)),
    Probe("double size", "both sides doubled", "the same", _resized(2.0)),
    Probe(
        "lost detail", "both sides to a third and back", "not higher", _resized(1 / 3, back=True)
    ),
    Probe("JPEG 90", "saved as JPEG of quality 90", "the same", _jpeg(90)),
    Probe("JPEG 30", "saved as JPEG of quality 30", "not higher", _jpeg(30)),
    Probe("brighter", "brightness × 1.3", "not higher", _enhanced(ImageEnhance.Brightness, 1.3)),
    Probe("darker", "brightness × 0.7", "not higher", _enhanced(ImageEnhance.Brightness, 0.7)),
    Probe("saturated", "saturation × 1.5", "not higher", _enhanced(ImageEnhance.Color, 1.5)),
    Probe("contrast", "contrast × 1.3", "not higher", _enhanced(ImageEnhance.Contrast, 1.3)),
    Probe("sharpened", "unsharp mask of 150 %, radius 2", "not higher", _sharpened),
    Probe("border", "a white frame of 8 % of the shorter side", "not higher", _bordered),
    Probe("bars", "black bars left and right, twice the width", "not higher", _padded),
    Probe("prompt written", "the prompt written on the image", "not higher", _written),
    Probe("watermark", "a half transparent word over the image", "not higher", _watermarked),
    Probe("flipped", "left and right exchanged", "not higher", _flipped),
    Probe("cropped", "nine tenths of both sides, at a random place", "not higher", _cropped),
    Probe(
        "prompt twice", "the prompt said twice", "the same", prompt=lambda own, _: f"{own}, {own}"
    ),
    Probe(
        "praise",
        "'masterpiece, best quality' before the prompt",
        "the same",
        prompt=lambda own, _: f"masterpiece, best quality, {own}",
    ),
    Probe("no prompt", "an empty prompt", "lower", prompt=lambda _, __: ""),
    Probe("wrong prompt", "the prompt of another image", "lower", prompt=lambda _, other: other),
)
"""Every probe, by the changes that users of preference scorers complain of."""

"""How an image becomes the numbers that a network sees, written once and saved with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from palate.data.images import decode_image, read_image, to_rgb
from palate.errors import CheckpointError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Preparation:
    """The way from a picture of any size and mode to a square of normalised numbers.

    ``size`` is the side of the square in pixels. ``resize`` brings the shorter edge to it and
    crops the middle, or brings the longer edge to it and pads with ``pad``, or stretches the image
    to it exactly. ``interpolation`` is the filter; with ``antialias`` it widens when shrinking
    (Pillow always does). ``domain`` says what is resized: the Pillow image in 8 bit, or a float
    tensor in [0, 1]. ``convert`` says whether the image becomes RGB before or after the resize,
    which matters for palettes and transparency: Pillow resizes a palette image by nearest
    neighbour. ``mean`` and ``std`` are per channel, for values in [0, 1].
    """

    size: int
    resize: Literal["shorter", "longer", "exact"] = "shorter"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    antialias: bool = True
    domain: Literal["pil", "tensor"] = "pil"
    convert: Literal["before", "after"] = "before"
    pad: float = 0.0
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        """Refuse what could not be carried out as written."""
        if self.size < 1:
            raise CheckpointError(f"preparation: size is {self.size}, expected at least 1")
        if self.domain == "pil" and not self.antialias:
            raise CheckpointError(
                "preparation: Pillow always antialiases; expected antialias = true or domain = 'tensor'"
            )
        if self.domain == "tensor" and self.interpolation == "lanczos":
            raise CheckpointError("preparation: lanczos needs domain = 'pil', found 'tensor'")


PROFILES: Mapping[str, Preparation] = {
    # openai/CLIP `_transform`: Resize, CenterCrop, then convert("RGB").
    "openai-clip": Preparation(size=224, convert="after"),
    # transformers' CLIPImageProcessor in Pillow: convert("RGB"), resize, centre crop.
    "transformers-clip": Preparation(size=224),
    # HPSv2 `img_score.py`: a float tensor, longer edge to 224, black around. torchvision antialiases it
    # since 0.17 and did not before.
    "hps-v2": Preparation(size=224, resize="longer", domain="tensor"),
    "hps-v2-no-antialias": Preparation(size=224, resize="longer", domain="tensor", antialias=False),
    # simulacra-aesthetic-models `rank_images.py`.
    "simulacra": Preparation(size=224, interpolation="lanczos"),
    "miniature": Preparation(size=32, resize="exact", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
}


# Modes that look different if they become RGB before they are resized and not after.
_OWN_MODES = frozenset({"1", "P", "PA", "LA", "La", "RGBA", "RGBa"})


def open_picture(path: Path, *, exif: bool = False) -> Image.Image:
    """Open an image file as safely as ``open_image``, but leave palettes and transparency as they are.

    A preparation that converts after the resize, as the official HPS v1 does, needs them so. Raises
    ImageError with one sentence.
    """
    return decode_picture(read_image(path), str(path), exif=exif)


def decode_picture(data: bytes, name: str, *, exif: bool = False) -> Image.Image:
    """Open an image as :func:`open_picture` does, from its bytes; ``name`` is for the sentence of an ImageError."""
    return decode_image(data, name, exif=exif, keep=_OWN_MODES)


def prepare(images: Sequence[Image.Image], how: Preparation) -> Float[Tensor, "images 3 size size"]:
    """Turn pictures into what the network sees, each on its own.

    An empty sequence gives a tensor of no images. Values are normalised float32.
    """
    return finish([ready(image, how) for image in images], how)


def ready(image: Image.Image, how: Preparation) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Do the part of a preparation that a process without the network can do: 3 × size × size numbers.

    A Pillow preparation gives 8 bits, a quarter of what the network sees and so cheaper to send; a
    tensor preparation gives the normalised float32 values.
    """
    if how.domain == "pil":
        return np.ascontiguousarray(np.asarray(_square(image, how)).transpose(2, 0, 1))
    return prepare_tensor(_unit(image), how)[0].numpy()


def finish(
    pixels: Sequence[NDArray[np.uint8] | NDArray[np.float32]], how: Preparation, device: str = "cpu"
) -> Float[Tensor, "images 3 size size"]:
    """Do the rest, on the device: what :func:`ready` gave becomes normalised float32."""
    kind = np.uint8 if how.domain == "pil" else np.float32
    stacked = np.stack(pixels) if len(pixels) else np.zeros((0, 3, how.size, how.size), kind)
    here = torch.from_numpy(stacked)
    if device.startswith("cuda"):  # from pinned memory the copy runs beside the network
        here = here.pin_memory()
    there = here.to(device, non_blocking=True)
    return normalise(there, how) if how.domain == "pil" else there


def squares(images: Sequence[Image.Image], how: Preparation) -> UInt8[Tensor, "images 3 size size"]:
    """Resize and crop or pad pictures to 8-bit squares, without normalising them.

    This is the part of a Pillow preparation that never changes during training, so it is done once.
    """
    if how.domain != "pil":
        raise CheckpointError("preparation: 8-bit squares need domain = 'pil', found 'tensor'")
    out = np.empty((len(images), how.size, how.size, 3), dtype=np.uint8)
    for row, image in enumerate(images):
        out[row] = np.asarray(_square(image, how))
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def normalise(
    pixels: UInt8[Tensor, "images 3 size size"], how: Preparation
) -> Float[Tensor, "images 3 size size"]:
    """Scale 8-bit squares to [0, 1], then subtract the mean and divide by the deviation."""
    return _standardise(pixels.to(torch.float32).div(255), how)


def prepare_tensor(
    pixels: Float[Tensor, "images 3 height width"], how: Preparation
) -> Float[Tensor, "images 3 size size"]:
    """Prepare pixels in [0, 1] so that gradients reach them.

    For a Pillow profile this agrees with :func:`prepare` up to Pillow's rounding to 8 bit; like
    Pillow it keeps what a bicubic filter overshoots within [0, 1].
    """
    height, width = int(pixels.shape[-2]), int(pixels.shape[-1])
    new_height, new_width = resized(height, width, how)
    if (new_height, new_width) != (height, width):
        # torch has no Lanczos filter; its bicubic one is the nearest.
        mode = "bicubic" if how.interpolation == "lanczos" else how.interpolation
        smooth = mode != "nearest"
        pixels = functional.interpolate(
            pixels,
            size=(new_height, new_width),
            mode=mode,
            align_corners=False if smooth else None,
            antialias=smooth and how.antialias,
        )
        if how.domain == "pil":
            pixels = pixels.clamp(0, 1)
    if how.resize == "shorter":
        top, left = _offset(new_height, how.size), _offset(new_width, how.size)
        pixels = pixels[..., top : top + how.size, left : left + how.size]
    elif how.resize == "longer":
        right, below = how.size - new_width, how.size - new_height
        around = (right // 2, right - right // 2, below // 2, below - below // 2)
        pixels = functional.pad(pixels, around, value=how.pad)
    return _standardise(pixels, how)


def resized(height: int, width: int, how: Preparation) -> tuple[int, int]:
    """Give the height and width after the resize and before the crop or the padding.

    The longer side is cut to a whole number where the shorter edge leads (torchvision's rule) and
    rounded, halves to even, where the longer edge leads (HPS v2's rule); never below one pixel.
    """
    if how.resize == "exact":
        return how.size, how.size
    if how.resize == "shorter":
        if width <= height:
            return int(how.size * height / width), how.size
        return how.size, int(how.size * width / height)
    scale = how.size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def area_kept(height: int, width: int, how: Preparation) -> float:
    """Give the share of an image's area that the network sees: 1 unless the preparation crops.

    A centre crop of a 16:9 picture keeps 0.5625.
    """
    if how.resize != "shorter":
        return 1.0
    new_height, new_width = resized(height, width, how)
    return min(1.0, how.size * how.size / (new_height * new_width))


def preparation_dict(how: Preparation) -> dict[str, object]:
    """Give a preparation as plain values that JSON can hold."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(how).items()
    }


def preparation_from(values: Mapping[str, object], where: str) -> Preparation:
    """Read a preparation from plain values; an unknown or missing name is refused."""
    known = {field.name for field in fields(Preparation)}
    if unknown := sorted(set(values) - known):
        raise CheckpointError(
            f"{where}: unknown preparation setting '{unknown[0]}', expected {sorted(known)}"
        )
    if "size" not in values:
        raise CheckpointError(f"{where}: the preparation has no size")
    filled = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return Preparation(**filled)  # type: ignore[arg-type]


def _square(image: Image.Image, how: Preparation) -> Image.Image:
    """Resize one picture and crop or pad it to the square."""
    if how.convert == "before" or image.mode == "F" or image.mode.startswith("I"):
        image = to_rgb(
            image
        )  # sixteen bits and floats have no filter in Pillow that keeps their range
    height, width = resized(image.height, image.width, how)
    if how.resize == "shorter":
        image = _shorter(image, height, width, how)
    elif (width, height) != image.size:
        image = image.resize((width, height), _FILTERS[how.interpolation])
    image = to_rgb(image)
    if image.size == (how.size, how.size):
        return image
    level = round(255 * how.pad)
    canvas = Image.new("RGB", (how.size, how.size), (level, level, level))
    canvas.paste(image, ((how.size - width) // 2, (how.size - height) // 2))
    return canvas


def _shorter(image: Image.Image, height: int, width: int, how: Preparation) -> Image.Image:
    """Bring the shorter edge to the size and crop the middle.

    A strip one pixel wide would first become a picture of gigabytes, of which only the middle is
    kept; from 32 times the size on, Pillow resizes just the part that the crop keeps. Its filter
    still sees the neighbours beyond that box, so the result is the same.
    """
    top, left = _offset(height, how.size), _offset(width, how.size)
    square = (how.size, how.size)
    if max(height, width) > 32 * how.size:
        down, right = image.height / height, image.width / width
        box = (left * right, top * down, (left + how.size) * right, (top + how.size) * down)
        return image.resize(square, _FILTERS[how.interpolation], box=box)
    if (width, height) != image.size:
        image = image.resize((width, height), _FILTERS[how.interpolation])
    return image.crop((left, top, left + how.size, top + how.size))


def _offset(length: int, size: int) -> int:
    """Give where the middle crop starts; halves go to even, as in torchvision."""
    return round((length - size) / 2)


def _unit(image: Image.Image) -> Float[Tensor, "1 3 height width"]:
    """Give one picture as floats in [0, 1]."""
    array = np.array(to_rgb(image), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def _standardise(
    pixels: Float[Tensor, "images 3 size size"], how: Preparation
) -> Float[Tensor, "images 3 size size"]:
    """Subtract the mean and divide by the deviation, per channel."""
    mean = torch.tensor(how.mean, dtype=pixels.dtype, device=pixels.device)[:, None, None]
    std = torch.tensor(how.std, dtype=pixels.dtype, device=pixels.device)[:, None, None]
    return (pixels - mean) / std

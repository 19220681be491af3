"""What a caller may give as images and prompts, and what is refused rather than guessed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from palate.errors import DataError
from palate.models.pixels import open_picture

Picture = Image.Image | Tensor
"""A Pillow image, which is prepared as officially, or pixels in [0, 1] (3 × height × width)."""


def as_items(images: Any) -> list[Any]:
    """Give what was given as images one by one; a tensor or array with four axes is a batch.

    Raises DataError for something that holds no images.
    """
    if isinstance(images, Tensor | np.ndarray) and images.ndim == 4:
        return list(images)
    if isinstance(images, str | os.PathLike | Image.Image | Tensor | np.ndarray):
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, Mapping):
        raise DataError(f"images: found {_kind(images)}, expected paths, Pillow images or tensors")
    return list(images)


def as_picture(image: Any, place: int) -> Picture:
    """Open and check one image.

    A path is opened; a Pillow image is taken as it is; 8-bit pixels (a tensor 3 × height × width, or an array height ×
    width × 3) become a Pillow image; a tensor of floats must lie in [0, 1] and stays a tensor.

    Raises DataError for anything else, and ImageError for a file that cannot be opened.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str | os.PathLike):
        return open_picture(Path(image))
    if isinstance(image, Tensor):
        return _from_tensor(image, f"image {place}")
    if isinstance(image, np.ndarray):
        return _from_array(image, f"image {place}")
    raise DataError(
        f"image {place}: found {_kind(image)}, expected a path, a Pillow image or a tensor"
    )


def as_pixels(pixels: Any) -> Tensor:
    """Check what is given to a scorer's `forward`: floats, images × 3 × height × width; give them in float32.

    That they lie in [0, 1] is the caller's part: to look would make a GPU wait.
    """
    if not isinstance(pixels, Tensor) or pixels.ndim != 4 or pixels.shape[1] != 3:
        found = tuple(pixels.shape) if isinstance(pixels, Tensor) else _kind(pixels)
        raise DataError(f"pixels: found {found}, expected a tensor of images × 3 × height × width")
    if not pixels.is_floating_point():
        raise DataError(f"pixels: found {pixels.dtype}, expected floats in [0, 1]")
    return pixels.float()


def paired(images: int, prompts: Any) -> list[str]:
    """Give one prompt per image; a single text is the prompt of every image.

    Raises DataError if there are not as many prompts as images, or if they are no texts.
    """
    if isinstance(prompts, str):
        return [prompts] * images
    if isinstance(prompts, Image.Image | Tensor | np.ndarray | os.PathLike):
        raise DataError(_swapped(prompts))
    if not isinstance(prompts, Iterable) or isinstance(prompts, Mapping):
        raise DataError(f"prompts: found {_kind(prompts)}, expected a text, or one for each image")
    texts = list(prompts)
    for text in texts:
        if not isinstance(text, str):
            raise DataError(_swapped(text))
    if len(texts) != images:
        raise DataError(f"{images} images but {len(texts)} prompts, expected one prompt per image")
    return texts


def _swapped(found: object) -> str:
    return f"prompts: found {_kind(found)}, expected texts; images come first, then prompts"


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _from_tensor(image: Tensor, where: str) -> Picture:
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise DataError(
            f"{where}: a tensor of shape {tuple(image.shape)}, expected 3 × height × width"
        )
    if image.dtype == torch.uint8:
        return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy(), "RGB")
    if not image.is_floating_point():
        raise DataError(f"{where}: a tensor of {image.dtype}, expected uint8 or floats in [0, 1]")
    low, high = image.detach().aminmax()
    if not (float(low) >= 0 and float(high) <= 1):
        raise DataError(
            f"{where}: floats from {float(low):g} to {float(high):g}, expected [0, 1]; "
            "levels from 0 to 255 belong in uint8"
        )
    return image


def _from_array(image: NDArray[Any], where: str) -> Picture:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(
            f"{where}: an array of {image.dtype} and shape {image.shape}, "
            "expected uint8, height × width × 3"
        )
    return Image.fromarray(image, "RGB")


def split_kinds(pictures: Sequence[Picture]) -> tuple[list[int], list[int]]:
    """Give the places of the Pillow images and those of the tensors."""
    tensors = [place for place, image in enumerate(pictures) if isinstance(image, Tensor)]
    others = [place for place, image in enumerate(pictures) if not isinstance(image, Tensor)]
    return others, tensors

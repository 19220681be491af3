"""Pictures as latents, encoded once: the mean and deviation of the autoencoder, not a sample.

A training step draws its own sample from mean and deviation, exactly as the autoencoder would, so
the cache changes no number. It can be shared by runs: its name is a hash of what is in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from palate.data.images import open_image
from palate.runs import hash_path, hash_text, track, write_atomic

CHUNK = 32
"""Pictures per forward of the encoder."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture on disk, with the content hash that its table recorded or that was computed."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Latents:
    """Mean and deviation of every picture, on disk and read as needed."""

    values: np.ndarray[Any, np.dtype[np.float32]]
    """images, 2 (mean, deviation), channels, rows, columns."""
    scaling: float
    """The factor that the denoiser's latents are multiplied by."""
    shift: float = 0.0

    def moments(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Tensor, Tensor]:
        """Give the mean and the deviation of some pictures, each "images channels rows columns"."""
        found = torch.from_numpy(self.values[rows])
        return found[:, 0], found[:, 1]

    def draw(
        self, rows: np.ndarray[Any, np.dtype[np.int64]], draw: torch.Generator
    ) -> Float[Tensor, "images channels height width"]:
        """Draw a latent of each picture, as ``latent_dist.sample()`` does, scaled for the denoiser."""
        mean, deviation = self.moments(rows)
        noise = torch.randn(mean.shape, generator=draw)
        return (mean + deviation * noise - self.shift) * self.scaling


def prepare_pixels(
    image: PIL.Image.Image, size: tuple[int, int]
) -> Float[Tensor, "3 height width"]:
    """Resize the short side (bilinear), cut the middle, and scale to [-1, 1].

    HPS cuts at random; for square pictures, as DiffusionDB's are, there is only one cut.
    ``size``: height and width.
    """
    height, width = size
    factor = max(height / image.height, width / image.width)
    if image.size != (width, height):
        wide = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
        image = image.resize(wide, PIL.Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    cut = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32)
    return torch.from_numpy(cut).permute(2, 0, 1) / 127.5 - 1


def encode_latents(
    pipeline: Any, folder: Path, files: Sequence[ImageFile], size: tuple[int, int], cache: Path
) -> Latents:
    """Encode pictures into the cache folder, or find them there; interrupted, it goes on.

    Args:
        pipeline: the base's StableDiffusionPipeline.
        folder: the base's folder; its autoencoder's files name the cache.
        files: the pictures, in the order of the rows.
        size: height and width in pixels.
        cache: gets ``latents-<hash>.npy``.

    Raises:
        ImageError: a picture is missing or damaged.
    """
    # what the encoder computes depends on its precision as well as on its weights
    parts = (hash_path(folder / "vae"), str(pipeline.vae.dtype), str(size), str(CHUNK))
    name = hash_text(*parts, *(file.sha256 for file in files))[:20]
    path, progress = cache / f"latents-{name}.npy", cache / f"latents-{name}.json"
    factor = pipeline.vae_scale_factor
    channels = pipeline.vae.config.latent_channels
    shape = (len(files), 2, channels, size[0] // factor, size[1] // factor)
    done = json.loads(progress.read_text())["done"] if progress.exists() and path.exists() else 0
    if done < len(files):
        _encode_rest(pipeline, files, size, path, progress, shape, done)
    config = pipeline.vae.config
    return Latents(
        np.load(path, mmap_mode="r"), config.scaling_factor, config.get("shift_factor") or 0.0
    )


def _encode_rest(
    pipeline: Any,
    files: Sequence[ImageFile],
    size: tuple[int, int],
    path: Path,
    progress: Path,
    shape: tuple[int, ...],
    done: int,
) -> None:
    """Fill the cache from picture ``done`` on; the count is written after what it counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "r+" if done else "w+"
    values = np.lib.format.open_memmap(path, mode=mode, dtype=np.float32, shape=shape)
    for start in track(range(done, len(files), CHUNK), "encoding pictures"):
        part = files[start : start + CHUNK]
        pixels = torch.stack([prepare_pixels(open_image(file.path), size) for file in part])
        values[start : start + len(part)] = encode_moments(pipeline, pixels).numpy()
        values.flush()
        write_atomic(progress, json.dumps({"done": start + len(part)}))


@torch.no_grad()
def encode_moments(
    pipeline: Any, pixels: Float[Tensor, "images 3 height width"]
) -> Float[Tensor, "images 2 channels rows columns"]:
    """Give the mean and the deviation that the autoencoder sees in pictures in [-1, 1]."""
    seen = pipeline.vae.encode(pixels.to(pipeline.vae.device, pipeline.vae.dtype)).latent_dist
    return torch.stack([seen.mean, seen.std], dim=1).float().cpu()

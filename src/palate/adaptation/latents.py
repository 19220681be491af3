"""Pictures as latents, encoded once: the mean and deviation of the autoencoder, not a sample.

A training step draws its own sample from mean and deviation, exactly as the autoencoder would, so
the cache changes no number. It can be shared by runs: its name is a hash of what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from palate.adaptation.buckets import nearest_shapes
from palate.data.images import open_image, probe_image
from palate.errors import RunError
from palate.runs import atomic_path, hash_path, hash_text, track

CHUNK = 32
"""The most pictures per forward of the encoder."""

PIXELS = 1 << 19
"""The most pixels per forward of the encoder, but for a single picture."""

PREPARED = "cut 1"
"""Changes with ``prepare_pixels``, so that latents of pictures that were cut otherwise are not found."""

MEMORY = 1 << 30
"""Bytes of latents that are kept in memory."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture on disk, with the content hash and the size that its table recorded or that were read."""

    path: Path
    sha256: str
    width: int | None = None
    height: int | None = None

    def ratio(self) -> float:
        """Give width / height, from the file's head where no table has it."""
        if self.width and self.height:
            return self.width / self.height
        facts = probe_image(self.path, decode=False)
        return facts.width / facts.height


Ints = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Latents:
    """Mean and deviation of every picture: in memory where they are small, else read from the cache as needed."""

    files: tuple[Path, ...]
    """By picture: an array of 2 (mean, deviation), channels, rows, columns."""
    sizes: tuple[tuple[int, int], ...]
    """The shapes of pictures: height and width in pixels."""
    grids: tuple[tuple[int, int, int], ...]
    """The shapes of their latents: channels, rows, columns."""
    shape: Ints
    """Which shape, by picture."""
    scaling: float
    """The factor that the denoiser's latents are multiplied by."""
    shift: float = 0.0
    known: Mapping[Path, Array] = field(default_factory=dict)

    def moments(self, pictures: Ints) -> tuple[Tensor, Tensor]:
        """Give the mean and the deviation of some pictures of one shape, each "images channels rows columns"."""
        found = torch.from_numpy(np.stack([self._read(number) for number in pictures.tolist()]))
        return found[:, 0], found[:, 1]

    def draw(
        self, pictures: Ints, noise: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images channels height width"]:
        """Draw a latent of each picture, as ``latent_dist.sample()`` does, scaled for the denoiser."""
        mean, deviation = self.moments(pictures)
        return self.scaled(mean + deviation * noise)

    def scaled(self, latents: Tensor) -> Tensor:
        """Scale what the autoencoder gives for the denoiser."""
        return (latents - self.shift) * self.scaling

    def noise(self, pictures: Ints, draw: torch.Generator) -> list[Tensor]:
        """Draw standard normal numbers of the size of each picture's latent, all of a shape at once."""
        shapes = self.shape[pictures]
        found: list[Tensor] = [torch.empty(0)] * len(pictures)
        for shape in np.unique(shapes).tolist():
            mine = np.flatnonzero(shapes == shape).tolist()
            drawn = torch.randn((len(mine), *self.grids[shape]), generator=draw)
            for number, one in zip(mine, drawn, strict=True):
                found[number] = one
        return found

    def _read(self, picture: int) -> Array:
        file = self.files[picture]
        return self.known[file] if file in self.known else read_array(file)


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
    pipeline: Any,
    folder: Path,
    files: Sequence[ImageFile],
    sizes: Sequence[tuple[int, int]],
    cache: Path,
) -> Latents:
    """Encode pictures into the cache folder, or find them there; interrupted, it goes on.

    Args:
        pipeline: the base's pipeline.
        folder: the base's folder; its autoencoder's files name the cache.
        files: the pictures, in the order of the rows.
        sizes: shapes as height and width in pixels; each picture is cut to the nearest one.
        cache: gets one file for each picture and shape, named by the picture's hash. Runs can share it, whatever they
            do with the pictures, also at the same time.

    Raises:
        ImageError: a picture is missing or damaged.
    """
    places, shape = _places(pipeline, folder, files, sizes, cache)
    _fill(pipeline, files, sizes, places, shape)
    config, factor = pipeline.vae.config, pipeline.vae_scale_factor
    total = sum(place.stat().st_size for place in set(places))
    return Latents(
        files=tuple(places),
        sizes=tuple(sizes),
        grids=tuple(
            (config.latent_channels, height // factor, width // factor) for height, width in sizes
        ),
        shape=shape,
        scaling=config.scaling_factor,
        shift=config.get("shift_factor") or 0.0,
        known={place: read_array(place) for place in places} if total <= MEMORY else {},
    )


def encode_missing(
    pipeline: Any,
    folder: Path,
    files: Sequence[ImageFile],
    sizes: Sequence[tuple[int, int]],
    cache: Path,
    share: tuple[int, int],
) -> None:
    """Encode one process's part of the pictures that are not in the cache yet; ``share``: its number, and how many there are.

    A forward always has as many pictures: with another number its products may round differently, and what is in the
    cache must not depend on what was there before.
    """
    places, shape = _places(pipeline, folder, files, sizes, cache)
    _fill(pipeline, files, sizes, places, shape, share)


def _fill(
    pipeline: Any,
    files: Sequence[ImageFile],
    sizes: Sequence[tuple[int, int]],
    places: Sequence[Path],
    shape: Ints,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Write the files of the cache that are not there, or one process's part of them."""
    number, count = share
    for kind, size in enumerate(sizes):
        mine = np.flatnonzero(shape == kind).tolist()
        wanted = {places[picture]: files[picture] for picture in mine}
        missing = [place for place in wanted if not place.exists()][number::count]
        chunk = max(1, min(CHUNK, PIXELS // (size[0] * size[1])))
        for start in track(range(0, len(missing), chunk), "encoding pictures"):
            part = missing[start : start + chunk]
            pictures = [prepare_pixels(open_image(wanted[place].path), size) for place in part]
            filled = torch.stack(pictures + pictures[-1:] * (chunk - len(part)))
            for place, array in zip(part, encode_moments(pipeline, filled).numpy(), strict=False):
                write_array(place, array)


def _places(
    pipeline: Any,
    folder: Path,
    files: Sequence[ImageFile],
    sizes: Sequence[tuple[int, int]],
    cache: Path,
) -> tuple[list[Path], Ints]:
    """Give each picture's file in the cache, and its shape."""
    shape = nearest_shapes(files, sizes)
    vae = pipeline.vae
    # what the encoder computes depends on precision and device as well as on its weights
    encoder = (hash_path(folder / "vae"), str(vae.dtype), vae.device.type, PREPARED)
    names = [cache / hash_text(*encoder, str(size))[:20] for size in sizes]
    places = [
        names[number] / file.sha256[:2] / f"{file.sha256}.npy"
        for number, file in zip(shape.tolist(), files, strict=True)
    ]
    return places, shape


def read_array(file: Path) -> Array:
    """Read one picture's mean and deviation."""
    try:
        found: Array = np.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(
            f"{file}: is no readable file of the cache ({error}); remove it, and it is made again"
        ) from error
    return found


def write_array(file: Path, array: Array) -> None:
    """Write one picture's mean and deviation, in whole or not at all."""
    with atomic_path(file) as temporary, temporary.open("wb") as opened:
        np.save(opened, array)


@torch.no_grad()
def encode_moments(
    pipeline: Any, pixels: Float[Tensor, "images 3 height width"]
) -> Float[Tensor, "images 2 channels rows columns"]:
    """Give the mean and the deviation that the autoencoder sees in pictures in [-1, 1]."""
    seen = pipeline.vae.encode(pixels.to(pipeline.vae.device, pipeline.vae.dtype)).latent_dist
    return torch.stack([seen.mean, seen.std], dim=1).float().cpu()

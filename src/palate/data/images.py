"""Open image files safely and the same way everywhere.

An image is what its bytes say, not its file name. Whatever the mode of the file, the result is
8-bit RGB by a fixed rule (`docs/data.md` lists them):

- 8-bit modes and palettes: exactly Pillow's `convert("RGB")`, as the official codes of HPS,
  MPS, ImageReward and PickScore do. Transparency is dropped, not composited.
- 16-bit grey (`I;16`, and `I` between 0 and 65,535): divided by 257 and rounded. Pillow alone
  would clip everything above 255 to white.
- floating point (`F`): 0 is black and 1 is white; anything outside is refused.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from palate.errors import ImageError

MAX_PIXELS: Final = 100_000_000
"""Images with more pixels than this are refused before they are decoded."""

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Formats that are read. Others are left out on purpose: Pillow runs Ghostscript for EPS."""

MAX_BYTES: Final = 2 * 1024**3
"""Files with more bytes than this are refused before they are read whole."""

SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
)
"""File names that an import looks at; opening goes by the content."""

# Everything that Pillow's decoders raise on damaged bytes; Warning where the host makes it an error.
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    RuntimeError,
    AssertionError,
    AttributeError,
    KeyError,
    MemoryError,
    Warning,
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
)
_PILLOW_LIMIT: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the table of images says about a file: content hash and stored size."""

    sha256: str
    width: int
    height: int


def open_image(
    path: Path | str, *, max_pixels: int = MAX_PIXELS, exif: bool = False
) -> PIL.Image.Image:
    """Open an image file as 8-bit RGB.

    `exif=True` turns the image as its EXIF orientation says; the official codes do not. Of an
    animation the first frame is taken. Raises `ImageError` with one sentence for a missing,
    unreadable, truncated or too large file, and for a file that is no image.
    """
    path = Path(path)
    _require_file(path)
    return _decode(path, str(path), max_pixels, exif, frozenset())


def read_image(path: Path | str) -> bytes:
    """Read the bytes of an image file; raises `ImageError` with one sentence where that cannot be."""
    path = Path(path)
    _require_file(path)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ImageError(f"{path}: has {size:,} bytes, more than the limit of {MAX_BYTES:,}")
    try:
        return path.read_bytes()
    except PermissionError:
        raise ImageError(f"{path}: may not be read") from None
    except OSError as fault:
        raise ImageError(f"{path}: could not be read: {fault.strerror}") from None


def decode_image(
    data: bytes,
    name: str,
    *,
    max_pixels: int = MAX_PIXELS,
    exif: bool = False,
    keep: frozenset[str] = frozenset(),
) -> PIL.Image.Image:
    """Open an image from its bytes as `open_image` does; `name` is for the sentence of an `ImageError`.

    Images of the modes in `keep` stay as they are instead of becoming RGB.
    """
    return _decode(data, name, max_pixels, exif, keep)


def _decode(
    source: Path | bytes,
    name: str,
    max_pixels: int,
    exif: bool,  # noqa: FBT001 - private
    keep: frozenset[str],
) -> PIL.Image.Image:
    with _open(source, name, max_pixels) as image:
        try:
            image.load()
            turned = PIL.ImageOps.exif_transpose(image) if exif else image
        except _BROKEN as fault:
            raise ImageError(f"{name}: is truncated or damaged: {_reason(fault)}") from None
        return turned.copy() if image.mode in keep else to_rgb(turned, name)


def to_rgb(image: PIL.Image.Image, name: str = "the image") -> PIL.Image.Image:
    """Turn a Pillow image of any mode into 8-bit RGB by the rules of this module.

    Raises `ImageError` for values outside the mode's range and for modes without a rule.
    """
    mode = image.mode
    if mode == "RGB":
        return image.copy()
    if mode == "F":
        return _from_floats(image, name)
    if mode == "I" or mode.startswith("I;16"):
        return _from_integers(image, name)
    try:
        return image.convert("RGB")
    except (ValueError, OSError):
        raise ImageError(f"{name}: has the mode {mode!r}, which Palate does not read") from None


def hash_image(path: Path | str) -> str:
    """Return the SHA-256 of the file's bytes as 64 hex digits (what `sha256sum` prints)."""
    path = Path(path)
    _require_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as fault:
        raise ImageError(f"{path}: could not be read: {fault.strerror}") from None


def probe_image(
    path: Path | str, *, max_pixels: int = MAX_PIXELS, decode: bool = True
) -> ImageFacts:
    """Return hash and size of an image file, after checking that it opens.

    `decode=False` reads the header only: quicker, but a truncated file passes.
    """
    path = Path(path)
    _require_file(path)
    with _open(path, str(path), max_pixels) as image:
        width, height = image.size
        if decode:
            try:
                image.load()
            except _BROKEN as fault:
                raise ImageError(f"{path}: is truncated or damaged: {_reason(fault)}") from None
    return ImageFacts(hash_image(path), width, height)


def describe_bytes(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, decode: bool = True
) -> tuple[ImageFacts, str]:
    """Return hash, size and format (such as ``JPEG``) of an image from its bytes, as `probe_image` does."""
    with _open(data, name, max_pixels) as image:
        (width, height), kind = image.size, str(image.format)
        if decode:
            try:
                image.load()
            except _BROKEN as fault:
                raise ImageError(f"{name}: is truncated or damaged: {_reason(fault)}") from None
    return ImageFacts(hashlib.sha256(data).hexdigest(), width, height), kind


def _open(source: Path | bytes, name: str, max_pixels: int) -> PIL.Image.Image:
    """Read the header, and refuse what is no image or too large, before decoding anything."""
    try:
        # Pillow's own limit is a global that warns or raises at other sizes than ours. It is
        # lifted for the header only, which decodes no pixel, and under a lock.
        with _PILLOW_LIMIT:
            before = PIL.Image.MAX_IMAGE_PIXELS
            PIL.Image.MAX_IMAGE_PIXELS = None
            try:
                file = io.BytesIO(source) if isinstance(source, bytes) else source
                image = PIL.Image.open(file, formats=FORMATS)
            finally:
                PIL.Image.MAX_IMAGE_PIXELS = before
    except PermissionError:
        raise ImageError(f"{name}: may not be read") from None
    except PIL.UnidentifiedImageError:
        raise ImageError(_no_image(source, name)) from None
    except _BROKEN as fault:
        raise ImageError(f"{name}: is truncated or damaged: {_reason(fault)}") from None
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ImageError(
            f"{name}: has {width} × {height} = {width * height:,} pixels, "
            f"more than the limit of {max_pixels:,}"
        )
    return image


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, expected an image file")
    if not path.is_file():
        raise ImageError(f"{path}: does not exist")


def _no_image(source: Path | bytes, name: str) -> str:
    if isinstance(source, bytes):
        start = source[:24]
    else:
        with source.open("rb") as file:
            start = file.read(24)
    if not start:
        return f"{name}: is an empty file, expected an image"
    shown = start.decode("ascii", "backslashreplace")
    kinds = ", ".join(FORMATS)
    return f"{name}: is no image of a known format ({kinds}); it begins with {shown!r}"


def _reason(fault: BaseException) -> str:
    return str(fault).strip().rstrip(".") or type(fault).__name__


def _from_integers(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > 65_535:
        raise ImageError(f"{name}: has grey values from {low} to {high}, expected 0 to 65535")
    return _grey(((values + 128) // 257).astype(np.uint8))


def _from_floats(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: has grey values that are no numbers, expected 0 to 1")
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low < 0 or high > 1:
        raise ImageError(f"{name}: has grey values from {low:g} to {high:g}, expected 0 to 1")
    return _grey(np.floor(values * 255 + 0.5).astype(np.uint8))


def _grey(values: NDArray[np.uint8]) -> PIL.Image.Image:
    return PIL.Image.fromarray(values).convert("RGB")

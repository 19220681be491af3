"""Images open safely, and every mode has one meaning."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate.data.images import FORMATS, hash_image, open_image, probe_image, to_rgb
from palate.errors import ImageError

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 90)], axis=-1)


def picture(mode: str) -> PIL.Image.Image:
    colour = PIL.Image.fromarray(COLOUR)
    if mode in {"LA", "RGBA"}:
        image = colour.convert(mode)
        image.putalpha(PIL.Image.fromarray(RAMP[:, ::-1].copy()))
        return image
    if mode == "PA":
        return colour.convert("P").convert("PA")
    if mode == "LAB":
        return PIL.Image.frombytes("LAB", colour.size, COLOUR.tobytes())
    return colour.convert(mode)


EIGHT_BIT = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]


@pytest.mark.parametrize("mode", EIGHT_BIT)
def test_eight_bit_modes_are_pillows_own_conversion(mode: str) -> None:
    image = picture(mode)
    assert image.mode == mode
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(image.convert("RGB")))


FILES = [
    ("1", "PNG"),
    ("L", "PNG"),
    ("LA", "PNG"),
    ("P", "PNG"),
    ("P", "GIF"),
    ("RGB", "PNG"),
    ("RGB", "BMP"),
    ("RGB", "WEBP"),
    ("RGB", "AVIF"),
    ("RGB", "PPM"),
    ("RGBA", "PNG"),
    ("RGBA", "WEBP"),
    ("CMYK", "JPEG"),
    ("L", "JPEG"),
    ("YCbCr", "TIFF"),
    ("LAB", "TIFF"),
    ("CMYK", "TIFF"),
]


@pytest.mark.parametrize(("mode", "kind"), FILES)
def test_files_of_every_mode_open_as_pillow_converts_them(
    mode: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"image.{kind.lower()}"
    picture(mode).save(path, kind)
    opened = open_image(path)
    with PIL.Image.open(path) as reference:
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), np.asarray(reference.convert("RGB")))


def test_alpha_is_dropped_and_not_composited(tmp_path: Path) -> None:
    image = PIL.Image.new("RGBA", (2, 2), (200, 100, 50, 0))
    image.save(tmp_path / "clear.png")
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (200, 100, 50)


def test_a_palette_with_a_transparent_entry_keeps_its_colour(tmp_path: Path) -> None:
    image = PIL.Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "palette.png", transparency=1)
    assert open_image(tmp_path / "palette.png").getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize(
    ("value", "grey"), [(0, 0), (128, 0), (129, 1), (257, 1), (32_896, 128), (65_535, 255)]
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(
    value: int, grey: int, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"deep.{kind.lower()}"
    PIL.Image.fromarray(np.full((2, 2), value, np.uint16)).save(path, kind)
    assert open_image(path).getpixel((0, 0)) == (grey, grey, grey)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_sixteen_bit_grey_means_the_same_in_either_byte_order(mode: str) -> None:
    order = ">u2" if mode == "I;16B" else "<u2"
    image = PIL.Image.frombytes(mode, (2, 1), np.array([0, 32_896], order).tobytes())
    assert to_rgb(image).getpixel((1, 0)) == (128, 128, 128)


def test_a_sixteen_bit_file_equals_its_eight_bit_version(tmp_path: Path) -> None:
    PIL.Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(np.asarray(open_image(tmp_path / "deep.png"))[..., 0], RAMP)


def test_thirty_two_bit_grey_is_read_as_sixteen_bits(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(np.array([[0, 65_535]], np.int32))
    assert image.mode == "I"
    image.save(tmp_path / "deep.tiff")
    assert np.asarray(open_image(tmp_path / "deep.tiff"))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("value", [-1, 65_536, 2**31 - 1])
def test_thirty_two_bit_grey_out_of_range_is_refused(value: int) -> None:
    image = PIL.Image.fromarray(np.array([[0, value]], np.int32))
    with pytest.raises(ImageError, match=r"x: has grey values from .*expected 0 to 65535"):
        to_rgb(image, "x")


def test_floats_run_from_black_to_white(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "float.tiff")
    assert np.asarray(open_image(tmp_path / "float.tiff"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, np.inf])
def test_floats_out_of_range_are_refused(value: float) -> None:
    image = PIL.Image.fromarray(np.array([[0, value]], np.float32))
    with pytest.raises(ImageError, match="expected 0 to 1"):
        to_rgb(image, "x")


def test_a_mode_without_a_rule_is_refused_by_name() -> None:
    with pytest.raises(ImageError, match="the image: has the mode 'La'"):
        to_rgb(PIL.Image.new("La", (2, 2)))


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        path = tmp_path / f"moving.{kind.lower()}"
        frames[0].save(path, kind, save_all=True, append_images=frames[1:], lossless=True)
        assert np.array_equal(np.asarray(open_image(path)), np.asarray(frames[0]))


def test_exif_orientation_counts_only_when_asked_for(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (8, 4)
    assert open_image(tmp_path / "turned.jpg", exif=True).size == (4, 8)


def bomb(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [10_001, 60_000])
def test_a_decompression_bomb_is_refused_by_its_size_before_decoding(
    side: int, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side, side))
    with pytest.raises(
        ImageError, match=rf"bomb.png: has {side} × {side} = .* limit of 100,000,000"
    ):
        open_image(path)
    with pytest.raises(ImageError, match="truncated"):
        open_image(path, max_pixels=side * side) if side < 20_000 else probe_image(
            path, max_pixels=side * side
        )


def test_the_pixel_limit_is_exact(tmp_path: Path) -> None:
    PIL.Image.new("L", (10, 10)).save(tmp_path / "ten.png")
    assert open_image(tmp_path / "ten.png", max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="100 pixels, more than the limit of 99"):
        open_image(tmp_path / "ten.png", max_pixels=99)


def test_pillows_own_limit_is_left_as_it_was(tmp_path: Path) -> None:
    before = PIL.Image.MAX_IMAGE_PIXELS
    (tmp_path / "notes.png").write_text("hello")
    with pytest.raises(ImageError):
        open_image(tmp_path / "notes.png")
    assert before == PIL.Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello world", "is no image of a known format .* it begins with 'hello world'"),
        (b"", "is an empty file"),
        (b"\x89PNG\r\n\x1a\n", "is no image|truncated or damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is no image"),
    ],
)
def test_what_is_no_image_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(content)
    with pytest.raises(ImageError, match=f"notes.png: ({message})"):
        open_image(tmp_path / "notes.png")


def test_wrong_paths_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png: does not exist"):
        open_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match=r"nowhere\.png: does not exist"):
        hash_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)


def encoded(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def outcome(path: Path) -> np.ndarray | str:
    """The pixels, or the sentence of the refusal; any other exception is a failure."""
    try:
        return np.asarray(open_image(path, max_pixels=1_000_000))
    except ImageError as fault:
        return str(fault)


WHOLE = {kind: encoded(kind) for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_truncated_file_is_refused_or_loses_no_pixel(
    kind: str, data: st.DataObject, tmp_path: Path
) -> None:
    whole = WHOLE[kind]
    path = tmp_path / "cut.img"
    path.write_bytes(whole)
    expected = np.asarray(open_image(path))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    found = outcome(path)
    if isinstance(found, str):
        assert found.startswith(f"{path}: is ")
    else:
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", FORMATS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_bytes_raise_nothing_but_image_errors(
    kind: str, data: st.DataObject, tmp_path: Path
) -> None:
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.img"
    path.write_bytes(content)
    found = outcome(path)
    assert found.startswith(f"{path}: ") if isinstance(found, str) else found.shape[2] == 3


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    picture("RGB").save(path)
    facts = probe_image(path)
    assert facts.sha256 == hash_image(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts.width, facts.height) == (8, 6)


def test_probing_decodes_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(WHOLE["JPEG"][:-300])
    with pytest.raises(ImageError, match=r"cut.jpg: is truncated or damaged"):
        probe_image(path)
    assert probe_image(path, decode=False).width == 40


def test_the_opened_image_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    picture("RGB").save(path)
    image = open_image(path)
    path.unlink()
    assert image.getpixel((0, 0)) == (0, 200, 90)

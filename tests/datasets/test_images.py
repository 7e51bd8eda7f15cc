"""Image files read as upright RGB."""

from __future__ import annotations

import errno
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_scorecam.datasets import DatasetOfPairs, read_image
from captum_scorecam.datasets.images import upright_size
from tests.support.systems import needs_posix

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels_of(image: Image.Image, path: Path, **options: Any) -> np.ndarray:
    image.save(path, **options)
    read = read_image(path)
    assert read.mode == "RGB"
    return np.asarray(read)


def png_of_16_bit_colours(pixel: list[int]) -> bytes:
    """A PNG file of one pixel, which Pillow can read but not write."""
    chunks = (
        (b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)),
        (b"IDAT" + zlib.compress(b"\0" + struct.pack(">3H", *pixel))),
    )
    packed = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (*chunks, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_rgb_is_unchanged(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert (pixels_of(Image.fromarray(values), tmp_path / "image.png") == values).all()


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (2, 1), (*RED, 255)),
        Image.new("RGB", (2, 1), RED).convert("P", palette=Image.Palette.ADAPTIVE),
        Image.new("RGBA", (2, 1), (*RED, 255)).quantize(),
    ],
    ids=["RGBA", "P", "PA"],
)
def test_opaque_pixels_keep_their_colour(image: Image.Image, tmp_path: Path) -> None:
    assert pixels_of(image, tmp_path / "image.png").tolist() == [[list(RED), list(RED)]]


@pytest.mark.parametrize(("alpha", "expected"), [(0, WHITE), (51, (255, 204, 204))])
def test_transparent_pixels_are_blended_with_white(alpha: int, expected: tuple[int, ...], tmp_path: Path) -> None:
    image = Image.new("RGBA", (1, 1), (*RED, alpha))
    assert pixels_of(image, tmp_path / "image.png").tolist() == [[list(expected)]]


def test_the_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels_of(image, tmp_path / "image.gif", transparency=0).tolist() == [[list(WHITE), [0, 0, 255]]]


@pytest.mark.parametrize(("mode", "value", "grey"), [("L", 77, 77), ("1", 1, 255), ("LA", (77, 255), 77)])
def test_grey_becomes_rgb(mode: str, value: Any, grey: int, tmp_path: Path) -> None:
    assert pixels_of(Image.new(mode, (1, 1), value), tmp_path / "image.png").tolist() == [[[grey] * 3]]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_scaled_to_8(suffix: str, tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    pixels = pixels_of(Image.fromarray(values), tmp_path / f"image.{suffix}")
    assert pixels[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.2, 0.4, 0.6], [51, 102, 153]),
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([3.0, 70.0, 254.6], [3, 70, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_floats_are_scaled_by_a_fixed_range(values: list[float], expected: list[int], tmp_path: Path) -> None:
    pixels = pixels_of(Image.fromarray(np.array([values], dtype=np.float32)), tmp_path / "image.tiff")
    assert pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize(("values", "expected"), [([0, 128, 255], [0, 128, 255]), ([0, 257, 65535], [0, 1, 255])])
def test_integers_of_32_bits_are_scaled_as_8_or_16_bits(values: list[int], expected: list[int], tmp_path: Path) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert image.mode == "I"
    assert pixels_of(image, tmp_path / "image.tiff")[0, :, 0].tolist() == expected
    assert np.asarray(DatasetOfPairs([(image, 3)])[0].image)[0, :, 0].tolist() == expected


def test_a_dark_pgm_file_of_16_bits_is_not_taken_for_8(tmp_path: Path) -> None:
    (tmp_path / "image.pgm").write_text("P2 2 1 4095\n0 15\n")
    with pytest.warns(UserWarning, match="The highest value of .* is 240 of 65535, so it looks dark"):
        assert np.asarray(read_image(tmp_path / "image.pgm"))[0, :, 0].tolist() == [0, 1]


def test_integers_of_32_bits_from_0_to_1_cause_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="The highest value of .* is 1 of 255, so it looks dark"):
        pixels = pixels_of(Image.fromarray(np.array([[0, 1]], dtype=np.int32)), tmp_path / "image.tiff")
    assert pixels[0, :, 0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "expected", "limits"),
    [
        (np.array([[-1, 0, 1]], dtype=np.float32), [0, 128, 255], "-1 to 1"),
        (np.array([[0, 1.25, 0.25]], dtype=np.float32), [0, 255, 51], "0 to 1.25"),
        (np.array([[100, 1100, 600]], dtype=np.float32), [0, 255, 128], "100 to 1100"),
        (np.array([[-1000, 0, 3000]], dtype=np.int32), [0, 64, 255], "-1000 to 3000"),
        (np.array([[0, 200000, 100000]], dtype=np.int32), [0, 255, 128], "0 to 200000"),
        (np.array([[-5, -5, -5]], dtype=np.int32), [0, 0, 0], "-5 to -5"),
    ],
)
def test_values_of_no_fixed_range_are_stretched_with_a_warning(
    values: np.ndarray, expected: list[int], limits: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=rf"image\.tiff', but they range from {limits}\. The lowest becomes black"):
        pixels = pixels_of(Image.fromarray(values), tmp_path / "image.tiff")
    assert pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_raise(value: float, tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0.5, value, 0.2]], dtype=np.float32))
    image.save(tmp_path / "image.tiff")
    with pytest.raises(ValueError, match=r"^Expected finite values in '.*image\.tiff', but 1 of 3 are NaN or Inf"):
        read_image(tmp_path / "image.tiff")
    with pytest.raises(ValueError, match="Expected finite values in '0', but 1 of 3 are NaN or Inf"):
        DatasetOfPairs([(image, 3)])[0]


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_fewer_bits_stored_as_16_cause_a_warning(bits: int, suffix: str, tmp_path: Path) -> None:
    highest = 2**bits - 1
    image = Image.fromarray(np.array([[0, highest]], dtype=np.uint16))
    message = f"The highest value of '.*' is {highest} of 65535, so it looks dark"
    with pytest.warns(UserWarning, match=message):
        pixels = pixels_of(image, tmp_path / f"image.{suffix}")
    assert pixels[0, 1, 0] == round(highest / 257)
    with pytest.warns(UserWarning, match=message):
        DatasetOfPairs([(image, 3)])[0]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_16_bit_colours_cause_a_warning(bits: int, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png_of_16_bit_colours([0, 300, 2**bits - 1]))
    with pytest.warns(UserWarning, match=rf"The highest value of .* is {2 ** (bits - 8) - 1} of 255, so it looks dark"):
        assert read_image(path).getpixel((0, 0)) == (0, 1, 2 ** (bits - 8) - 1)
    path.write_bytes(png_of_16_bit_colours([0, 300, 2**15]))
    assert read_image(path).getpixel((0, 0)) == (0, 1, 128)


def test_values_from_0_to_1_stored_as_8_bits_cause_a_warning(tmp_path: Path) -> None:
    values = np.array([[[0, 1, 1], [1, 0, 1]]], dtype=np.uint8)
    with pytest.warns(UserWarning, match="The highest value of .* is 1 of 255, so it looks dark"):
        assert (pixels_of(Image.fromarray(values), tmp_path / "colour.png") == values).all()
    rgba = np.concatenate([200 * values, np.ones_like(values[..., :1])], 2)
    with pytest.warns(UserWarning, match="The highest alpha of .* is 1 of 255, so it is nearly transparent"):
        assert pixels_of(Image.fromarray(rgba), tmp_path / "transparent.png").min() == 254
    with pytest.warns(UserWarning, match="The highest value of '0' is 1 of 255, so it looks dark"):
        DatasetOfPairs([(Image.fromarray(values), 3)])[0]


def test_a_dark_image_is_read_without_a_warning(tmp_path: Path) -> None:
    assert pixels_of(Image.new("RGB", (2, 1), (16, 0, 0)), tmp_path / "dark.png")[0, 0].tolist() == [16, 0, 0]
    assert pixels_of(Image.new("RGBA", (2, 1), (0, 0, 0, 255)), tmp_path / "black.png").max() == 0
    deep = Image.fromarray(np.array([[0, 2**14]], dtype=np.uint16))
    assert pixels_of(deep, tmp_path / "deep.png")[0, 1, 0] == 64


def test_a_tiff_file_of_12_bits_is_scaled_by_them(tmp_path: Path) -> None:
    path = tmp_path / "image.tiff"
    Image.fromarray(np.array([[0, 4095, 819, 0]], dtype=np.uint16)).save(path)
    content = path.read_bytes()
    bits, values = b"\x02\x01\x03\x00\x01\x00\x00\x00\x10", bytes(2) + b"\xff\x0f\x33\x03" + bytes(2)
    assert content.count(bits) == content.count(values) == 1
    packed = bytes.fromhex("000fff333000") + bytes(2)
    path.write_bytes(content.replace(bits, bits[:-1] + b"\x0c").replace(values, packed))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, 255, 51, 0]


def tiff_with(tag: bytes, old: int, new: int, image: Image.Image, path: Path, **options: Any) -> Path:
    """Writes a TIFF file with another value of a tag, which Pillow can read but not write."""
    image.save(path, **options)
    entry = tag + b"\x03\x00\x01\x00\x00\x00"
    content = path.read_bytes()
    assert content.count(entry + bytes([old, 0])) == 1
    path.write_bytes(content.replace(entry + bytes([old, 0]), entry + bytes([new, 0])))
    return path


SAMPLE_FORMAT, PHOTOMETRIC = b"\x53\x01", b"\x06\x01"


@pytest.mark.parametrize(
    ("values", "expected", "limits"),
    [
        ([0, 2**31, 2**32 - 1], [0, 128, 255], "0 to 4.29497e\\+09"),
        ([0, 100000, 200000], [0, 128, 255], "0 to 200000"),
    ],
)
def test_unsigned_integers_of_32_bits_do_not_become_negative(
    values: list[int], expected: list[int], limits: str, tmp_path: Path
) -> None:
    image = Image.fromarray(np.array([values], dtype=np.uint32).view(np.int32))
    path = tiff_with(SAMPLE_FORMAT, 2, 1, image, tmp_path / "image.tiff")
    with pytest.warns(UserWarning, match=f"but they range from {limits}. The lowest becomes black"):
        assert np.asarray(read_image(path))[0, :, 0].tolist() == expected
    with Image.open(path) as opened, pytest.warns(UserWarning, match=limits):
        assert np.asarray(DatasetOfPairs([(opened, 3)])[0].image)[0, :, 0].tolist() == expected


def test_unsigned_integers_of_32_bits_in_a_known_range_are_scaled_as_before(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.int32))
    path = tiff_with(SAMPLE_FORMAT, 2, 1, image, tmp_path / "image.tiff")
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, 1, 255]


def test_signed_integers_of_8_bits_are_not_read_as_unsigned(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[-128, 0, 127]], dtype=np.int8).view(np.uint8))
    with pytest.warns(UserWarning, match=r"but they range from -128 to 127\. The lowest becomes black"):
        assert pixels_of(image, tmp_path / "image.tiff", tiffinfo={339: 2})[0, :, 0].tolist() == [0, 128, 255]
    positive = Image.fromarray(np.array([[0, 64, 127]], dtype=np.uint8))
    assert pixels_of(positive, tmp_path / "positive.tiff", tiffinfo={339: 2})[0, :, 0].tolist() == [0, 64, 127]


@pytest.mark.parametrize(("highest", "expected"), [(255, 1), (300, 1), (32767, 127)])
def test_signed_integers_of_16_bits_have_one_scale(highest: int, expected: int, tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, highest]], dtype=np.uint16))
    path = tmp_path / "image.tiff"
    image.save(path, tiffinfo={339: 2})
    with Image.open(path) as opened:
        assert opened.mode == "I"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of dark images
        assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], dtype=np.uint8), [255, 155, 0]),
        (np.array([[0, 257, 65535]], dtype=np.uint16), [255, 254, 0]),
        (np.array([[0, 0.2, 1]], dtype=np.float32), [255, 204, 0]),
        (np.array([[0, 0, 255]], dtype=np.uint16), [255, 255, 254]),
    ],
    ids=["8 bits", "16 bits", "floats", "bright"],
)
def test_values_whose_zero_is_white_are_inverted(values: np.ndarray, expected: list[int], tmp_path: Path) -> None:
    path = tiff_with(PHOTOMETRIC, 1, 0, Image.fromarray(values), tmp_path / "image.tiff")
    assert np.asarray(read_image(path))[0, :, 0].tolist() == expected


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    pixels = pixels_of(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / "image.jpg", quality=95)
    np.testing.assert_allclose(pixels[8, 8], RED, atol=3)  # JPEG


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying; turn clockwise
    pixels = pixels_of(image, tmp_path / "image.png", exif=exif)
    assert pixels.shape == (3, 2, 3)
    assert pixels[0, 1].tolist() == list(RED)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (3, 2)), (3, (3, 2)), (6, (2, 3)), (8, (2, 3)), (9, (3, 2))])
def test_the_size_of_an_upright_image_is_known_without_reading_it(
    suffix: str, orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    Image.new("RGB", (3, 2)).save(path, exif=exif)
    assert upright_size(path) == read_image(path).size == size


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (1, 1), colour) for colour in ("red", "blue")]
    pixels = pixels_of(frames[0], tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert pixels.tolist() == [[list(RED)]]


def test_missing_files_folders_and_text_files_raise(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for name, message in (("none.png", "there is no file"), (".", "is a folder"), ("text.png", "cannot identify")):
        with pytest.raises(ValueError, match=message):
            read_image(tmp_path / name)


@needs_posix
def test_devices_and_pipes_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/null")):
        with pytest.raises(ValueError, match=rf"^Expected an image file, but '{path}' is a device or a pipe\.$"):
            read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tiff"])
def test_a_truncated_file_raises(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match="can't be read as one"):
        read_image(path)


def test_a_damaged_file_raises(tmp_path: Path) -> None:
    path = tmp_path / "deep.tiff"
    Image.new("I;16", (6, 4)).save(path)
    content = path.read_bytes()
    strip_offsets, long, rational = b"\x11\x01", b"\x04\x00", b"\x05\x00"
    assert content.count(strip_offsets + long) == 1
    path.write_bytes(content.replace(strip_offsets + long, strip_offsets + rational))
    with pytest.raises(ValueError, match=r"deep\.tiff' can't be read as one: it is damaged\.$"):
        read_image(path)


def test_a_file_that_can_not_be_opened_raises_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "image.png").touch()
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match=r"image\.png' can't be read as one: Permission denied\.$"):
        read_image(tmp_path / "image.png")


def test_an_image_too_large_for_memory_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (30, 10)).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="exceeds limit"):
        read_image(tmp_path / "image.png")


def test_damaged_pixels_of_a_png_raise(tmp_path: Path) -> None:
    path, noise = tmp_path / "image.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 4 + 6000
    content[start : start + 50] = bytes(byte ^ 255 for byte in content[start : start + 50])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"image\.png' can't be read as one: "):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_an_image_with_a_damaged_exif_block_is_not_turned(suffix: str, tmp_path: Path) -> None:
    path, plain = tmp_path / f"damaged.{suffix}", tmp_path / f"plain.{suffix}"
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    image.save(path, exif=b"Exif\0\0not a TIFF header", dpi=(72, 72))
    image.save(plain)
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(read_image(plain)))
    assert upright_size(path) == (3, 2)

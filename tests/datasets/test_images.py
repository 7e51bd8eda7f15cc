"""Image files read as upright RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_scorecam.datasets import read_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels_of(image: Image.Image, path: Path, **options: Any) -> np.ndarray:
    image.save(path, **options)
    read = read_image(path)
    assert read.mode == "RGB"
    return np.asarray(read)


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


def test_floating_point_values_are_scaled_by_their_range(tmp_path: Path) -> None:
    values = np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)
    pixels = pixels_of(Image.fromarray(values), tmp_path / "image.tiff")
    assert pixels[0, :, 0].tolist() == [0, 128, 255]


def test_a_constant_32_bit_image_is_black(tmp_path: Path) -> None:
    pixels = pixels_of(Image.fromarray(np.full((1, 2), 0.3, dtype=np.float32)), tmp_path / "image.tiff")
    assert pixels.max() == 0


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


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (1, 1), colour) for colour in ("red", "blue")]
    pixels = pixels_of(frames[0], tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert pixels.tolist() == [[list(RED)]]


def test_missing_files_folders_and_text_files_raise(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for name, message in (("none.png", "there is no file"), (".", "there is no file"), ("text.png", "cannot identify")):
        with pytest.raises(ValueError, match=message):
            read_image(tmp_path / name)


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
    with pytest.raises(ValueError, match=r"deep\.tiff' can't be read as one: 'IFDRational'"):
        read_image(path)


def test_an_image_too_large_for_memory_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (30, 10)).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="exceeds limit"):
        read_image(tmp_path / "image.png")

"""Image files as people have them, and pixels as a model saw them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms._presets import ImageClassification

from captum_scorecam.command_line.explanation import display_name
from captum_scorecam.datasets import read_image
from captum_scorecam.models import seen_pixels

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels_of(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    image.save(path, **options)
    read = read_image(path)
    assert read.mode == "RGB"
    return np.asarray(read)


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
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
def test_transparent_pixels_are_laid_on_white(alpha: int, expected: tuple[int, ...], tmp_path: Path) -> None:
    image = Image.new("RGBA", (1, 1), (*RED, alpha))
    assert pixels_of(image, tmp_path / "image.png").tolist() == [[list(expected)]]


def test_the_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels_of(image, tmp_path / "image.gif", transparency=0).tolist() == [[list(WHITE), [0, 0, 255]]]


@pytest.mark.parametrize(("mode", "value", "grey"), [("L", 77, 77), ("1", 1, 255), ("LA", (77, 255), 77)])
def test_grey_becomes_rgb(mode: str, value: object, grey: int, tmp_path: Path) -> None:
    assert pixels_of(Image.new(mode, (1, 1), value), tmp_path / "image.png").tolist() == [[[grey] * 3]]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_scaled_to_8(suffix: str, tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    pixels = pixels_of(Image.fromarray(values), tmp_path / f"image.{suffix}")
    assert pixels[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_floating_point_is_scaled_from_its_lowest_to_its_highest(tmp_path: Path) -> None:
    values = np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)
    pixels = pixels_of(Image.fromarray(values), tmp_path / "image.tiff")
    assert pixels[0, :, 0].tolist() == [0, 128, 255]


def test_one_grey_value_in_32_bits_is_black(tmp_path: Path) -> None:
    pixels = pixels_of(Image.fromarray(np.full((1, 2), 0.3, dtype=np.float32)), tmp_path / "image.tiff")
    assert pixels.max() == 0


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    pixels = pixels_of(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / "image.jpg", quality=95)
    np.testing.assert_allclose(pixels[8, 8], RED, atol=3)  # JPEG


def test_the_camera_that_was_held_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    pixels = pixels_of(image, tmp_path / "image.png", exif=exif)
    assert pixels.shape == (3, 2, 3)
    assert pixels[0, 1].tolist() == list(RED)


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (1, 1), colour) for colour in ("red", "blue")]
    pixels = pixels_of(frames[0], tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert pixels.tolist() == [[list(RED)]]


def test_a_missing_file_a_folder_and_a_text_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for name, message in (("none.png", "there is no file"), (".", "there is no file"), ("text.png", "cannot identify")):
        with pytest.raises(ValueError, match=message):
            read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tiff"])
def test_a_file_that_was_cut_off_is_no_image(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match="can't be read as one"):
        read_image(path)


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (30, 10)).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="exceeds limit"):
        read_image(tmp_path / "image.png")


@pytest.mark.parametrize(
    "preprocess",
    [
        ImageClassification(crop_size=8, resize_size=8),
        transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2, 0.5, 0.6), (0.1, 0.3, 0.5))]),
    ],
    ids=["preset", "Compose"],
)
def test_the_normalisation_is_undone(preprocess: transforms.Compose) -> None:
    image = Image.linear_gradient("L").resize((8, 8)).convert("RGB")
    pixels = seen_pixels(preprocess(image)[None], preprocess)
    torch.testing.assert_close(pixels, torch.from_numpy(np.array(image)) / 255, atol=1e-6, rtol=0)


def test_without_normalisation_the_values_are_scaled() -> None:
    pixels = seen_pixels(torch.tensor([[[[-3.0, 1.0]], [[0.0, 5.0]], [[-3.0, -1.0]]]]), None)
    assert pixels.tolist() == [[[0.0, 0.375, 0.0], [0.5, 1.0, 0.25]]]


def test_one_channel_is_shown_grey_and_a_constant_one_black() -> None:
    assert seen_pixels(torch.tensor([[[[1.0, 3.0]]]]), None).tolist() == [[[0.0] * 3, [1.0] * 3]]
    assert seen_pixels(torch.full((1, 1, 1, 1), 7.0), None).tolist() == [[[0.0] * 3]]


def test_a_name_that_cannot_be_shown_is_made_one_that_can() -> None:
    assert display_name(Path("folder/c\nat\x1b[31m\udcff é.png")) == "c?at?[31m? é.png"

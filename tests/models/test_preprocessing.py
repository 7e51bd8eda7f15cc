"""Pixels and regions of an image as the model sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification

from captum_scorecam.models import Preprocess, seen_pixels, seen_region
from tests.support.default_dtype import default_dtype, other_default_dtypes

to_tensor: Preprocess = transforms.ToTensor()
to_bytes: Preprocess = transforms.PILToTensor()
NORMALIZE = transforms.Normalize((0.2, 0.5, 0.6), (0.1, 0.3, 0.5))


class OfTransforms:
    """Like the presets of torchvision's training scripts."""

    def __init__(self, composed: Preprocess) -> None:
        self.transforms = composed

    def __call__(self, image: Image.Image) -> Tensor:
        return self.transforms(image)


@pytest.mark.parametrize(
    "preprocess",
    [
        ImageClassification(crop_size=8, resize_size=8),
        transforms.Compose([transforms.ToTensor(), NORMALIZE]),
        torch.nn.Sequential(v2.PILToTensor(), transforms.ConvertImageDtype(torch.float32), NORMALIZE),
        transforms.Compose([transforms.Compose([transforms.ToTensor()]), transforms.Compose([NORMALIZE])]),
        OfTransforms(transforms.Compose([transforms.ToTensor(), NORMALIZE])),
        transforms.Compose([to_bytes, torch.Tensor.float, transforms.Normalize((120.0, 110.0, 100.0), (60.0,) * 3)]),
    ],
    ids=["preset", "Compose", "Sequential", "nested", "in an attribute", "0 to 255"],
)
def test_the_normalisation_is_undone(preprocess: Any) -> None:
    image = Image.linear_gradient("L").resize((8, 8)).convert("RGB")
    pixels = seen_pixels(preprocess(image)[None], preprocess)
    torch.testing.assert_close(pixels, torch.from_numpy(np.array(image)) / 255, atol=1e-6, rtol=0)


@other_default_dtypes
def test_pixels_do_not_depend_on_the_default_dtype(dtype: torch.dtype) -> None:
    inputs, preprocess = torch.linspace(-2, 2, 27).reshape(1, 3, 3, 3), ImageClassification(crop_size=3)
    expected = seen_pixels(inputs, preprocess)
    with default_dtype(dtype):
        assert torch.equal(seen_pixels(inputs, preprocess), expected)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.25,)), (0.5, 0.25)])
def test_one_mean_is_that_of_all_channels(mean: Any, std: Any) -> None:
    preprocess = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    image = Image.fromarray(np.arange(100, 112, dtype=np.uint8).reshape(2, 2, 3))
    pixels = seen_pixels(preprocess(image)[None], preprocess)
    torch.testing.assert_close(pixels, torch.from_numpy(np.array(image)) / 255, atol=1e-6, rtol=0)


def test_values_without_normalisation_are_scaled() -> None:
    pixels = seen_pixels(torch.tensor([[[[-3.0, 1.0]], [[0.0, 5.0]], [[-3.0, -1.0]]]]), None)
    assert pixels.tolist() == [[[0.0, 0.375, 0.0], [0.5, 1.0, 0.25]]]


def test_one_channel_is_grey_and_a_constant_one_black() -> None:
    assert seen_pixels(torch.tensor([[[[1.0, 3.0]]]]), None).tolist() == [[[0.0] * 3, [1.0] * 3]]
    assert seen_pixels(torch.full((1, 1, 1, 1), 7.0), None).tolist() == [[[0.0] * 3]]


def box(size: tuple[int, int], left: int, top: int, right: int, bottom: int) -> Image.Image:
    region = Image.new("L", size)
    region.paste(255, (left, top, right, bottom))
    return region


def rows(region: Tensor) -> list[str]:
    assert region.dtype == torch.bool
    return ["".join(".#"[pixel] for pixel in row) for row in region.int().tolist()]


def test_a_region_is_resized_and_cropped_like_the_image() -> None:
    preset = ImageClassification(crop_size=4, resize_size=6)  # 24×12 becomes 12×6, of which columns 4..7, rows 1..4
    assert rows(seen_region(box((24, 12), 10, 4, 24, 8), preset)) == ["....", ".###", ".###", "...."]


def test_a_pixel_belongs_to_the_region_if_most_of_it_does() -> None:
    def averaged(image: Image.Image) -> Tensor:
        return to_tensor(image.resize((4, 1), Image.Resampling.BOX))

    region = box((20, 1), 0, 0, 3, 1)  # 3 of 5, then 2 of 5, all and nothing
    region.paste(255, (5, 0, 7, 1))
    region.paste(255, (10, 0, 15, 1))
    assert rows(seen_region(region, averaged)) == ["#.#."]


def letterbox(image: Image.Image) -> Tensor:
    return to_tensor(ImageOps.pad(image, (4, 4), color=(128, 128, 128)))


def negative(image: Image.Image) -> Tensor:
    return 1 - to_tensor(image)


def grey(image: Image.Image) -> Tensor:
    return to_tensor(image.convert("L"))


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        (letterbox, ["....", "##..", "#...", "...."]),
        (negative, ["####....", "####....", "##......", "##......"]),
        (to_bytes, ["####....", "####....", "##......", "##......"]),
        (grey, ["####....", "####....", "##......", "##......"]),
        (transforms.Compose([transforms.Resize((2, 4)), transforms.ToTensor()]), ["##..", "#..."]),
    ],
)
def test_regions_follow_any_preprocessing(preprocess: Preprocess, expected: list[str]) -> None:
    region = box((8, 4), 0, 0, 4, 2)
    region.paste(255, (0, 2, 2, 4))
    assert rows(seen_region(region, preprocess)) == expected


def test_a_region_that_is_cropped_away_has_no_pixels() -> None:
    seen = seen_region(box((24, 12), 0, 0, 4, 12), ImageClassification(crop_size=4, resize_size=6))
    assert seen.shape == (4, 4)
    assert not seen.any()


def test_normalising_by_the_images_own_mean_raises() -> None:
    def own_mean(image: Image.Image) -> Tensor:
        pixels = to_tensor(image)
        return pixels - pixels.mean()

    with pytest.raises(ValueError, match="distinguishes white from black images, but both give the same result"):
        seen_region(box((4, 4), 0, 0, 2, 2), own_mean)

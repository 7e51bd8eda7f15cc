"""A map over an image: its colours, by hand, and images and maps of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from captum_scorecam import overlay

IMAGE = np.random.default_rng(0).random((6, 8, 3))
GREY = IMAGE.mean(2, keepdims=True)
MAP = np.random.default_rng(1).random((6, 8))
INFERNO = mpl.colormaps["inferno"]


def drawn(*args: Any, **options: Any) -> NDArray[np.float64]:
    picture = overlay(*args, **options)
    assert picture.mode == "RGB"
    return np.asarray(picture) / 255


def blended(values: NDArray[np.float64], alpha: float = 0.6, grey: NDArray[np.float64] = GREY) -> NDArray[np.float64]:
    blend: NDArray[np.float64] = (1 - alpha) * grey + alpha * INFERNO(values)[..., :3]
    return blend


def assert_same(found: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.51 / 255)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-20, 0.0), (40.0, 7.0)])
def test_a_map_is_coloured_from_its_lowest_value_to_its_highest(scale: float, shift: float) -> None:
    share = (MAP - MAP.min()) / (MAP.max() - MAP.min())
    assert_same(drawn(IMAGE, scale * MAP + shift), blended(share))
    assert_same(drawn(IMAGE, scale * MAP + shift, alpha=1), INFERNO(share)[..., :3])


def test_a_smaller_map_is_upsampled_bilinearly() -> None:
    """Along 8 pixels, the values 0 and 1 are 0, 0, 0, 1/8, 3/8, …: half a cell before the first centre is 0."""
    ramp = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)
    for attribution in ([[0.0, 1.0]], torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[[0, 1]]]]), np.array([[[0.0, 1]]])):
        assert_same(drawn(IMAGE, attribution), blended(np.tile(ramp, (6, 1))))


def test_a_signed_map_is_orange_above_zero_blue_below_and_transparent_at_zero() -> None:
    values = np.zeros((6, 8))
    values[0, 0], values[0, 1], values[0, 2] = -4.0, 2.0, 1.0
    expected = np.repeat(GREY, 3, axis=2)
    for column, (share, color) in enumerate([(1.0, "#306ebe"), (0.5, "#e9622e"), (0.25, "#e9622e")]):
        opacity = 0.6 * share
        expected[0, column] = (1 - opacity) * GREY[0, column] + opacity * np.array(to_rgb(color))
    assert_same(drawn(IMAGE, values), expected)


def test_negative_values_too_small_to_be_seen_do_not_make_a_map_signed() -> None:
    values = MAP - MAP.min()
    rounded = values - 1e-7
    assert_same(drawn(IMAGE, rounded), drawn(IMAGE, values))


@pytest.mark.parametrize(
    "values",
    [np.zeros((6, 8)), np.full((6, 8), -3.0), np.full((2, 2), 0.1), 1 + 1e-7 * MAP.astype(np.float32)],
    ids=["zeros", "negative", "small", "rounding"],
)
def test_a_constant_map_leaves_the_image_grey(values: Any) -> None:
    assert_same(drawn(IMAGE, values), np.repeat(GREY, 3, axis=2))


BYTES = (255 * IMAGE).astype(np.uint8)
OF_BYTES = BYTES.mean(2, keepdims=True) / 255


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (BYTES, OF_BYTES),
        (torch.from_numpy(BYTES), OF_BYTES),
        (Image.fromarray(BYTES), OF_BYTES),
        (torch.from_numpy(IMAGE).float().requires_grad_(), GREY),
        (IMAGE[..., 0], IMAGE[..., :1]),
        (IMAGE[..., :1], IMAGE[..., :1]),
        (Image.fromarray(BYTES[..., 0]), BYTES[..., :1] / 255),
        (Image.fromarray(BYTES[..., 0]).convert("P"), BYTES[..., :1] / 255),
        (Image.fromarray(BYTES[..., 0] > 99), (BYTES[..., :1] > 99).astype(float)),
        (Image.fromarray(BYTES).convert("RGBA"), OF_BYTES),
        (Image.fromarray(BYTES[..., 0]).convert("LA"), BYTES[..., :1] / 255),
        (IMAGE.astype(">f8"), GREY),
        (IMAGE.tolist(), GREY),
        (np.where(BYTES > 250, 1 + 1e-6, IMAGE), np.where(BYTES > 250, 1, IMAGE).mean(2, keepdims=True)),
    ],
    ids=[
        *("uint8", "tensor of uint8", "PIL", "tensor", "grey", "one channel", "L", "palette", "1 bit"),
        *("opaque RGBA", "opaque LA", "big-endian", "lists", "rounding above 1"),
    ],
)
def test_images_of_every_kind(image: Any, grey: NDArray[np.float64]) -> None:
    assert_same(drawn(image, MAP), blended((MAP - MAP.min()) / (MAP.max() - MAP.min()), grey=grey))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_maps_of_every_precision(dtype: torch.dtype) -> None:
    values = torch.tensor([[0, 1]], dtype=dtype, requires_grad=True)
    ramp = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)
    assert_same(drawn(IMAGE, values), blended(np.tile(ramp, (6, 1))))


def read_only(values: NDArray[np.float64]) -> NDArray[np.float64]:
    values = values.copy()
    values.setflags(write=False)
    return values


@pytest.mark.parametrize(
    "values",
    [
        read_only(MAP),
        MAP[::-1, ::-1].copy()[::-1, ::-1],
        MAP.astype(">f8"),
        MAP.astype(np.longdouble),
        MAP.tolist(),
        np.ma.masked_array(MAP),
        torch.from_numpy(MAP.T.copy()).T,
    ],
    ids=["read-only", "flipped", "big-endian", "long double", "lists", "nothing masked", "transposed"],
)
def test_maps_of_every_layout(values: Any) -> None:
    assert_same(drawn(IMAGE, values), drawn(IMAGE, torch.from_numpy(MAP)))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", ">i4", "uint64"])
def test_maps_of_whole_numbers(dtype: str) -> None:
    ramp = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)
    assert_same(drawn(IMAGE, np.array([[0, 1]], dtype=dtype)), blended(np.tile(ramp, (6, 1))))


def test_nothing_is_changed() -> None:
    image, values = IMAGE.copy(), torch.from_numpy(MAP).clone()
    overlay(image, values)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(values.numpy(), MAP)


@pytest.mark.parametrize(
    ("image", "attribution", "message"),
    [
        (IMAGE.transpose(2, 0, 1), MAP, r"Expected `image` to be H×W, H×W×1 or H×W×3, but got .* \(3, 6, 8\). permute"),
        (IMAGE[None], MAP, r"Expected `image` to be H×W, .* \(1, 6, 8, 3\)"),
        (IMAGE[:0], MAP, r"Expected `image` to have pixels, but got an array of shape \(0, 8, 3\)"),
        (2 * IMAGE - 1, MAP, r"in \[0, 1\], or in \[0, 255\] as uint8, but got values from -0.9"),
        (255 * IMAGE, MAP, r"in \[0, 1\], or in \[0, 255\] as uint8, but got values from"),
        (IMAGE * np.nan, MAP, r"in \[0, 1\], or in \[0, 255\] as uint8, but got values from nan to nan"),
        (Image.new("RGBA", (8, 6), (9, 9, 9, 254)), MAP, "to be opaque, .* mode 'RGBA' with transparent pixels"),
        (Image.new("LA", (8, 6), (9, 0)), MAP, "to be opaque, .* mode 'LA' with transparent pixels"),
        (torch.from_numpy(IMAGE[:3, :, :]), MAP, r"got a tensor of shape \(3, 8, 3\), which C×H×W fits too"),
        (torch.from_numpy(IMAGE[:3, :, :1]), MAP, r"got a tensor of shape \(3, 8, 1\), which C×H×W fits too"),
        (Image.new("I;16", (8, 6)), MAP, "with 8 bits per value, but got a PIL image of mode 'I;16'"),
        (IMAGE, MAP[None].repeat(2, 0), r"Expected `attribution` to be one map, .* but got shape \(2, 6, 8\)"),
        (IMAGE, MAP[0], r"Expected `attribution` to be one map, .* but got shape \(8,\)"),
        (IMAGE, MAP[:0], r"Expected `attribution` to be one map, .* but got shape \(0, 8\)"),
        (IMAGE, MAP[None, None, None], r"Expected `attribution` to be one map, .* \(1, 1, 1, 6, 8\)"),
        (IMAGE, MAP * np.inf, "Expected `attribution` to be finite, but got NaN or Inf"),
    ],
)
def test_bad_arguments(image: Any, attribution: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlay(image, attribution)


MAPS = torch.from_numpy(MAP)


@pytest.mark.parametrize(
    ("image", "attribution", "message"),
    [
        (IMAGE, None, "Expected `attribution` to be an array or a tensor, but got None"),
        (IMAGE, "abc", "Expected `attribution` to be an array or a tensor, but got 'abc'"),
        (IMAGE, Image.fromarray(BYTES[..., 0]), "Expected `attribution` to be an array or a tensor, but got a PIL"),
        (IMAGE, (MAPS, MAPS), "Expected `attribution` to be an array or a tensor, but got a tuple of tensors"),
        (IMAGE, [[1.0], [2.0, 3.0]], r"Expected `attribution` to be an array .* got \[\[1\.0\], \[2\.0, 3\.0\]\]"),
        (IMAGE, np.array([[1, None]]), "Expected `attribution` to be an array .* got an array of dtype object"),
        (IMAGE, MAPS.to_sparse(), "Expected `attribution` to be a dense tensor with values, but got a sparse"),
        (IMAGE, MAPS.to("meta"), "Expected `attribution` to be a dense tensor with values, but got a meta"),
        (IMAGE, MAP.astype(np.complex64), "Expected `attribution` to have real values, but got complex ones"),
        (IMAGE, MAPS.to(torch.cfloat), "Expected `attribution` to have real values, but got complex ones"),
        (None, MAP, "Expected `image` to be a PIL image, an array or a tensor, but got None"),
        ("photo.jpg", MAP, "Expected `image` to be a PIL image, an array or a tensor, but got 'photo.jpg'"),
        (Path("photo.jpg"), MAP, r"Expected `image` to be a PIL image, .* but got \w+Path\('photo.jpg'\)"),
        (np.array([["a", "b"]]), MAP, "Expected `image` to be a PIL image, .* but got an array of dtype <U1"),
        (IMAGE + 0j, MAP, "Expected `image` to have real values, but got complex ones"),
        (
            torch.from_numpy(IMAGE).to(torch.cfloat).conj(),
            MAP,
            "Expected `image` to have real values, but got complex ones",
        ),
        (torch.from_numpy(IMAGE).to_sparse(), MAP, "Expected `image` to be a dense tensor with values"),
    ],
)
def test_arguments_of_other_types(image: Any, attribution: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        overlay(image, attribution)


def test_masked_values_are_not_drawn() -> None:
    with pytest.raises(ValueError, match=r"Expected `attribution` to be .* without masked values"):
        overlay(IMAGE, np.ma.masked_less(MAP, 0.5))


def test_opacity_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"Expected `alpha` in \(0, 1\], but got 1\.5"):
        overlay(IMAGE, MAP, alpha=1.5)

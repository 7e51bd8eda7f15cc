"""A map drawn over the image that it explains."""

from __future__ import annotations

import reprlib
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_scorecam._messages import check_dense, check_fraction
from captum_scorecam._palette import MAP_COLORS, SIGNED_COLORS
from captum_scorecam.masking.scaling import min_max_normalize, resize, varies, working_dtype

Array: TypeAlias = np.ndarray[Any, Any]

_FAINTEST = 1 / 255  # of the largest magnitude: lower negative values are rounding, and can't be seen in 8 bits
_ROUNDING = 1e-5  # by which a float32 image may leave [0, 1], as where a normalisation is undone
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def overlay(image: Any, attribution: Any, *, alpha: float = 0.6) -> Image.Image:
    """Draws a map over the grey image that it explains.

    The map is resized bilinearly to the image and coloured from its lowest value to its highest, as in all pictures of
    this package. With negative values it is signed: blue below 0, orange above, and more transparent the closer to 0.
    A constant map leaves the image grey.

    The image must be what the model saw, cropped and resized, as `seen_pixels` returns it: the map of a crop does not
    fit the whole photograph. Captum's ``visualize_image_attr`` also cuts off the highest values and stretches the
    image's contrast.

    Args:
        image (PIL.Image.Image, array or Tensor): H×W, H×W×1 or H×W×3, opaque, with values in [0, 1] or uint8. A Tensor
            3×H×3 or 3×H×1, which may be C×H×W, is refused.
        attribution (array or Tensor): The map: h×w, 1×h×w or 1×1×h×w, such as `ScoreCAM` returns for one example.
        alpha (float): Opacity of the map, in (0, 1]; of a signed one, where it is strongest. Default: 0.6.

    Returns:
        PIL.Image.Image: The picture, RGB, of the image's size.

    Raises:
        TypeError: If `image`, `attribution` or `alpha` is of another type, such as a path, complex or sparse.
        ValueError: If `image` is not an image, `attribution` is not one finite map, or `alpha` is out of range.

    Example:
        >>> import torch
        >>> from captum_scorecam import overlay
        >>> overlay(torch.rand(32, 48, 3), torch.rand(1, 1, 4, 6)).size
        (48, 32)
    """
    check_fraction("alpha", alpha, with_one=True)
    pixels, values = pixels_of(image), _one_map(attribution)
    grey = pixels.mean(2, keepdims=True)
    if not varies(values):
        return _picture(np.broadcast_to(grey, pixels.shape))
    values = resize(values.to(working_dtype(values.dtype)), pixels.shape[:2])
    is_signed = bool(values.min() < -_FAINTEST * values.abs().max())
    colors, opacity = _signed(values) if is_signed else _from_lowest_to_highest(values)
    return _picture((1 - alpha * opacity) * grey + alpha * opacity * colors)


def as_array(image: Any) -> Array:
    """Returns an image or a signal as an array of real numbers.

    Raises:
        TypeError: If it is of another type.
        ValueError: If a PIL image has transparent pixels, or values of more than 8 bits.
    """
    if isinstance(image, Image.Image):
        return _of_picture(image)
    if isinstance(image, Tensor):
        image = _real_tensor("image", image)
        return np.asarray(image.float() if image.is_floating_point() else image)
    return _real_array("image", image, "a PIL image, an array or a tensor")


def pixels_of(image: Any) -> Array:
    """Returns an image as H×W×3 in [0, 1].

    Raises:
        TypeError: If it is of another type.
        ValueError: If it has another shape, no pixels, or other values.
    """
    pixels = as_array(image)
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))):
        hint = " permute(1, 2, 0) turns C×H×W into H×W×C." if pixels.ndim == 3 and pixels.shape[0] in (1, 3) else ""
        raise ValueError(f"Expected `image` to be H×W, H×W×1 or H×W×3, but got an array of shape {pixels.shape}.{hint}")
    if isinstance(image, Tensor) and image.dim() == 3 and image.shape[0] == 3:
        raise ValueError(
            f"Expected `image` to be H×W, H×W×1 or H×W×3, but got a tensor of shape {pixels.shape}, which C×H×W fits "
            "too. An array, as from numpy(), is taken as H×W×C; permute(1, 2, 0) turns C×H×W into it."
        )
    if pixels.size == 0:
        raise ValueError(f"Expected `image` to have pixels, but got an array of shape {pixels.shape}.")
    if pixels.dtype == np.uint8:
        pixels = pixels / 255
    if not (pixels.min() >= -_ROUNDING and pixels.max() <= 1 + _ROUNDING):
        raise ValueError(
            "Expected `image` with values in [0, 1], or in [0, 255] as uint8, but got values from "
            f"{pixels.min():.4g} to {pixels.max():.4g}."
        )
    return np.broadcast_to(pixels.clip(0, 1).reshape(*pixels.shape[:2], -1), (*pixels.shape[:2], 3))


def _of_picture(image: Image.Image) -> Array:
    if image.mode not in _EIGHT_BIT_MODES or (
        image.has_transparency_data and (np.asarray(image.convert("RGBA"))[..., 3] < 255).any()
    ):
        raise ValueError(
            f"Expected `image` to be opaque, with 8 bits per value, but got a PIL image of mode {image.mode!r}"
            f"{' with transparent pixels' if image.mode in _EIGHT_BIT_MODES else ''}. "
            "`read_image` in captum_scorecam.datasets converts files."
        )
    return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def _real_tensor(name: str, value: Tensor) -> Tensor:
    """Returns a dense tensor of real numbers, on the CPU."""
    check_dense(name, value)
    if value.is_complex():
        raise TypeError(f"Expected `{name}` to have real values, but got complex ones.")
    return value.detach().cpu()


def _real_array(name: str, value: Any, expected: str) -> Array:
    """Returns an array, or what NumPy takes as one, such as nested lists."""
    if isinstance(value, (list, tuple)) and any(isinstance(each, Tensor) for each in value):
        kind = type(value).__name__
        raise TypeError(f"Expected `{name}` to be {expected}, but got a {kind} of tensors. Pass one of them.")
    try:
        array = np.asarray(value)
    except ValueError:  # nested lists of different lengths
        array = np.asarray(None)
    if np.iscomplexobj(array):
        raise TypeError(f"Expected `{name}` to have real values, but got complex ones.")
    if array.dtype.kind not in "buif":
        got = f"an array of dtype {array.dtype}" if isinstance(value, np.ndarray) else reprlib.repr(value)
        raise TypeError(f"Expected `{name}` to be {expected}, but got {got}.")
    if np.ma.is_masked(value):
        raise ValueError(f"Expected `{name}` to be {expected} without masked values, but got a masked array.")
    return array


def _one_map(attribution: Any) -> Tensor:
    """Returns the map as 1×1×h×w, floating point, on the CPU."""
    if isinstance(attribution, Tensor):
        values = _real_tensor("attribution", attribution)
    elif isinstance(attribution, Image.Image):
        raise TypeError("Expected `attribution` to be an array or a tensor, but got a PIL image.")
    else:
        array = _real_array("attribution", attribution, "an array or a tensor")
        is_float = array.dtype.kind == "f" and array.dtype.itemsize <= 8  # of those that PyTorch has
        values = torch.from_numpy(array.astype(array.dtype.newbyteorder("=") if is_float else np.float64, order="C"))
    if not (2 <= values.dim() <= 4 and values.numel() > 0 and values.shape[:-2].numel() == 1):
        raise ValueError(
            f"Expected `attribution` to be one map, h×w, 1×h×w or 1×1×h×w, but got shape {tuple(values.shape)}."
        )
    values = values if values.is_floating_point() else values.float()
    if not values.isfinite().all():
        raise ValueError("Expected `attribution` to be finite, but got NaN or Inf.")
    return values.reshape(1, 1, *values.shape[-2:])


def _from_lowest_to_highest(values: Tensor) -> tuple[Array, Array]:
    from matplotlib import colormaps

    return colormaps[MAP_COLORS](min_max_normalize(values)[0, 0].numpy())[..., :3], np.ones(())


def _signed(values: Tensor) -> tuple[Array, Array]:
    """The colour of each value's sign, and its share of the largest magnitude."""
    from matplotlib.colors import to_rgb

    below, above = map(to_rgb, SIGNED_COLORS)
    shares = (values / values.abs().max())[0, 0].unsqueeze(2).numpy()
    return np.where(shares < 0, below, above), np.abs(shares)


def _picture(pixels: Array) -> Image.Image:
    return Image.fromarray((255 * pixels).round().astype(np.uint8))

"""Reads image files as upright 8-bit RGB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from captum_scorecam._messages import warn_caller


def read_image(path: Path) -> Image.Image:
    """Reads an image file as upright RGB.

    The EXIF orientation is applied, and transparent pixels are blended with white. Only the first frame of an animation
    is read. Grey values of 16 and 32 bits are scaled to 8 bits by a fixed range, so that equal values are equally
    bright in all images:

    ==================================================  ============================================================
    values                                              scaled so that
    ==================================================  ============================================================
    integers from 0 to 65535                            65535 is white (4095 in TIFF files of 12 bits)
    32-bit integers from 0 to 255                       255 is white
    floats from 0 to 1                                  1 is white
    floats from 0 to 255, the highest at least 16       255 is white
    others                                              the image's lowest value is black and its highest is white,
                                                        with a warning
    ==================================================  ============================================================

    Values below 0 are among the others. In TIFF files whose tags say that 0 is white, they are inverted.

    Images that use little of their range are not rescaled, as their number of bits can't be known, but cause a warning:
    if the highest value is below a quarter of the range of a 16-bit image, as with 10, 12 or 14 bits stored as 16, or
    below 1/16 of the range of another image, as with values from 0 to 1 stored as 8-bit integers.

    Args:
        path (Path): A file in any format supported by Pillow.

    Returns:
        PIL.Image.Image: The image, mode RGB.

    Raises:
        ValueError: If the file does not exist or isn't a readable image, or values are NaN or Inf.
    """
    if not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "a device or a pipe"
        problem = f"{str(path)!r} is {kind}" if os.path.exists(path) else f"there is no file {str(path)!r}"
        raise ValueError(f"Expected an image file, but {problem}.")
    try:
        with Image.open(path) as file:
            stored = _stored(file)
            image = _upright(file)
    except Exception as error:  # on a damaged file, Pillow's readers raise struct.error, TypeError, RuntimeError, …
        raise ValueError(
            f"Expected an image file, but {str(path)!r} can't be read as one: {_reason(error)}."
        ) from error
    return _rgb(image, stored, repr(str(path)))


def upright_size(path: Path) -> tuple[int, int] | None:
    """Returns the width and height of the upright image in a file without decoding it, or None if it isn't readable."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            if isinstance(file, TiffImagePlugin.TiffImageFile):  # whose size newer versions of Pillow have turned
                width, height = file.tag_v2[TiffImagePlugin.IMAGEWIDTH], file.tag_v2[TiffImagePlugin.IMAGELENGTH]
            is_lying = _orientation(file) in (5, 6, 7, 8)
    except Exception:  # of many types, as in `read_image`
        return None
    return (height, width) if is_lying else (width, height)


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """Applies an image's EXIF orientation and converts it to RGB, as `read_image` does.

    Args:
        image (PIL.Image.Image): The image.
        name (str): Its name, for errors and warnings.
    """
    stored = _stored(image)
    return _rgb(_upright(image), stored, repr(name))


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # raises if the pixels are damaged
    return image.copy() if _orientation(image) is None else ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> object:
    """Returns the EXIF orientation, or None if there is none or the EXIF block can't be read, as in other viewers."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # of many types, as in `read_image`
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError | Image.DecompressionBombError):
        return (getattr(error, "strerror", None) or str(error)).rstrip(".")
    return "it is damaged"


class _Stored(NamedTuple):
    """How a file stores its values, known until Pillow decodes them.

    Attributes:
        bits (int): 12, 16, or 8 for any other.
        dtype (str, optional): The type of integers in a TIFF file that Pillow decodes as another type of that size.
        inverted (bool): Whether low values are bright, and Pillow leaves that to the caller.
    """

    bits: int
    dtype: Literal["uint32", "int8"] | None
    inverted: bool


def _stored(image: Image.Image) -> _Stored:
    tags = getattr(image, "tag_v2", {})
    is_signed = 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, ())
    dtype: Literal["uint32", "int8"] | None = None
    if image.mode == "I" and 32 in tags.get(TiffImagePlugin.BITSPERSAMPLE, ()) and not is_signed:
        dtype = "uint32"
    elif image.mode == "L" and is_signed:
        dtype = "int8"
    white_is_zero = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    return _Stored(_bits(image), dtype, white_is_zero and image.mode in ("I;16", "F"))


def _bits(image: Image.Image) -> int:
    raw_mode = str(getattr(image, "tile", ""))
    if "I;12" in raw_mode:
        return 12
    of_pgm = image.format == "PPM" and image.mode == "I"  # scaled by Pillow to 65535
    return 16 if of_pgm or any(deep in raw_mode for deep in (";16B", ";16L", ";16N", ";16S")) else 8


def _rgb(image: Image.Image, stored: _Stored, name: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I") or stored.dtype:
        return _scaled_to_8_bits(image, stored, name).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        _warn_if_unused("alpha", np.asarray(image)[..., 3].max(), 255, stored.bits, name)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    _warn_if_unused("value", np.asarray(image).max(), 255, stored.bits, name)
    return image


def _scaled_to_8_bits(image: Image.Image, stored: _Stored, name: str) -> Image.Image:
    decoded = np.asarray(image)
    values = decoded.view(stored.dtype or decoded.dtype).astype(np.float64)
    wrong = values.size - np.isfinite(values).sum()
    if wrong:
        raise ValueError(f"Expected finite values in {name}, but {wrong} of {values.size} are NaN or Inf.")
    darkest, brightest = 0.0, _white(values, image.mode, stored.bits)
    if brightest is None:
        darkest, brightest = values.min(), values.max()
        first, last = ("white", "black") if stored.inverted else ("black", "white")
        warn_caller(
            f"Expected values from 0 to 65535 (integers), or from 0 to 1 or 255 (floats), in {name}, but they range "
            f"from {darkest:g} to {brightest:g}. The lowest becomes {first} and the highest {last}."
        )
    elif not stored.inverted:
        _warn_if_unused("value", values.max(), brightest, 8 if brightest <= 255 else 16, name)
    span = max(brightest - darkest, np.finfo(np.float64).tiny)
    grey = np.rint((values - darkest) / span * 255).astype(np.uint8)
    return Image.fromarray(255 - grey if stored.inverted else grey)


def _white(values: np.ndarray, mode: str, bits: int) -> float | None:
    """Returns the value that is white, or None if the values fit no fixed range."""
    highest = values.max()
    if values.min() < 0:
        return None
    if mode != "F":
        may_be_8_bits = mode in ("I", "L") and bits == 8
        white = 255.0 if may_be_8_bits and highest <= 255 else 2.0 ** (12 if bits == 12 else 16) - 1
        return white if highest <= white else None
    if highest <= 1:
        return 1.0
    return 255.0 if 16 <= highest <= 255 else None


def _warn_if_unused(what: str, highest: float, white: float, bits: int, name: str) -> None:
    """Warns if the highest value is low; an image of zeros is just black."""
    if 0 < highest < white / (4 if bits > 8 else 16):
        looks = "is nearly transparent" if what == "alpha" else "looks dark"
        warn_caller(
            f"The highest {what} of {name} is {highest:g} of {white:g}, so it {looks}. If its values have fewer "
            "bits than the file can store, such as 12 of 16, or range from 0 to 1, scale them first."
        )

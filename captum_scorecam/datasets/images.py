"""Reads image files as upright 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def read_image(path: Path) -> Image.Image:
    """Reads an image file as upright RGB.

    The EXIF orientation is applied, transparent pixels are blended with white, and 16-bit and 32-bit grey values are
    scaled to 8 bits (Pillow's conversion clips them). Only the first frame of an animation is read.

    Args:
        path (Path): A file in any format supported by Pillow.

    Returns:
        PIL.Image.Image: The image, mode RGB.

    Raises:
        ValueError: If the file does not exist or isn't a readable image.
    """
    if not path.is_file():
        raise ValueError(f"Expected an image file, but there is no file {str(path)!r}.")
    try:
        with Image.open(path) as image:
            return upright_rgb(image)
    except Exception as error:  # on a damaged file, Pillow's readers raise struct.error, TypeError, RuntimeError, …
        raise ValueError(f"Expected an image file, but {str(path)!r} can't be read as one: {error}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Applies an image's EXIF orientation and converts it to RGB, as `read_image` does."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    if image.mode != "F" and values.min() >= 0 and values.max() <= 65535:
        darkest, brightest = 0.0, 65535.0
    else:  # 32-bit values have no fixed black and white
        darkest, brightest = values.min(), values.max()
    span = max(brightest - darkest, np.finfo(np.float64).tiny)
    return Image.fromarray(np.rint((values - darkest) / span * 255).astype(np.uint8))

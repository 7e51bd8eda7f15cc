"""Images: files as people have them, read as 8-bit RGB, and pixels as a model saw them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def read_image(path: Path) -> Image.Image:
    """Reads an image file as it is meant to be seen, in RGB.

    The EXIF orientation is applied, transparent parts are laid on white, and grey values of 16 or 32 bits
    are scaled to 8 bits (Pillow's own conversion clips them). Of an animation, the first frame is read.

    Args:
        path (Path): A file in any format that Pillow reads.

    Returns:
        PIL.Image.Image: The image, mode RGB.

    Raises:
        ValueError: If there is no such file, or it can't be read as an image.
    """
    if not path.is_file():
        raise ValueError(f"Expected an image file, but there is no file {str(path)!r}.")
    try:
        with Image.open(path) as image:
            return upright_rgb(image)
    except Exception as error:  # of a damaged file, Pillow's readers raise struct.error, TypeError, RuntimeError, …
        raise ValueError(f"Expected an image file, but {str(path)!r} can't be read as one: {error}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turns an image as its EXIF orientation says, and makes it RGB as `read_image` does."""
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
    else:  # 32 bits say nothing about where black and white are
        darkest, brightest = values.min(), values.max()
    span = max(brightest - darkest, np.finfo(np.float64).tiny)
    return Image.fromarray(np.rint((values - darkest) / span * 255).astype(np.uint8))


def seen_pixels(inputs: Tensor, preprocess: object) -> Tensor:
    """Returns what a model saw of an image: its input without the normalisation.

    Args:
        inputs (Tensor): The preprocessed image, 1×C×H×W. Unless C is 3, the first channel is shown.
        preprocess (object): What made it. The mean and standard deviation of a ``Normalize`` in it, or of a
            preset of torchvision, are undone; without them, the lowest value is black and the highest white.

    Returns:
        Tensor: H×W×3 in [0, 1], float32, on the CPU.
    """
    pixels = inputs[0].detach().float().cpu()
    statistics = _normalisation(preprocess)
    if statistics is not None and len(statistics[0]) == len(pixels):
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in statistics)
        pixels = (pixels * std + mean).clamp(0, 1)
    else:
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp_min(torch.finfo(torch.float32).tiny)
    return (pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1)).permute(1, 2, 0).contiguous()


def _normalisation(preprocess: object) -> tuple[list[float], list[float]] | None:
    for step in getattr(preprocess, "transforms", [preprocess]):
        if hasattr(step, "mean") and hasattr(step, "std"):
            return list(step.mean), list(step.std)
    return None


def display_name(path: Path) -> str:
    """Returns a file's name without the characters that no terminal or font can show."""
    return "".join(character if character.isprintable() else "?" for character in path.name)

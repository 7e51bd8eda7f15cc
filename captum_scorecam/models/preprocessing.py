"""Pixels and regions of an image as the model sees them, after preprocessing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from captum_scorecam.models.classifier import Preprocess


def seen_region(region: Image.Image, preprocess: Preprocess) -> Tensor:
    """Finds the pixels of a model's input that show a given region of the image.

    The region is drawn in white on black and preprocessed like an image, which handles any resizing and cropping. A
    pixel belongs to the region if its value is closer to a white image's than to a black image's.

    Args:
        region (PIL.Image.Image): Mode L, same size as the image, 255 in the region and 0 elsewhere.
        preprocess (callable): Converts an RGB image to a C×H×W input, deterministically.

    Returns:
        Tensor: Boolean, H×W, on the CPU. All False if the preprocessing crops the region away.

    Raises:
        ValueError: If white and black images come out equal, for example if each image is normalised by its mean.
    """
    return seen_regions([region], preprocess)[0]


def seen_regions(regions: Sequence[Image.Image], preprocess: Preprocess) -> list[Tensor]:
    """Finds the pixels of a model's input that show each of at least one region of an image, as `seen_region` does."""
    size = regions[0].size
    white, black, *seen = (
        preprocess(image.convert("RGB")).float().cpu()
        for image in (Image.new("L", size, 255), Image.new("L", size, 0), *regions)
    )
    span = white - black
    if not span.any():
        raise ValueError(
            "Expected preprocessing that distinguishes white from black images, but both give the same result."
        )
    return [((2 * each - white - black) * span).sum(0) > 0 for each in seen]


def seen_pixels(inputs: Tensor, preprocess: object) -> Tensor:
    """Returns the pixels of a model's input, with normalisation undone.

    Args:
        inputs (Tensor): The preprocessed image, 1×C×H×W. If C is not 3, the first channel is shown.
        preprocess (object): The preprocessing. The mean and standard deviation of its ``Normalize`` step, or of a
            torchvision preset, are undone; without either, the lowest value becomes black and the highest white.

    Returns:
        Tensor: H×W×3 in [0, 1], float32, on the CPU.
    """
    pixels = inputs[0].detach().float().cpu()
    statistics = _normalisation(preprocess)
    if statistics is not None and all(each.numel() in (1, len(pixels)) for each in statistics):
        mean, std = (each.to(pixels).view(-1, 1, 1) for each in statistics)
        whitest = 255 if float((mean + std).max()) > 2 else 1
        pixels = ((pixels * std + mean) / whitest).clamp(0, 1)
    else:
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp_min(torch.finfo(torch.float32).tiny)
    return (pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1)).permute(1, 2, 0).contiguous()


def _normalisation(preprocess: object) -> tuple[Tensor, Tensor] | None:
    if hasattr(preprocess, "mean") and hasattr(preprocess, "std"):
        return (
            torch.as_tensor(preprocess.mean, dtype=torch.float32),
            torch.as_tensor(preprocess.std, dtype=torch.float32),
        )
    steps = preprocess if isinstance(preprocess, nn.Sequential) else getattr(preprocess, "transforms", ())
    steps = steps if isinstance(steps, Iterable) else (steps,)  # as in presets of torchvision's training scripts
    return next(filter(None, map(_normalisation, steps)), None)

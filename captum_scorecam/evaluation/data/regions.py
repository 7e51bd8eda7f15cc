"""Regions of an image as the preprocessing leaves them."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from captum_scorecam.classification.classifiers import Preprocess


def seen_region(region: Image.Image, preprocess: Preprocess) -> Tensor:
    """Finds the pixels of a model's input that show a region of the image.

    The region, white on black, goes through the preprocessing itself, so that any resizing and cropping is
    followed; a pixel belongs to it where it comes out nearer to what white gives than to what black gives.

    Args:
        region (PIL.Image.Image): Mode L, of the image's size, 255 in the region, else 0.
        preprocess (callable): Makes the C×H×W input of an RGB image; it must not draw at random.

    Returns:
        Tensor: Boolean, H×W, on the CPU. All False where the preprocessing cuts the region off.

    Raises:
        ValueError: If white and black give the same, as where each image is normalised by its own mean.
    """
    seen, white, black = (
        preprocess(image.convert("RGB")).float().cpu()
        for image in (region, Image.new("L", region.size, 255), Image.new("L", region.size, 0))
    )
    span = white - black
    if not span.any():
        raise ValueError(
            "Expected a preprocessing that tells a white image from a black one, but it gives the same for both."
        )
    return ((2 * seen - white - black) * span).sum(0) > 0

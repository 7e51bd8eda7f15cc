"""What the demonstration explains."""

from __future__ import annotations

from PIL import Image

DEMO_MODEL = "efficientnet_lite0"
DEMO_IMAGE = "chelsea"


def demo_image() -> Image.Image:
    """Returns the photograph of a cat that ships with scikit-image, 451×300, RGB.

    Raises:
        ModuleNotFoundError: If scikit-image is not installed.
    """
    try:
        import skimage.data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('The demo needs scikit-image: pip install "captum-scorecam[demo]".') from error
    return Image.fromarray(skimage.data.chelsea())  # type: ignore[no-untyped-call]

"""The pictures that visitors explain: samples that ship with scikit-image, and uploads."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from captum_scorecam.datasets import read_image
from captum_scorecam.datasets.images import upright_rgb, upright_size

SAMPLES = (
    {"Cat": "chelsea", "Coffee": "coffee", "Rocket": "rocket", "Astronaut": "astronaut"} if find_spec("skimage") else {}
)
MOST_BYTES = 20 * 2**20
MOST_PIXELS = 40_000_000


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture.

    Attributes:
        name (str): A name in `SAMPLES`, or the name of an uploaded file.
        content (bytes, optional): The uploaded file, which is kept in memory only. Default: None, a sample.
    """

    name: str
    content: bytes | None = None

    def image(self) -> Image.Image:
        """Returns the picture as upright RGB."""
        if self.content is None:
            import skimage.data

            return Image.fromarray(getattr(skimage.data, SAMPLES[self.name])())
        with Image.open(io.BytesIO(self.content)) as file:
            return upright_rgb(file, self.name)


def taken_from(path: Path, name: str = "") -> Picture:
    """Reads an uploaded file and removes it, whether it is a picture or not.

    Args:
        path (Path): The file, under a name that the server gave it.
        name (str): The visitor's name for it. Default: that of ``path``.

    Raises:
        ValueError: If it is none, or too large.
    """
    name = Path(name).name or path.name
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"Expected a file of at most {MOST_BYTES >> 20} MB.")
        width, height = upright_size(path) or (0, 0)
        if width * height > MOST_PIXELS:
            raise ValueError(
                f"Expected a picture of at most {MOST_PIXELS / 1e6:.0f} megapixels, but got {width}×{height} pixels."
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they come when the picture is read from memory, with its own name
                read_image(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from error
        return Picture(name, path.read_bytes())
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # other files are in the folder
            path.parent.rmdir()

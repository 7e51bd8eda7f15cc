"""The images that the benchmarks explain."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from PIL import Image
from skimage import data
from torch import Tensor

from captum_scorecam.datasets import read_image
from captum_scorecam.models import Classifier

ENDINGS = {".jpg", ".jpeg", ".png"}


def image_paths(folder: Path, n_images: int) -> list[Path]:
    """Up to `n_images` image files of a folder, evenly spaced in alphabetical order."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    return paths[:: max(1, len(paths) // n_images)][:n_images]


def preprocessed_images(classifier: Classifier, folder: Path | None, n_images: int) -> list[Tensor]:
    """Images of a folder, or scikit-image's, each 1×C×H×W as the classifier takes it."""
    if folder is not None:
        return [classifier.inputs(read_image(path)) for path in image_paths(folder, n_images)]
    photographs = [data.chelsea(), data.coffee(), data.rocket(), data.astronaut(), data.stereo_motorcycle()[0]]
    return [classifier.inputs(Image.fromarray(photograph)) for photograph in photographs[:n_images]]


def resized(inputs: Tensor, pixels: int) -> Tensor:
    """The inputs at `pixels`×`pixels`."""
    return F.interpolate(inputs, (pixels, pixels), mode="bilinear", antialias=True)

"""What is explained in the pictures: EfficientNet-Lite0 on photographs that ship with scikit-image."""

from __future__ import annotations

from typing import Any

import skimage.data
import torch
from captum.attr import LayerAttribution, LayerGradCam
from PIL import Image, ImageOps
from torch import Tensor

from captum_scorecam import ScoreCAM
from captum_scorecam.command_line.panels import Panel
from captum_scorecam.models import Classifier, seen_pixels

HEAD = {"attribute_to_layer_input": True}


class Subject:
    """A classifier and an image, and the maps of one class at the head's activations."""

    def __init__(self, classifier: Classifier, image: Image.Image, target: int) -> None:
        self.model, self.target = classifier.model, target
        self.x = classifier.inputs(image)
        self.preprocess = classifier.preprocess
        self.head = classifier.model._avg_pooling

    def pixels(self, x: Tensor | None = None) -> Tensor:
        """What the model sees of an input, H×W×3."""
        return seen_pixels(self.x if x is None else x, self.preprocess)

    def probability(self, x: Tensor | None = None) -> float:
        """The probability of the target."""
        with torch.no_grad():
            return float(self.model(self.x if x is None else x).softmax(1)[0, self.target])

    def score_cam(self, baselines: float | Tensor | None = None, **options: Any) -> Tensor:
        """Score-CAM's map, 1×1×h×w."""
        score_cam = ScoreCAM(self.model, self.head, **options)
        return score_cam.attribute(self.x, self.target, **HEAD, baselines=baselines)

    def grad_cam(self) -> Tensor:
        """Grad-CAM's map, 1×1×h×w."""
        cam = LayerGradCam(self.model, self.head)
        return cam.attribute(self.x, self.target, relu_attributions=True, **HEAD).detach()

    def panel(self, title: str, subtitle: str, maps: Tensor | None = None) -> Panel:
        """The image with a map of any size over it."""
        values = None if maps is None else enlarged(maps)[0, 0]
        return Panel(title, subtitle, self.pixels(), values)


def enlarged(maps: Tensor) -> Tensor:
    """Maps at the size of the input."""
    return LayerAttribution.interpolate(maps, (224, 224), "bilinear")


def photograph(name: str) -> Image.Image:
    """A photograph of scikit-image, cut to a square."""
    image = Image.fromarray(getattr(skimage.data, name)())
    return ImageOps.fit(image, (256, 256), Image.Resampling.BICUBIC)


def mosaic() -> Image.Image:
    """A cat, a cup of coffee, a rocket and an astronaut, two by two, as large as what the model sees."""
    tiles = Image.new("RGB", (256, 256))
    for place, name in enumerate(["chelsea", "coffee", "rocket", "astronaut"]):
        tiles.paste(photograph(name).resize((112, 112)), (16 + 112 * (place % 2), 16 + 112 * (place // 2)))
    return tiles

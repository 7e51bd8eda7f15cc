"""A classifier of red, green and blue whose scores and probabilities are easy to compute by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

NAMES = ["red", "green", "blue"]


class ColourClassifier(nn.Module):
    """Scores 16 times the mean of red, green and blue; `features` has one 8×8 map for each."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.AvgPool2d(4)
        self.score = nn.Linear(3, 3, bias=False).requires_grad_(False)
        self.score.weight.copy_(16 * torch.eye(3))

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.score(self.features(inputs).mean((2, 3)))
        return scores


def preprocess(image: Image.Image) -> Tensor:
    pixels = np.array(image.resize((32, 32), Image.Resampling.NEAREST))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def red_and_green() -> Image.Image:
    """Black, a quarter of it red (upper left), a sixteenth green (lower right): scores 4, 1, 0."""
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:16, :16, 0] = 255
    pixels[24:, 24:, 1] = 255
    return Image.fromarray(pixels)


def bare() -> nn.Module:
    return ColourClassifier()


def with_preprocess() -> tuple[object, ...]:
    return ColourClassifier(), preprocess


def with_names() -> tuple[object, ...]:
    return ColourClassifier(), preprocess, NAMES


def with_probabilities() -> tuple[object, ...]:
    return nn.Sequential(ColourClassifier(), nn.Softmax(1)), preprocess, NAMES


def with_sigmoid() -> tuple[object, ...]:
    return nn.Sequential(ColourClassifier(), nn.Sigmoid()), preprocess, NAMES


class _Returning(nn.Module):
    def __init__(self, output: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.colours, self.output = ColourClassifier(), output

    def forward(self, inputs: Tensor) -> object:
        return self.output(self.colours(inputs), self.colours.features(inputs))


def with_a_tuple() -> tuple[object, ...]:
    return _Returning(lambda scores, maps: (scores, maps)), preprocess, NAMES


def with_a_dict() -> tuple[object, ...]:
    return _Returning(lambda scores, _: {"scores": scores}), preprocess, NAMES


def without_maps() -> tuple[object, ...]:
    scores = nn.Linear(3 * 32 * 32, 3, bias=False).requires_grad_(False)
    scores.weight.copy_(torch.eye(3).repeat_interleave(32 * 32, 1) / 64)
    return nn.Sequential(nn.Flatten(), scores), preprocess, NAMES


def with_too_few_names() -> tuple[object, ...]:
    return ColourClassifier(), preprocess, NAMES[:2]


def no_model() -> str:
    return "no model"


def failing() -> nn.Module:
    raise RuntimeError("no such thing")


def one_logit() -> tuple[object, ...]:
    """The score of red minus that of green: 3 for the image above."""
    difference = nn.Linear(3, 1, bias=False).requires_grad_(False)
    difference.weight.copy_(torch.tensor([[1.0, -1.0, 0.0]]))
    return nn.Sequential(ColourClassifier(), difference), preprocess, ["redder"]

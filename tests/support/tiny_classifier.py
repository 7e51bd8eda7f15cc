"""A classifier of four classes with random weights, and small pictures for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from captum_scorecam.datasets import Sample

NAMES = ["red", "green", "blue", "white"]
COLOURS = [(220, 30, 40), (40, 200, 60), (50, 60, 210), (230, 230, 220)]


class TinyClassifier(nn.Module):
    """Five channels, 10×10, and a linear layer; softened, so that no probability is near 1."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU())
        self.score = nn.Linear(5, 4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.6, generator=generator)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.score(functional.adaptive_avg_pool2d(self.features(inputs), 1).flatten(1))
        return scores


def preprocess(image: Image.Image, side: int = 21) -> Tensor:
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255 - 0.4


def tiny() -> tuple[object, ...]:
    return TinyClassifier(), preprocess, NAMES


def tiny_of_large_images() -> tuple[object, ...]:
    return TinyClassifier(), partial(preprocess, side=64), NAMES


def picture(index: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A square of the label's colour on noise, and its box."""
    generator = np.random.default_rng(index)
    pixels = generator.integers(0, 120, (30, 40, 3), dtype=np.uint8)
    left, top = (int(value) for value in generator.integers(4, 15, 2))
    pixels[top : top + 12, left : left + 14] = COLOURS[index % 4]
    return Image.fromarray(pixels), (left, top, left + 14, top + 12)


class Pictures:
    """A user-defined data set: pictures with labels, and boxes in all but every third."""

    has_labels = has_boxes = True
    classes = None

    def __init__(self, number: int, labels: Sequence[str | int | None] | None = None) -> None:
        self.labels = labels or [NAMES[index % 4] for index in range(number)]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"picture {index}"

    def label(self, index: int) -> str | int | None:
        return self.labels[index]

    def __getitem__(self, index: int) -> Sample:
        image, box = picture(index)
        region = Image.new("L", image.size)
        region.paste(255, box)
        return Sample(self.name(index), image, self.labels[index], None if index % 3 == 2 else region)


def write_folder(folder: Path, number: int) -> Path:
    """Writes pictures into a folder for each class."""
    for index in range(number):
        path = folder / NAMES[index % 4] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index)[0].save(path)
    return folder

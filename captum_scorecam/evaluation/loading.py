"""Images read and preprocessed, in the workers of a DataLoader if there are any."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captum_scorecam.datasets import ImageDataset, Label, Mosaics, Sample
from captum_scorecam.models import Preprocess, seen_region

Failure = dict[str, str]
_LONGEST_MESSAGE = 1000


@dataclass(frozen=True)
class Preprocessed:
    """An image as the model takes it.

    Attributes:
        values (Tensor): C×H×W.
        region (Tensor, optional): Boolean, H×W, where the labelled object is, with at least one pixel.
    """

    values: Tensor
    region: Tensor | None


@dataclass(frozen=True)
class Loaded:
    """An image of the data set, or why there is none.

    Attributes:
        index (int): Its place in the data set.
        name (str): Its name.
        label (str, int or None): As the data set has it.
        image (Preprocessed, optional): None after a failure.
        mosaic (Preprocessed, optional): Its mosaic, where there are mosaics.
        failure (dict, optional): The error of a record, if something could not be read.
    """

    index: int
    name: str
    label: Label | None = None
    image: Preprocessed | None = None
    mosaic: Preprocessed | None = None
    failure: Failure | None = None


class LoadedImages(Dataset[Loaded]):
    """Reads and preprocesses images; an image that can't be read is a `Loaded` with its failure.

    Args:
        data (ImageDataset): The images.
        indices (sequence of int): Which of them.
        mosaics (Mosaics, optional): Their mosaics. Default: None.
        preprocess (callable): Makes the C×H×W input of an RGB image.
    """

    def __init__(
        self, data: ImageDataset, indices: Sequence[int], mosaics: Mosaics | None, preprocess: Preprocess
    ) -> None:
        self.data, self.indices, self.mosaics, self.preprocess = data, indices, mosaics, preprocess

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Loaded:
        index = self.indices[position]
        name = self.data.name(index)
        try:
            sample = self.data[index]
            image = self._preprocessed(sample)
            mosaic = None if self.mosaics is None or sample.label is None else self._preprocessed(self.mosaics[index])
        except Exception as error:  # the user's data set and preprocessing may raise anything
            return Loaded(index, name, failure=failure_of(error, "image"))
        return Loaded(index, name, sample.label, image, mosaic)

    def _preprocessed(self, sample: Sample) -> Preprocessed:
        values = self.preprocess(sample.image)
        region = None if sample.region is None else seen_region(sample.region, self.preprocess)
        return Preprocessed(values, region if region is not None and region.any() else None)


def load_images(images: LoadedImages, workers: int) -> Iterable[Loaded]:
    """Reads images in their order, ahead of time where there are workers."""
    # Its own generator: DataLoader draws a seed, and the user's random state is to stay as it is.
    return DataLoader(images, batch_size=None, num_workers=workers, generator=torch.Generator())


def failure_of(error: Exception, stage: str) -> Failure:
    """Describes an exception, in the same words each time it is raised, for a record's ``error``."""
    message = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))
    return {"type": type(error).__name__, "message": message[:_LONGEST_MESSAGE], "stage": stage}

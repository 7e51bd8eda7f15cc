"""Reads and preprocesses images, optionally in the worker processes of a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captum_scorecam.datasets import ImageDataset, Label, Mosaics, Sample
from captum_scorecam.datasets.boxes import paste_box
from captum_scorecam.evaluation.metrics.metric import boxes_of_masks
from captum_scorecam.evaluation.plan import Plan
from captum_scorecam.evaluation.records import Failure
from captum_scorecam.models import Preprocess
from captum_scorecam.models.preprocessing import seen_regions


@dataclass(frozen=True)
class Preprocessed:
    """A preprocessed image, ready for the model.

    Attributes:
        values (Tensor): C×H×W.
        region (Tensor, optional): Region of the labelled object, boolean, H×W, with at least one True.
        mask (Tensor, optional): The object's pixels, as of `Sample.mask`, boolean, H×W. Default: None, unknown.
        boxes (Tensor, optional): The object's boxes, M×4, left, top, right, bottom in pixels of the input. Default:
            None, a single one around the region.
    """

    values: Tensor
    region: Tensor | None
    mask: Tensor | None = None
    boxes: Tensor | None = None


@dataclass(frozen=True)
class Loaded:
    """An image of the data set, or the reason why it could not be read.

    Attributes:
        index (int): The image's position in the data set.
        name (str): The image's name.
        image (Preprocessed or Failure): The image, or the failure.
        label (str, int or None): The label in the data set. Default: None.
        mosaic (Preprocessed, optional): The image's mosaic, if the run has mosaics. Default: None.
    """

    index: int
    name: str
    image: Preprocessed | Failure
    label: Label | None = None
    mosaic: Preprocessed | None = None


class LoadedImages(Dataset[Loaded]):
    """Reads and preprocesses images; if an image can't be read, returns a `Loaded` with the failure.

    Args:
        dataset (ImageDataset): The images.
        indices (sequence of int): The positions of the images to read.
        mosaics (Mosaics, optional): The images' mosaics.
        preprocess (callable): Converts an RGB image to a C×H×W input.
    """

    def __init__(
        self, dataset: ImageDataset, indices: Sequence[int], mosaics: Mosaics | None, preprocess: Preprocess
    ) -> None:
        self.dataset, self.indices, self.mosaics, self.preprocess = dataset, indices, mosaics, preprocess

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Loaded:
        index = self.indices[position]
        name = self.dataset.name(index)
        try:
            sample = self.dataset[index]
            image = self._preprocessed(sample)
            mosaic = None if self.mosaics is None or sample.label is None else self._preprocessed(self.mosaics[index])
        except Exception as error:  # the user's data set and preprocessing may raise anything
            return Loaded(index, name, Failure.from_exception(error, "image"))
        return Loaded(index, name, image, sample.label, mosaic)

    def _preprocessed(self, sample: Sample) -> Preprocessed:
        values = self.preprocess(sample.image)
        if sample.region is None:
            return Preprocessed(values, None)
        masks = [] if sample.mask is None else [sample.mask]
        region, *others = seen_regions([sample.region, *masks, *_each_box(sample)], self.preprocess)
        boxes = [box for box in others[len(masks) :] if box.any()]
        return Preprocessed(
            values,
            region if region.any() else None,
            others[0] if masks else None,
            boxes_of_masks(torch.stack(boxes)) if boxes else None,
        )


def _each_box(sample: Sample) -> Iterator[Image.Image]:
    """Draws each of a sample's boxes, if there are several."""
    for edges in sample.boxes if len(sample.boxes) > 1 else ():
        box = Image.new("L", sample.image.size)
        paste_box(box, edges)
        yield box


def load_some(plan: Plan, most: int = 4) -> Iterable[Loaded]:
    """Loads at most so many images of a plan, spread evenly, without their mosaics."""
    indices = plan.indices[:: -(-len(plan.indices) // most)]
    return load_images(LoadedImages(plan.dataset, indices, None, plan.classifier.preprocess))


def load_images(images: LoadedImages, workers: int = 0) -> Iterable[Loaded]:
    """Loads images in order, ahead of time if there are workers."""
    # DataLoader draws a seed; with a separate generator, the user's random state is unchanged.
    with torch.device("cpu"):  # that of the generator, whatever the default device
        return iter(DataLoader(images, batch_size=None, num_workers=workers, generator=torch.Generator("cpu")))

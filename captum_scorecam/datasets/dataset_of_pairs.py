"""Data sets of (image, label) pairs, such as torchvision's."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as whole_number
from typing import Any

from PIL import Image

from captum_scorecam.datasets.images import upright_rgb
from captum_scorecam.datasets.sample import Label, Sample, check_name


class DatasetOfPairs:
    """Wraps a data set of (image, label) pairs, such as torchvision's, as an `ImageDataset`.

    Args:
        dataset (torch.utils.data.Dataset): Returns (PIL image, label) for an index. It must not have a transform that
            converts images to tensors. A label is a class index or a string.
        labels (sequence, optional): The labels, in place of those in the pairs, such as the ``targets`` attribute of
            many torchvision data sets. Default: None, labels are read together with their images.
        names (sequence of str, optional): A unique name for each image. Default: None, the index.

    Raises:
        TypeError: If a name is not a str.
        ValueError: If the number of labels or names differs from the number of images, or names are not unique.

    Example:
        >>> from PIL import Image
        >>> from captum_scorecam.datasets import DatasetOfPairs
        >>> data = DatasetOfPairs([(Image.new("RGB", (8, 8)), 3)])
        >>> data.name(0), data.label(0)
        ('0', 3)
    """

    has_labels = True
    has_boxes = False
    classes: Sequence[str] | None = None

    def __init__(self, dataset: Any, labels: Sequence[Any] | None = None, names: Sequence[str] | None = None) -> None:
        for parameter, values in (("labels", labels), ("names", names)):
            if values is not None and len(values) != len(dataset):
                raise ValueError(f"Expected `{parameter}` to have {len(dataset)} entries, but got {len(values)}.")
        for name in () if names is None else names:
            check_name(name)
        if names is not None and len(set(names)) < len(names):
            raise ValueError("Expected `names` to be unique, but some are equal.")
        self._dataset, self._labels, self._names = dataset, labels, names

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, index: int) -> str:
        """Returns an image's name."""
        return str(index) if self._names is None else self._names[index]

    def label(self, index: int) -> Label:
        """Returns an image's label."""
        return _label(self._dataset[index][1] if self._labels is None else self._labels[index])

    def __getitem__(self, index: int) -> Sample:
        """Reads an image.

        Raises:
            TypeError: If the data set does not return a PIL image and a class index or string.
            ValueError: If the image can't be converted by the rules of `read_image`.
        """
        image, label = self._dataset[index]
        if not isinstance(image, Image.Image):
            raise TypeError(
                f"Expected a data set that returns PIL images, but got {type(image).__name__}. Remove its transform."
            )
        label = label if self._labels is None else self._labels[index]
        return Sample(self.name(index), upright_rgb(image, self.name(index)), _label(label))


def _label(value: Any) -> Label:
    if isinstance(value, str):
        return value
    try:
        return whole_number(value)
    except TypeError as error:
        raise TypeError(f"Expected labels to be class indices or strings, but got {type(value).__name__}.") from error

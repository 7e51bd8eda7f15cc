"""The interface of a data set of images, and one image of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

Label = str | int


@dataclass(frozen=True)
class Sample:
    """One image with its label and its region.

    Attributes:
        name (str): Unique in the data set, and the same each time it is opened. For a file it is the path relative to
            the data set's folder, with ``/``.
        image (PIL.Image.Image): The image, mode RGB, upright (its EXIF orientation applied).
        label (str, int or None): A class index, or a string (the name of a folder, wnid or class) for `resolve_label`.
            Default: None, no label.
        region (PIL.Image.Image, optional): The labelled object's region: mode L, of the image's size, 255 in its boxes
            and 0 elsewhere. Default: None, unknown.
    """

    name: str
    image: Image.Image
    label: Label | None = None
    region: Image.Image | None = None


@runtime_checkable
class ImageDataset(Protocol):
    """A map-style data set of samples, picklable for the workers of a DataLoader.

    Any object with these members will do. `open_data` returns one for files, and `DatasetOfPairs` wraps a data set of
    (image, label) pairs.
    """

    @property
    def has_labels(self) -> bool:
        """Whether any sample has a label."""
        ...

    @property
    def has_boxes(self) -> bool:
        """Whether any sample has a region."""
        ...

    @property
    def classes(self) -> Sequence[str] | None:
        """All labels in the order of their class indices, or None if the data set defines no order.

        `label_table` uses it if the model's classes have other names, or none.
        """
        ...

    def __len__(self) -> int:
        """Returns the number of samples."""
        ...

    def name(self, index: int) -> str:
        """Returns a sample's name without reading its image."""
        ...

    def label(self, index: int) -> Label | None:
        """Returns a sample's label, if possible without reading its image."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Reads a sample.

        Raises:
            ValueError, OSError: If it can't be read; the message says which one and why.
        """
        ...

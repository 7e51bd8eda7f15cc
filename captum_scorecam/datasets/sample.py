"""What an evaluation needs of a data set, and of each image in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

Label = str | int


@dataclass(frozen=True)
class Sample:
    """One image with what the data set says about it.

    Attributes:
        name (str): Unique in the data set, and the same each time it is opened: of a file, its path relative to
            the data set's folder, with ``/``.
        image (PIL.Image.Image): The image, mode RGB, upright (its EXIF orientation applied).
        label (str, int or None): A class index, or a text (name of folder, wnid or class) for `resolve_label`; None
            where the data set has none. Default: None.
        region (PIL.Image.Image, optional): Where the labelled object is: mode L, of the image's size, 255 in its
            boxes, else 0. Default: None, not known.
    """

    name: str
    image: Image.Image
    label: Label | None = None
    region: Image.Image | None = None


@runtime_checkable
class ImageDataset(Protocol):
    """A map-style data set of samples, picklable for the workers of a DataLoader.

    Any object with these members can be evaluated on; `open_data` makes one of files, and `DatasetOfPairs` of
    a data set that gives (image, label).
    """

    @property
    def has_labels(self) -> bool:
        """Whether some sample has a label."""
        ...

    @property
    def has_boxes(self) -> bool:
        """Whether some sample has a region."""
        ...

    @property
    def classes(self) -> Sequence[str] | None:
        """All labels in the order of their class indices, where the data set has a convention for it, else None.

        `label_table` uses it where the model's classes have other names, or none.
        """
        ...

    def __len__(self) -> int:
        """Returns the number of samples."""
        ...

    def name(self, index: int) -> str:
        """Returns a sample's name, without reading its image."""
        ...

    def label(self, index: int) -> Label | None:
        """Returns a sample's label, where possible without reading its image."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Reads a sample.

        Raises:
            ValueError, OSError: If it can't be read, with a text that says which and why.
        """
        ...

"""The interface of an image data set, and its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

Label = str | int


def by(size: Sequence[int]) -> str:
    """Returns a size as text, such as 640×480."""
    return "×".join(map(str, size))


def check_name(name: object) -> None:
    """Raises TypeError if the name of an image is not a str."""
    if not isinstance(name, str):
        raise TypeError(f"Expected names of images to be str, but got {type(name).__name__}.")


@dataclass(frozen=True)
class Sample:
    """An image with its label and region.

    Attributes:
        name (str): Unique in the data set and the same each time it is opened. For files, the path relative to the data
            set's folder, with ``/``.
        image (PIL.Image.Image): The image, mode RGB, upright (its EXIF orientation applied).
        label (str, int or None): A class index or a string (name of a folder, wnid or class), as accepted by
            `resolve_label`. Default: None, no label.
        region (PIL.Image.Image, optional): The labelled object's region: mode L, same size as the image, 255 inside the
            boxes and 0 elsewhere. Default: None, unknown.
        mask (PIL.Image.Image, optional): The object's pixels, where they are known more exactly than by boxes, in the
            form of `region`, which must be given too. Default: None, unknown.
        boxes (sequence of tuple): The edges of each box, left, top, right and bottom, in pixels of the image. Default:
            none, a single box around `region`.

    Raises:
        ValueError: If the region or the mask and the image differ in size, or there is a mask or boxes without region.
    """

    name: str
    image: Image.Image
    label: Label | None = None
    region: Image.Image | None = None
    mask: Image.Image | None = None
    boxes: Sequence[tuple[float, float, float, float]] = ()

    def __post_init__(self) -> None:
        for field, image in (("region", self.region), ("mask", self.mask)):
            if image is not None and image.size != self.image.size:
                raise ValueError(
                    f"Expected `{field}` to have the image's size, {by(self.image.size)}, in sample {self.name!r}, "
                    f"but got {by(image.size)}."
                )
        if self.region is None and (self.mask is not None or self.boxes):
            raise ValueError(f"Expected a `region` with the mask or boxes of sample {self.name!r}, but got none.")


@runtime_checkable
class ImageDataset(Protocol):
    """A map-style data set of samples, picklable for DataLoader workers.

    Any object with these members is accepted. `open_data` returns one for files, and `DatasetOfPairs` wraps a data set
    of (image, label) pairs.
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
        """All labels, ordered by class index, or None if the data set defines no order.

        `label_table` uses them if the model has no class names, or they are ImageNet's wnids.
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
            ValueError, OSError: If the sample can't be read; the message says which one and why.
        """
        ...

"""Image files with labels and boxes, the data set returned by every reader."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from PIL import Image

from captum_scorecam.datasets.images import read_image
from captum_scorecam.datasets.sample import Label, Sample

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file with its label and boxes.

    Attributes:
        path (str): The file's path.
        name (str): The file's name in the data set.
        label (str, int or None): The label. Default: None.
        boxes (tuple of Box): The boxes of the labelled object, each (left, top, right, bottom) in pixels of the upright
            image, with exclusive right and bottom edges. Default: none.
        size (tuple of int, optional): The width and height that the boxes refer to. Default: None, unknown.
    """

    path: str
    name: str
    label: Label | None = None
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] | None = None


class ImageFiles:
    """An `ImageDataset` of image files.

    Args:
        files (sequence of ImageFile): The files, in order.
        classes (sequence of str, optional): All labels, ordered by class index. Default: None.

    Raises:
        ValueError: If two files have the same name.
    """

    def __init__(self, files: Sequence[ImageFile], classes: Sequence[str] | None = None) -> None:
        self.files = files
        self.classes = classes
        self.has_labels = any(file.label is not None for file in files)
        self.has_boxes = any(file.boxes for file in files)
        twice = [name for name, count in Counter(file.name for file in files).items() if count > 1]
        if twice:
            raise ValueError(f"Expected each image to be listed once, but {twice[0]!r} is listed more than once.")

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Returns a file's name in the data set."""
        return self.files[index].name

    def label(self, index: int) -> Label | None:
        """Returns a file's label."""
        return self.files[index].label

    def __getitem__(self, index: int) -> Sample:
        """Reads an image file.

        Raises:
            ValueError: If it isn't a readable image, or its boxes are outside the image.
            OSError: If it can't be opened.
        """
        file = self.files[index]
        image = read_image(Path(file.path))
        return Sample(file.name, image, file.label, _region(file, image.size) if file.boxes else None)


def largest_object(objects: Iterable[tuple[Label | None, Box]]) -> tuple[Label | None, tuple[Box, ...]]:
    """Returns the label whose boxes have the largest total area, and its boxes; the first label wins ties.

    Boxes of zero area are ignored. Without boxes, the label is None.
    """
    boxes: dict[Label | None, list[Box]] = defaultdict(list)
    for label, box in objects:
        if _area(box) > 0:
            boxes[label].append(box)
    if not boxes:
        return None, ()
    largest = max(boxes, key=lambda label: sum(map(_area, boxes[label])))
    return largest, tuple(boxes[largest])


def _area(box: Box) -> float:
    left, top, right, bottom = box
    return max(right - left, 0) * max(bottom - top, 0)


def _region(file: ImageFile, size: tuple[int, int]) -> Image.Image:
    """Draws a file's boxes: pixels whose centre is in a box are white."""
    if file.size not in (None, size):
        raise ValueError(
            f"Expected {file.name!r} to have the size in its annotation, {_by(file.size)}, "
            f"but the upright image is {_by(size)}."
        )
    region = Image.new("L", size)
    for box in file.boxes:
        left, top, right, bottom = (
            ceil(min(max(edge, 0), limit) - 0.5) for edge, limit in zip(box, size * 2, strict=True)
        )
        region.paste(255, (left, top, right, bottom))
    if region.getbbox() is None:
        raise ValueError(
            f"Expected a box inside {file.name!r}, {_by(size)} pixels, but got {', '.join(map(str, file.boxes))}."
        )
    return region


def _by(size: tuple[int, int] | None) -> str:
    return "×".join(map(str, size or ()))

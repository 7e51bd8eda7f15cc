"""Image files with labels and boxes, the data set returned by every reader."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from captum_scorecam.datasets.boxes import Box, draw_region
from captum_scorecam.datasets.images import read_image
from captum_scorecam.datasets.sample import Label, Sample, by


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file with its label and boxes.

    Attributes:
        path (str): The file's path.
        name (str): The file's name in the data set.
        label (str, int or None): The label. Default: None.
        boxes (tuple of Box): The boxes of the labelled object. Default: none.
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
            ValueError: If it isn't a readable image, or its boxes can't be pixels of the image.
            OSError: If it can't be opened.
        """
        file = self.files[index]
        image = read_image(Path(file.path))
        if file.boxes and file.size not in (None, image.size):
            raise ValueError(
                f"Expected {file.name!r} to have the size in its annotation, {by(file.size or ())}, "
                f"but the upright image is {by(image.size)}."
            )
        region = draw_region(file.boxes, image.size, file.name) if file.boxes else None
        return Sample(file.name, image, file.label, region)


def listed_name(folder: Path, text: str) -> str:
    """Returns the path of an image as listed in a file, with ``/`` for the backslashes of Windows.

    Args:
        folder (Path): The folder that the path is relative to.
        text (str): The path. Elsewhere than on Windows, a file name may contain backslashes; they are kept if there is
            such a file.
    """
    if "\\" in text and not os.path.isfile(folder / text):
        return PureWindowsPath(text).as_posix()
    return Path(text).as_posix()

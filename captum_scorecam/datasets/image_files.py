"""Image files with labels and boxes, the data set returned by every reader."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path, PureWindowsPath

from PIL import Image

from captum_scorecam.datasets.boxes import Box, draw_mask, draw_region
from captum_scorecam.datasets.images import read_image, upright_size
from captum_scorecam.datasets.sample import Label, Sample, by

_TRIED = 20  # images


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
        ValueError: If two files have the same name or path.
    """

    def __init__(self, files: Sequence[ImageFile], classes: Sequence[str] | None = None) -> None:
        self.files = files
        self.classes = classes
        self.has_labels = any(file.label is not None for file in files)
        self.has_boxes = any(file.boxes for file in files)
        _check_unique(files)

    def check_boxes(self) -> None:
        """Checks, on a few images, that boxes are pixels of their images; wrong ones of single images are found later.

        Raises:
            ValueError: If the first images with boxes all have some, or segmentations, that can't be of the image.
        """
        problems = []
        for file in islice((file for file in self.files if file.boxes), _TRIED):
            size = upright_size(Path(file.path))
            if size is None:  # not readable, which is found when the image is read
                continue
            try:
                _region_and_mask(file, size)
            except ValueError as error:
                problems.append(error)
                continue
            return
        if problems:
            raise problems[0]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Returns a file's name in the data set."""
        return self.files[index].name

    def label(self, index: int) -> Label | None:
        """Returns a file's label."""
        return self.files[index].label

    def boxes_text(self, index: int) -> str:
        """Returns the boxes and segmentations of a file as text, to tell whether they have changed."""
        return repr([(box[:4], box.segmentation and box.segmentation.text) for box in self.files[index].boxes])

    def file_digest(self, index: int) -> str | None:
        """Returns the SHA-256 of a file's content, None if it can't be read."""
        try:
            return hashlib.sha256(Path(self.files[index].path).read_bytes()).hexdigest()
        except (OSError, ValueError):
            return None

    def __getitem__(self, index: int) -> Sample:
        """Reads an image file.

        Raises:
            ValueError: If it isn't a readable image, or its boxes or segmentations can't be pixels of the image.
            OSError: If it can't be opened.
        """
        file = self.files[index]
        image = read_image(Path(file.path))
        if not file.boxes:
            return Sample(file.name, image, file.label)
        edges = [box[:4] for box in file.boxes]
        return Sample(file.name, image, file.label, *_region_and_mask(file, image.size), edges)


def _check_unique(files: Sequence[ImageFile]) -> None:
    keys = [file.name for file in files]
    if any(map(os.path.isabs, keys)):  # the same file can have a relative name too
        keys = [without_dots(str(Path(file.path).absolute()), Path()) for file in files]
    first: dict[str, ImageFile] = {}
    for key, file in zip(keys, files, strict=True):
        other = first.setdefault(key, file)
        if other is not file:
            also = "" if other.name == file.name else f", also as {file.name!r}"
            raise ValueError(
                f"Expected each image to be listed once, but {other.name!r} is listed more than once{also}."
            )


def _region_and_mask(file: ImageFile, size: tuple[int, int]) -> tuple[Image.Image, Image.Image | None]:
    """Draws a file's boxes, and its segmentations if it has them, on an upright image of the given size."""
    if file.size not in (None, size):
        raise ValueError(
            f"Expected {file.name!r} to have the size in its annotation, {by(file.size or ())}, "
            f"but the upright image is {by(size)}."
        )
    return draw_region(file.boxes, size, file.name), draw_mask(file.boxes, size, file.name)


def listed_name(folder: Path, text: str) -> str:
    """Returns the path of an image as listed in a file, with ``/`` for the backslashes of Windows, without ``x/..``.

    Args:
        folder (Path): The folder that the path is relative to.
        text (str): The path. Elsewhere than on Windows, a file name may contain backslashes; they are kept if there is
            such a file.
    """
    if "\\" in text and not os.path.isfile(folder / text):
        text = PureWindowsPath(text).as_posix()
    return Path(without_dots(text, folder)).as_posix()


def without_dots(path: str, folder: Path) -> str:
    """Returns a path without ``.`` and ``x/..``, unless x is a link to another place."""
    normal = os.path.normpath(path)
    if ".." in Path(path).parts and _real_folder(folder / path) != _real_folder(folder / normal):
        return path
    return normal


def _real_folder(path: Path) -> str:
    return _real_path(str(path.parent))


@lru_cache(maxsize=1024)
def _real_path(path: str) -> str:
    return os.path.realpath(path)

"""Boxes of objects, and their regions in an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil
from typing import NamedTuple

from PIL import Image

from captum_scorecam.datasets.sample import Label, by
from captum_scorecam.datasets.segmentations import Polygons, Segmentation, union

MOST_PIXELS = 1e9  # of a side, more than any image has


class Box(NamedTuple):
    """The edges of a box in pixels of the upright image, counted from 0; right and bottom are exclusive.

    Attributes:
        left (float): The left edge.
        top (float): The top edge.
        right (float): The right edge.
        bottom (float): The bottom edge.
        source (str): The box as written in its file, and where, for error messages. Default: the edges.
        segmentation (Segmentation, optional): The pixels of the object in the box. Default: None, unknown.
    """

    left: float
    top: float
    right: float
    bottom: float
    source: str = ""
    segmentation: Segmentation | None = None

    def __str__(self) -> str:
        return self.source or ", ".join(f"{edge:g}" for edge in self[:4])

    @property
    def area(self) -> float:
        """The area in pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


def largest_object(objects: Iterable[tuple[Label | None, Box]]) -> tuple[Label | None, tuple[Box, ...]]:
    """Returns the label whose boxes have the largest total area, and its boxes; the first label wins ties.

    Boxes of zero area are ignored. Without boxes, the label is None.
    """
    boxes: dict[Label | None, list[Box]] = defaultdict(list)
    for label, box in objects:
        if box.area > 0:
            boxes[label].append(box)
    if not boxes:
        return None, ()
    largest = max(boxes, key=lambda label: sum(box.area for box in boxes[label]))
    return largest, tuple(boxes[largest])


def draw_region(boxes: Sequence[Box], size: tuple[int, int], name: str) -> Image.Image:
    """Draws boxes: pixels whose centre is in a box are white.

    Boxes may exceed the image by 2 pixels or 1 % of its side, whichever is larger, because of rounding or counting
    from 1.

    Args:
        boxes (sequence of Box): The boxes.
        size (tuple of int): The width and height of the upright image.
        name (str): The image's name, for error messages.

    Returns:
        PIL.Image.Image: Mode L, 255 in the boxes and 0 elsewhere.

    Raises:
        ValueError: If a box reaches outside the image, or the boxes can't be in pixels or contain no pixel.
    """
    _check_boxes(boxes, size, f"Expected boxes in pixels of {name!r}, {by(size)}, but got")
    region = Image.new("L", size)
    for box in boxes:
        paste_box(region, box[:4])
    if region.getbbox() is None:
        raise ValueError(
            f"Expected a box that contains a pixel of {name!r}, {by(size)}, but got {'; '.join(map(str, boxes))}."
        )
    return region


def paste_box(region: Image.Image, edges: Sequence[float]) -> None:
    """Makes the pixels white whose centre is in a box; edges are left, top, right and bottom."""
    limits = region.size * 2
    left, top, right, bottom = (ceil(min(max(edge, 0), limit) - 0.5) for edge, limit in zip(edges, limits, strict=True))
    region.paste(255, (left, top, right, bottom))


def draw_mask(boxes: Sequence[Box], size: tuple[int, int], name: str) -> Image.Image | None:
    """Draws the segmentations of the objects in boxes.

    Args:
        boxes (sequence of Box): The boxes.
        size (tuple of int): The width and height of the upright image.
        name (str): The image's name, for error messages.

    Returns:
        PIL.Image.Image: Mode L, 255 on the objects and 0 elsewhere; None if a segmentation is missing.

    Raises:
        ValueError: If a segmentation can't be one of the image.
    """
    found = [box.segmentation for box in boxes if box.segmentation is not None]
    if len(found) < len(boxes) or not boxes:
        return None
    if size != (1, 1) and all(isinstance(each, Polygons) and each.greatest <= 1.5 for each in found):
        raise ValueError(
            f"Expected polygons in pixels of {name!r}, {by(size)}, but got some that are at most the first pixel, for "
            f"{boxes[0]}. Multiply polygons given as fractions of the image by its width and height."
        )
    mask = union(segmentation.pixels(size, name) for segmentation in found)
    return Image.fromarray(mask.astype("uint8") * 255)


def _check_boxes(boxes: Sequence[Box], size: tuple[int, int], expected: str) -> None:
    (width, height), (x, y) = size, (max(2, side / 100) for side in size)
    for box in boxes:
        if box.left < -x or box.top < -y or box.right > width + x or box.bottom > height + y:
            raise ValueError(f"{expected} {box}, which reaches outside the image.")
    if size != (1, 1) and all(max(box.right, box.bottom) <= 1.5 for box in boxes):
        raise ValueError(
            f"{expected} {boxes[0]}, which is at most the first pixel. "
            "Multiply boxes given as fractions of the image by its width and height."
        )

"""COCO's segmentations: the pixels of an object, as polygons or as lengths of runs of pixels."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from captum_scorecam.datasets.sample import by

Pixels = NDArray[np.bool_]


class Polygons(NamedTuple):
    """Outlines of an object's parts; a pixel belongs to the object if its centre is inside one of them.

    Attributes:
        outlines (tuple of ndarray): Corners x, y in pixels, each P×2.
        place (str): Where they are written, for error messages.
    """

    outlines: tuple[NDArray[np.float64], ...]
    place: str

    @property
    def greatest(self) -> float:
        """The greatest coordinate."""
        return max(float(outline.max()) for outline in self.outlines)

    @property
    def text(self) -> str:
        """All coordinates, to tell whether they have changed."""
        return repr([outline.tolist() for outline in self.outlines])

    def pixels(self, size: tuple[int, int], name: str) -> Pixels:
        """Returns the pixels inside.

        Args:
            size (tuple of int): The width and height of the upright image.
            name (str): The image's name, for error messages.

        Returns:
            ndarray: Boolean, H×W.

        Raises:
            ValueError: If an outline exceeds the image by more than boxes may.
        """
        border = np.maximum(2, np.array(size) / 100)
        corners = np.concatenate(self.outlines)
        if (corners < -border).any() or (corners > size + border).any():
            raise ValueError(
                f"Expected polygons in pixels of {name!r}, {by(size)}, but those in {self.place} reach outside."
            )
        return union(_inside(outline, size) for outline in self.outlines)


class Runs(NamedTuple):
    """Lengths of runs of pixels, column by column from the left: first outside the object, then on it, and so on.

    Attributes:
        lengths (str or sequence of int): The lengths, or COCO's compressed form of them.
        size (tuple of int): The width and height of the image.
        place (str): Where they are written, for error messages.
    """

    lengths: str | Sequence[int]
    size: tuple[int, int]
    place: str

    @property
    def text(self) -> str:
        """All lengths, to tell whether they have changed."""
        return repr((self.lengths, self.size))

    def pixels(self, size: tuple[int, int], name: str) -> Pixels:
        """Returns the pixels on the object, as `Polygons.pixels` does.

        Raises:
            ValueError: If the lengths are not those of an image of that size.
        """
        if self.size != size:
            raise ValueError(
                f"Expected run lengths for {name!r}, {by(size)}, but those in {self.place} are for {by(self.size)}."
            )
        lengths = _uncompressed(self.lengths) if isinstance(self.lengths, str) else self.lengths
        if min(lengths, default=0) < 0 or sum(lengths) != size[0] * size[1]:
            raise ValueError(
                f"Expected run lengths of {size[0] * size[1]} pixels in {self.place}, "
                f"but got {reprlib.repr(list(lengths))}, {sum(lengths)} in all."
            )
        of_columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        return of_columns.reshape(size).T


Segmentation: TypeAlias = Polygons | Runs


def union(parts: Iterable[Pixels]) -> Pixels:
    """Returns the pixels that are in any of at least one part."""
    return reduce(np.logical_or, parts)


def _inside(outline: NDArray[np.float64], size: tuple[int, int]) -> Pixels:
    """Returns the pixels H×W whose centre is inside a polygon: a ray from it crosses an odd number of edges."""
    x, y = (np.arange(side) + 0.5 for side in size)
    inside = np.zeros(size[::-1], dtype=bool)
    for (x1, y1), (x2, y2) in zip(outline, np.roll(outline, -1, 0), strict=True):
        if y1 != y2:
            rows = np.flatnonzero((y1 <= y) != (y2 <= y))
            crossings = x1 + (y[rows] - y1) * (x2 - x1) / (y2 - y1)
            inside[rows] ^= x > crossings[:, None]
    return inside


def _uncompressed(text: str) -> list[int]:
    """Decodes COCO's text: 5 bits per character, the lowest first; from the fourth number on, differences by two."""
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - ord("0")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the number's last character, whose highest bit is the sign
            number -= (bits & 16) << (shift - 4)
            lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
            number = shift = 0
    return lengths

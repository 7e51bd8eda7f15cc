"""Mosaics of four images, in which the region of each image is known even without boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeAlias, TypeVar

from PIL import Image, ImageOps

from captum_scorecam._messages import check_whole_number
from captum_scorecam.datasets.sample import ImageDataset, Label, Sample

_Value = TypeVar("_Value")
_Group: TypeAlias = tuple[bool, Label]


class Mosaics:
    """Combines each image of a data set with three images of other labels into a mosaic of 2×2 tiles.

    The idea is from Focus (arXiv 2109.15035), whose mosaics show the explained class twice; here it is shown once.
    A mosaic takes its name and label from the original image, and its region is that image's tile. The tile's position,
    the three other labels and one image of each are random, seeded by `seed` and the image's name; an unreadable image
    is replaced with the next random one. Each tile shows the central square of its image.

    Args:
        data (ImageDataset): Images with at least four distinct labels.
        seed (int): The random seed. Default: 0.
        tile_size (int): Width and height of a tile in pixels. Default: 224.
        classes (mapping of label to int, optional): The model's class of each label: labels of the same class do not
            meet in a mosaic. Default: None, each label is a class of its own.

    Raises:
        TypeError: If `tile_size` is not a whole number.
        ValueError: If there are fewer than four labels of different classes, or `tile_size` is below 1.
    """

    has_labels = True
    has_boxes = True

    def __init__(
        self,
        data: ImageDataset,
        seed: int = 0,
        tile_size: int = 224,
        classes: Mapping[Label, int] | None = None,
    ) -> None:
        self.tile_size = check_whole_number("tile_size", tile_size, 1)
        self.data = data
        self.classes = data.classes
        self.seed = seed
        self._class_of = {} if classes is None else classes
        self._members: dict[_Group, list[int]] = defaultdict(list)
        for index in range(len(data)):
            try:
                label = data.label(index)
            except (ValueError, OSError):  # of an image that its label is read with
                continue
            if label is not None:
                self._members[self._group(label)].append(index)
        if len(self._members) < 4:
            raise ValueError(
                f"Expected images with labels of at least four classes for mosaics, but got {len(self._members)}."
            )

    def __len__(self) -> int:
        return len(self.data)

    def name(self, index: int) -> str:
        """Returns the name of the image whose tile is the region."""
        return self.data.name(index)

    def label(self, index: int) -> Label | None:
        """Returns the label of the image whose tile is the region."""
        return self.data.label(index)

    def __getitem__(self, index: int) -> Sample:
        """Reads an image and three others and combines them into a mosaic.

        Raises:
            ValueError, OSError: If the image can't be read or has no label, or fewer than three others can be read.
        """
        sample = self.data[index]
        if sample.label is None:
            raise ValueError(f"Expected a labelled image for a mosaic, but {sample.name!r} has no label.")
        generator = Random(f"{self.seed}/{sample.name}".encode("utf-8", "surrogateescape"))
        place = int(4 * generator.random())
        tiles = self._others(sample.label, generator)
        tiles.insert(place, sample.image)
        image, region = self._blank("RGB"), self._blank("L")
        for position, tile in enumerate(tiles):
            image.paste(ImageOps.fit(tile, (self.tile_size, self.tile_size)), self._corner(position))
        corner = self._corner(place)
        region.paste(255, (*corner, corner[0] + self.tile_size, corner[1] + self.tile_size))
        return Sample(sample.name, image, sample.label, region)

    def _group(self, label: Label) -> _Group:
        """What images that must not meet have in common: the class, or the label if its class is unknown."""
        return (label in self._class_of, self._class_of.get(label, label))

    def _others(self, label: Label, generator: Random) -> list[Image.Image]:
        """Reads one image for each of three other labels."""
        found: list[Image.Image] = []
        for other in _shuffled([other for other in self._members if other != self._group(label)], generator):
            image = self._first_readable(_shuffled(self._members[other], generator))
            if image is not None:
                found.append(image)
            if len(found) == 3:
                return found
        raise ValueError(f"Expected readable images of three other labels for a mosaic, but found {len(found)}.")

    def _first_readable(self, indices: list[int]) -> Image.Image | None:
        for index in indices:
            try:
                return self.data[index].image
            except (ValueError, OSError):
                continue
        return None

    def _blank(self, mode: str) -> Image.Image:
        return Image.new(mode, (2 * self.tile_size, 2 * self.tile_size))

    def _corner(self, position: int) -> tuple[int, int]:
        return (position % 2 * self.tile_size, position // 2 * self.tile_size)


def _shuffled(values: Sequence[_Value], generator: Random) -> list[_Value]:
    # `Random.random` is stable across Python versions; `shuffle` is not guaranteed to be.
    return sorted(values, key=lambda _: generator.random())

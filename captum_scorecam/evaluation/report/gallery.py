"""The gallery of the report: pictures small enough to stand in one file, and how much the methods' maps disagree."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captum_scorecam.evaluation.pictures import GALLERY, picture_name
from captum_scorecam.evaluation.presentation import best_of, method_title
from captum_scorecam.evaluation.records import Record
from captum_scorecam.evaluation.summary import class_names, class_title

PICTURE_SIZE, MAP_SIZE, COMPARED_SIZE = 320, 112, 56  # the longer side, in pixels
_QUALITY = 85


@dataclass(frozen=True)
class Tile:
    """A method's map of one image, or why there is none."""

    method: str
    title: str
    series: int
    source: str | None
    error: str | None
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery.

    Attributes:
        index (int): Its place in the data set.
        name (str): Its name.
        picture (str): What the model saw, as a data URI.
        ratio (float): Its width over its height.
        target (str): The class that was explained.
        label (str, optional): Its labelled class.
        correct (bool, optional): Whether that is the predicted class.
        probability (float): The target's.
        disagreement (float, optional): How much the methods' maps disagree, see `disagreement`.
        tiles (list of Tile): The methods, in the order of the configuration.
    """

    index: int
    name: str
    picture: str
    ratio: float
    target: str
    label: str | None
    correct: bool | None
    probability: float
    disagreement: float | None
    tiles: list[Tile]

    @property
    def group(self) -> str:
        """The class that it is filtered by."""
        return self.label or self.target

    def best(self, measure: str) -> set[str]:
        """Returns the methods with the best value on this image."""
        return best_of({tile.method: tile.values.get(measure) for tile in self.tiles}, measure)


def make_gallery(run: Path, records: Sequence[Record], methods: Sequence[str]) -> list[GalleryImage]:
    """Reads the pictures of a run.

    Args:
        run (Path): The run's folder.
        records (sequence of dict): Its records, in the order of the images.
        methods (sequence of str): Its methods.

    Returns:
        list of GalleryImage: The images that have a picture and the map of at least one method.
    """
    names = class_names(records)
    by_image = groupby(records, key=lambda record: record["index"])
    images = (_gallery_image(run / GALLERY, list(of_image), methods, names) for _, of_image in by_image)
    return [image for image in images if image is not None]


def _gallery_image(
    folder: Path, records: Sequence[Record], methods: Sequence[str], names: Mapping[int, str]
) -> GalleryImage | None:
    first = next((record for record in records if not record["error"]), None)
    if first is None or not (folder / picture_name(first["index"])).is_file():
        return None
    of_method = {record["method"]: record for record in records}
    maps = {method: _map(folder, first["index"], method) for method in methods}
    label, seen = first.get("label"), _open(folder / picture_name(first["index"]), "RGB")
    return GalleryImage(
        index=first["index"],
        name=first["image"],
        picture=_data_uri(seen, PICTURE_SIZE),
        ratio=round(seen.width / seen.height, 4),
        target=class_title(first["target"], names),
        label=None if label is None else class_title(label, names),
        correct=first.get("correct"),
        probability=first["probability"],
        disagreement=disagreement([found for found in maps.values() if found is not None]),
        tiles=[_tile(method, number, of_method.get(method), maps[method]) for number, method in enumerate(methods)],
    )


def _tile(method: str, series: int, record: Record | None, found: Image.Image | None) -> Tile:
    error: dict[str, Any] | None = None if record is None else record["error"]
    values = {} if record is None or error else record["values"]
    source = None if found is None or error else _data_uri(found, MAP_SIZE)
    message = None if source else "not run" if record is None else error["message"] if error else "no map was kept"
    return Tile(method, method_title(method), series, source, message, values)


def _map(folder: Path, index: int, method: str) -> Image.Image | None:
    path = folder / picture_name(index, method)
    return _open(path, "L") if path.is_file() else None


def _open(path: Path, mode: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert(mode)


def _smaller(image: Image.Image, longest: int) -> Image.Image:
    scale = min(1.0, longest / max(image.size))
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)


def _data_uri(image: Image.Image, longest: int) -> str:
    file = io.BytesIO()
    _smaller(image, longest).save(file, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def disagreement(maps: Sequence[Image.Image]) -> float | None:
    """Returns how much maps of one image disagree: 1 less the mean of Spearman's correlation over all pairs of them.

    0: all order the pixels alike. 1: they have nothing to do with each other. Up to 2: they are opposed. The maps are
    compared at 56 pixels; a constant one, which orders nothing, is left out.

    Args:
        maps (sequence of PIL.Image.Image): Mode L, of one size.

    Returns:
        float or None: None where fewer than two maps are left.
    """
    small = [np.asarray(_smaller(image, COMPARED_SIZE)).ravel() for image in maps]
    ranks = [_ranks(values) for values in small if values.min() < values.max()]
    if len(ranks) < 2:
        return None
    correlations = np.atleast_2d(np.corrcoef(ranks))[np.triu_indices(len(ranks), 1)]
    return float(f"{1 - correlations.mean():.6g}")


def _ranks(values: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return ranks[place]

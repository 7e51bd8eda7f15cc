"""The gallery of the report: pictures small enough for one file, and how much the methods' maps disagree."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captum_scorecam.evaluation.pictures import GALLERY, picture_name
from captum_scorecam.evaluation.presentation import method_title
from captum_scorecam.evaluation.records import Record, RunSettings
from captum_scorecam.evaluation.summary import class_names, class_title
from captum_scorecam.evaluation.verdicts import best_of
from captum_scorecam.metrics.functional.map_similarity import rank_correlation

PICTURE_SIZE, MAP_SIZE, COMPARED_SIZE = 320, 112, 56  # the longer side, in pixels
_QUALITY = 85


@dataclass(frozen=True)
class Tile:
    """A method's map of one image, or why there is none.

    Attributes:
        method (str): The method's name.
        title (str): Its title.
        series (int): The number of its colour.
        source (str, optional): The map, as a data URI.
        error (str, optional): Why there is no map.
        values (mapping of str to float): The map's values by metric.
        failed (collection of str): The metrics that failed.
    """

    method: str
    title: str
    series: int
    source: str | None
    error: str | None
    values: Mapping[str, float | None]
    failed: Collection[str]


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery.

    Attributes:
        index (int): Its position in the data set.
        name (str): Its name.
        picture (str): What the model saw, as a data URI.
        ratio (float): Its width over its height.
        target (str): The explained class.
        label (str, optional): The class of its label.
        correct (bool, optional): Whether that class was predicted.
        probability (float, optional): The target's probability.
        disagreement (float, optional): How much the methods' maps disagree, see `disagreement`.
        tiles (list of Tile): One per method, in the order of the run's settings.
    """

    index: int
    name: str
    picture: str
    ratio: float
    target: str
    label: str | None
    correct: bool | None
    probability: float | None
    disagreement: float | None
    tiles: list[Tile]

    @property
    def group(self) -> str:
        """The class that the gallery filters by."""
        return self.label or self.target

    def best(self, metric: str) -> set[str]:
        """Returns the methods with the best value on this image."""
        return best_of({tile.method: tile.values.get(metric) for tile in self.tiles}, metric)


@dataclass(frozen=True)
class Gallery:
    """The gallery of a run.

    Attributes:
        images (list of GalleryImage): The images that have a picture and the result of at least one method.
        left_out (list of str): Files that are missing or damaged, as ``NAME is missing`` or ``NAME is damaged``.
    """

    images: list[GalleryImage]
    left_out: list[str]


def make_gallery(run: Path, records: Sequence[Record], settings: RunSettings) -> Gallery:
    """Reads the pictures of a run; those that are missing or damaged are left out.

    Args:
        run (Path): The run's folder.
        records (sequence of Record): Its records, sorted by image.
        settings (RunSettings): Its settings.
    """
    names, files = class_names(records), _Files(run / GALLERY)
    by_image = {index: list(of_image) for index, of_image in groupby(records, key=lambda record: record.index)}
    pictured = [*by_image][: settings.gallery] if len(by_image) == settings.images else range(settings.gallery)
    images = []
    for index, of_image in by_image.items():
        has_result = any(record.error is None for record in of_image)
        if has_result and (index in pictured or files.has(picture_name(index))):
            picture = files.open(picture_name(index), "RGB")
            if picture is not None:
                images.append(_gallery_image(files, picture, of_image, settings.methods, names))
    return Gallery(images, files.left_out)


class _Files:
    """The files of a gallery; those that are missing or damaged are listed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left_out: list[str] = []

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def open(self, name: str, mode: str, size: tuple[int, int] | None = None) -> Image.Image | None:
        """Opens a picture, of the given size if there is one."""
        if not self.has(name):
            self.left_out.append(f"{name} is missing")
            return None
        try:
            with Image.open(self.folder / name) as image:
                opened = image.convert(mode)
        except Exception:  # Pillow raises errors of many kinds for damaged files
            opened = None
        if opened is None or opened.size != (size or opened.size):
            self.left_out.append(f"{name} is damaged")
            return None
        return opened


def _gallery_image(
    files: _Files, seen: Image.Image, records: Sequence[Record], methods: Sequence[str], names: Mapping[int, str]
) -> GalleryImage:
    by_method = {record.method: record for record in records if record.error is None}
    first = next(iter(by_method.values()))
    assert first.target is not None  # as of every result
    maps = {
        method: files.open(picture_name(first.index, method), "L", seen.size) if method in by_method else None
        for method in methods
    }
    of_method = {record.method: record for record in records}
    return GalleryImage(
        index=first.index,
        name=first.image,
        picture=_data_uri(seen, PICTURE_SIZE),
        ratio=round(seen.width / seen.height, 4),
        target=class_title(first.target, names),
        label=None if first.label is None else class_title(first.label, names),
        correct=first.correct,
        probability=first.probability,
        disagreement=disagreement([found for found in maps.values() if found is not None]),
        tiles=[_tile(method, number, of_method.get(method), maps[method]) for number, method in enumerate(methods)],
    )


def _tile(method: str, series: int, record: Record | None, found: Image.Image | None) -> Tile:
    error = "not run" if record is None else record.error.message if record.error else None
    if error is None and found is None:
        error = "the map's file is missing or damaged"
    source = None if error or found is None else _data_uri(found, MAP_SIZE)
    values, failed = ({}, ()) if record is None else (record.values, record.failed_metrics)
    return Tile(method, method_title(method), series, source, error, values, failed)


def _smaller(image: Image.Image, longest: int) -> Image.Image:
    scale = min(1.0, longest / max(image.size))
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)


def _data_uri(image: Image.Image, longest: int) -> str:
    file = io.BytesIO()
    _smaller(image, longest).save(file, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def disagreement(maps: Sequence[Image.Image]) -> float | None:
    """Returns how much maps of one image disagree: 1 minus the mean of Spearman's correlation over all pairs of maps.

    0: all maps rank the pixels identically. 1: their rankings are unrelated. Up to 2: they are opposite. The maps are
    compared at 56 pixels; constant maps, which rank nothing, are left out.

    Args:
        maps (sequence of PIL.Image.Image): Mode L, of one size.

    Returns:
        float or None: None if fewer than two maps are left.
    """
    flat = [torch.from_numpy(np.array(_smaller(image, COMPARED_SIZE))).flatten().float() for image in maps]
    varying = [values for values in flat if values.min() < values.max()]
    if len(varying) < 2:
        return None
    first, second = torch.combinations(torch.arange(len(varying))).T
    stacked = torch.stack(varying)
    return round(1 - float(rank_correlation(stacked[first], stacked[second]).mean()), 6)

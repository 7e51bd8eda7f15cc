"""Detection data sets in COCO's format: images and one JSON file with their boxes and segmentations."""

from __future__ import annotations

import json
import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_scorecam._messages import warn_caller
from captum_scorecam.datasets.boxes import MOST_PIXELS, Box, largest_object
from captum_scorecam.datasets.image_files import ImageFile, ImageFiles, listed_name, without_dots
from captum_scorecam.datasets.segmentations import Polygons, Runs, Segmentation
from captum_scorecam.datasets.text_files import read_text


def open_coco(path: Path) -> ImageFiles:
    """Opens a detection data set in COCO's format, as torchvision's CocoDetection does.

    The label of an image is the category whose boxes have the largest total area; only the boxes of that category are
    used, including crowds. An image without boxes has no label. Boxes of zero area are ignored. If all of these boxes
    have a segmentation, polygons or run lengths (compressed or not), the sample has a mask; a warning says if only some
    samples do.

    Args:
        path (Path): The JSON file of annotations, or a folder that contains ``annotations/instances_val2017.json``
            or, failing that, other ``annotations/instances_*.json`` files, the last of which is used. The images of
            ``annotations/instances_NAME.json`` are in the folder ``NAME`` next to ``annotations``; otherwise, the
            images are in the same folder as the JSON file. Boxes are x, y, width, height in pixels.

    Raises:
        ValueError: If there is no such data set, or the JSON file can't be read or is malformed; the message names the
            entry.
    """
    annotations = path if path.is_file() else coco_annotations(path)
    if annotations is None:
        raise ValueError(f"Expected annotations/instances_val2017.json in {str(path)!r}, but found none.")
    files = _image_files(_content(annotations), _image_folder(annotations), str(annotations))
    if not files:
        raise ValueError(f"Expected images in {str(annotations)!r}, but found none.")
    boxes = [file.boxes for file in files if file.boxes]
    without = sum(any(box.segmentation is None for box in of_image) for of_image in boxes)
    if 0 < without < len(boxes):
        warn_caller(
            f"{without} of {len(boxes)} images with boxes lack the segmentation of an object, so they have no mask: "
            "metrics use their boxes."
        )
    return ImageFiles(files)


def coco_annotations(path: Path) -> Path | None:
    """Returns the JSON file of annotations in a folder, or None if there is none."""
    preferred = path / "annotations" / "instances_val2017.json"
    others = sorted(path.glob("annotations/instances_*.json"))
    return preferred if preferred.is_file() else next(reversed(others), None)


def _image_folder(annotations: Path) -> Path:
    path = Path(without_dots(str(annotations.absolute()), Path()))
    folder = path.parent.parent / annotations.stem.removeprefix("instances_")
    return folder if folder.is_dir() else annotations.parent


def _content(annotations: Path) -> Any:
    text = read_text(annotations, "COCO annotations")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno} of " if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"Expected COCO annotations, but {where}{str(annotations)!r} is not valid JSON.") from error


@dataclass(frozen=True)
class _Entry:
    """An entry of a list in the JSON file, and its place for error messages."""

    fields: dict[str, Any]
    place: str

    def value(self, key: str, types: tuple[type, ...], expected: str) -> Any:
        found = self.fields.get(key)
        if not isinstance(found, types) or isinstance(found, bool):
            raise self.error(key, expected)
        return found

    def id(self, key: str) -> int | str:
        found: int | str = self.value(key, (int, float, str), "a number or text")
        return found

    def error(self, key: str, expected: str) -> ValueError:
        found = reprlib.repr(self.fields[key]) if key in self.fields else "nothing"
        return ValueError(f"Expected '{key}' to be {expected} in {self.place}, but got {found}.")


def _entries(content: Any, key: str, file: str) -> list[_Entry]:
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"Expected COCO annotations, but {file!r} has no list {key!r} of objects.")
    return [_Entry(entry, f"{key}[{index}] of {file!r}") for index, entry in enumerate(entries)]


def _image_files(content: Any, folder: Path, file: str) -> list[ImageFile]:
    images, categories, annotations = (_entries(content, key, file) for key in ("images", "categories", "annotations"))
    _check_unique(images)
    _check_unique(categories)
    names = {category.id("id"): str(category.id("name")) for category in categories}
    objects: dict[int | str, list[tuple[str, Box]]] = defaultdict(list)
    for annotation in annotations:
        if annotation.id("category_id") not in names:
            raise annotation.error("category_id", "the id of a category")
        objects[annotation.id("image_id")].append((names[annotation.id("category_id")], _box(annotation)))
    if objects and images and objects.keys().isdisjoint(image.id("id") for image in images):
        raise annotations[0].error("image_id", "the id of an image")
    return [_image_file(image, folder, objects[image.id("id")]) for image in images]


def _check_unique(entries: Iterable[_Entry]) -> None:
    counts = Counter(entry.id("id") for entry in entries)
    for entry in entries:
        if counts[entry.id("id")] > 1:
            raise entry.error("id", "unique")


def _image_file(image: _Entry, folder: Path, objects: list[tuple[str, Box]]) -> ImageFile:
    name = listed_name(folder, image.value("file_name", (str,), "text"))
    return ImageFile(str(folder / name), name, *largest_object(objects), _size(image))


def _size(image: _Entry) -> tuple[int, int] | None:
    """Returns an image's width and height, or None if one is missing or 0."""
    sides = [0 if image.fields.get(key) is None else image.fields[key] for key in ("width", "height")]
    for key, side in zip(("width", "height"), sides, strict=True):
        if not _is_number(side) or side < 0:
            raise image.error(key, "a number of pixels")
    return (int(sides[0]), int(sides[1])) if all(sides) else None


def _box(annotation: _Entry) -> Box:
    values = annotation.value("bbox", (list,), "x, y, width, height")
    if len(values) != 4 or not all(map(_is_number, values)) or min(values[2:]) < 0:
        raise annotation.error("bbox", "x, y, width, height in pixels, without a negative size")
    if annotation.fields.get("iscrowd") not in (None, 0, 1):
        raise annotation.error("iscrowd", "0 or 1")
    left, top, width, height = map(float, values)
    source = f"bbox {values} in {annotation.place}"
    return Box(left, top, left + width, top + height, source, _segmentation(annotation))


def _segmentation(annotation: _Entry) -> Segmentation | None:
    found = annotation.fields.get("segmentation")
    if found in (None, [], {}):
        return None
    place = f"'segmentation' of {annotation.place}"
    if isinstance(found, list):
        outlines = [_outline(each, annotation) for each in found]
        areas = tuple(outline for outline in outlines if len(outline) > 2)  # shorter ones enclose nothing
        return Polygons(areas, place) if areas else None
    if not isinstance(found, dict) or not _are_runs(found.get("counts"), found.get("size")):
        raise annotation.error("segmentation", "polygons, or run lengths 'counts' with the image's 'size'")
    height, width = found["size"]
    return Runs(found["counts"], (width, height), place)


def _outline(values: object, annotation: _Entry) -> NDArray[np.float64]:
    if not isinstance(values, list) or len(values) % 2 or not all(map(_is_number, values)):
        raise annotation.error("segmentation", "a list of polygons x1, y1, x2, y2, … in pixels")
    return np.array(values, dtype=np.float64).reshape(-1, 2)


def _are_runs(counts: object, size: object) -> bool:
    if not isinstance(size, list) or len(size) != 2 or not all(_is_whole(side, 1) for side in size):
        return False
    if isinstance(counts, str):
        return all("0" <= character <= "o" for character in counts)
    return isinstance(counts, list) and all(_is_whole(count, 0) for count in counts)


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= least


def _is_number(value: object) -> bool:
    """Checks for a number that a pixel can have, which excludes NaN and Inf."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_PIXELS

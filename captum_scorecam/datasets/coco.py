"""Detection data sets in COCO's format: images and one JSON file with their boxes."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from captum_scorecam.datasets.image_files import Box, ImageFile, ImageFiles, largest_object


def open_coco(path: Path) -> ImageFiles:
    """Opens a detection data set in COCO's format, as torchvision's CocoDetection does.

    The label of an image is the category whose boxes have the largest total area; only the boxes of that category are
    used, including crowds. An image without boxes has no label.

    Args:
        path (Path): The JSON file of annotations, or a folder that contains ``annotations/instances_val2017.json``
            or, failing that, other ``annotations/instances_*.json`` files, the last of which is used. The images of
            ``annotations/instances_NAME.json`` are in the folder ``NAME`` next to ``annotations``; otherwise, the
            images are in the same folder as the JSON file.

    Raises:
        ValueError: If there is no such data set, or the JSON file can't be read.
    """
    annotations = path if path.is_file() else coco_annotations(path)
    if annotations is None:
        raise ValueError(f"Expected annotations/instances_val2017.json in {str(path)!r}, but found none.")
    try:
        files = _image_files(json.loads(annotations.read_bytes()), _image_folder(annotations))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Expected COCO annotations, but {str(annotations)!r} can't be read: {error!r}.") from error
    if not files:
        raise ValueError(f"Expected images in {str(annotations)!r}, but found none.")
    return ImageFiles(files)


def coco_annotations(path: Path) -> Path | None:
    """Returns the JSON file of annotations in a folder, or None if there is none."""
    preferred = path / "annotations" / "instances_val2017.json"
    others = sorted(path.glob("annotations/instances_*.json"))
    return preferred if preferred.is_file() else next(reversed(others), None)


def _image_folder(annotations: Path) -> Path:
    folder = annotations.parent.parent / annotations.stem.removeprefix("instances_")
    return folder if folder.is_dir() else annotations.parent


def _image_files(content: dict[str, Any], folder: Path) -> list[ImageFile]:
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    objects: dict[int, list[tuple[str, Box]]] = defaultdict(list)
    for thing in content["annotations"]:
        left, top, width, height = map(float, thing["bbox"])
        objects[thing["image_id"]].append((names[thing["category_id"]], (left, top, left + width, top + height)))
    return [
        ImageFile(
            str(folder / image["file_name"]), image["file_name"], *largest_object(objects[image["id"]]), _size(image)
        )
        for image in content["images"]
    ]


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = int(image.get("width") or 0), int(image.get("height") or 0)
    return (width, height) if width and height else None

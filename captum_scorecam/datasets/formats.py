"""Data sets on disk: which format a path has, and who opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from captum_scorecam.datasets.coco import coco_annotations, open_coco
from captum_scorecam.datasets.csv_file import open_csv
from captum_scorecam.datasets.folders import images_below, open_class_folders, open_flat_folder
from captum_scorecam.datasets.image_files import ImageFiles
from captum_scorecam.datasets.imagenet import open_imagenet
from captum_scorecam.datasets.sample import ImageDataset
from captum_scorecam.datasets.voc import open_voc, voc_root

_OPENERS: dict[str, Callable[[Path], ImageFiles]] = {
    "folder": open_class_folders,
    "flat": open_flat_folder,
    "imagenet": open_imagenet,
    "voc": open_voc,
    "coco": open_coco,
    "csv": open_csv,
}
DATA_FORMATS = ("auto", *_OPENERS)
_LIST = "labels.csv"


def open_data(path: Path, data_format: str = "auto") -> ImageDataset:
    """Opens a data set on disk; its images are read when they are asked for.

    ============  =====================================================================================
    ``folder``    a folder of images for each class; the folder's name is the label
    ``flat``      a folder of images, without labels
    ``imagenet``  ``meta.bin`` and ``val``, as torchvision's ImageNet has them
    ``voc``       ``VOC2012`` (or another year), a folder that holds it or ``VOCdevkit``, or the list of a split
    ``coco``      the JSON file of annotations, or a folder with ``annotations/instances_val2017.json``
    ``csv``       columns ``file``, ``class_index`` or ``label``, and ``xmin, ymin, xmax, ymax`` for boxes
    ============  =====================================================================================

    Args:
        path (Path): The folder or file.
        data_format (str): One of these, or ``auto``: a file is of the format that its suffix says, a folder of the
            one whose files it holds; with ``labels.csv`` in it, that is opened. Default: "auto".

    Returns:
        ImageDataset: The data set.

    Raises:
        ValueError: If there is no such path or format, the format can't be told, there are no images, or what lists
            them is not as it should be.
        OSError: If a folder can't be listed.
    """
    if data_format not in DATA_FORMATS:
        raise ValueError(f"Expected the data format to be one of {', '.join(DATA_FORMATS)}, but got {data_format!r}.")
    if not path.exists():
        raise ValueError(f"Expected a folder or file of data, but there is no {str(path)!r}.")
    chosen = _format_of(path) if data_format == "auto" else data_format
    if path.is_file() and chosen in ("folder", "flat", "imagenet"):
        raise ValueError(f"Expected a folder for data of the format {chosen}, but {str(path)!r} is a file.")
    if path.is_dir() and chosen == "csv":
        path = path / _LIST
    return _OPENERS[chosen](path)


def _format_of(path: Path) -> str:
    if path.is_file():
        return _format_of_file(path)
    if (path / "meta.bin").is_file():
        return "imagenet"
    if voc_root(path) is not None:
        return "voc"
    if coco_annotations(path) is not None:
        return "coco"
    return "csv" if (path / _LIST).is_file() else _format_of_folder(path)


def _format_of_file(path: Path) -> str:
    formats = {".json": "coco", ".csv": "csv", ".tsv": "csv", ".txt": "voc"}
    if path.suffix.lower() not in formats:
        raise ValueError(f"Expected a folder, a CSV file or COCO's JSON file of data, but got {str(path)!r}.")
    return formats[path.suffix.lower()]


def _format_of_folder(path: Path) -> str:
    depths = {"/" in name for name in images_below(path)}
    if len(depths) == 2:
        raise ValueError(
            f"Expected images in {str(path)!r} or in folders in it, but got both: "
            "say whether its format is folder (those in folders, with labels) or flat (all, without labels)."
        )
    return "folder" if True in depths else "flat"

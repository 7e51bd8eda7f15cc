"""Opens data sets on disk by format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from captum_scorecam._messages import check_choice
from captum_scorecam.datasets.coco import coco_annotations, open_coco
from captum_scorecam.datasets.csv_file import open_csv
from captum_scorecam.datasets.folders import images_below, open_class_folders, open_flat_folder
from captum_scorecam.datasets.image_files import ImageFiles
from captum_scorecam.datasets.imagenet import open_imagenet
from captum_scorecam.datasets.sample import ImageDataset
from captum_scorecam.datasets.voc import open_voc, voc_root

DataFormat: TypeAlias = Literal["auto", "folder", "flat", "imagenet", "voc", "coco", "csv"]
DATA_FORMATS: tuple[DataFormat, ...] = get_args(DataFormat)

_OPENERS: dict[str, Callable[[Path], ImageFiles]] = {
    "folder": open_class_folders,
    "flat": open_flat_folder,
    "imagenet": open_imagenet,
    "voc": open_voc,
    "coco": open_coco,
    "csv": open_csv,
}
_LIST = "labels.csv"


def open_data(path: Path, data_format: DataFormat = "auto") -> ImageDataset:
    """Opens a data set on disk; images are read on access.

    ============  =====================================================================================
    ``folder``    one folder of images per class; the folder's name is the label
    ``flat``      a folder of images without labels
    ``imagenet``  a folder with ``meta.bin`` and ``val``, as created by torchvision's ImageNet
    ``voc``       ``VOC2012`` (or another year), a folder that contains it or ``VOCdevkit``, or a split's list
    ``coco``      the JSON file of annotations, or a folder with ``annotations/instances_val2017.json``
    ``csv``       columns ``file``, ``class_index`` or ``label``, and ``xmin, ymin, xmax, ymax`` for boxes,
                  which are edges in pixels of the upright image, counted from 0
    ============  =====================================================================================

    Args:
        path (Path): The folder or file.
        data_format (str): One of the above, or ``auto``, which detects the format from the suffix of a file or the
            contents of a folder; a ``labels.csv`` in the folder is opened as ``csv``. Default: "auto".

    Returns:
        ImageDataset: The data set.

    Raises:
        ValueError: If the path does not exist, the format is unknown or ambiguous, there are no images, an annotation
            file is malformed, or none of the first boxes can be pixels of their image. Reading an image raises it if
            its own boxes can't.
        OSError: If a folder can't be listed.
    """
    check_choice("data_format", data_format, DataFormat)
    if not path.exists():
        raise ValueError(f"Expected `path` to be a folder or file, but {str(path)!r} does not exist.")
    is_special = not path.is_file() and not path.is_dir()
    if is_special and data_format != "csv":
        raise ValueError(f"Expected `path` to be a folder or file, but {str(path)!r} is a device or a pipe.")
    chosen = _format_of(path) if data_format == "auto" else data_format
    if path.is_file() and chosen in ("folder", "flat", "imagenet"):
        raise ValueError(f"Expected `path` to be a folder for the format {chosen}, but {str(path)!r} is a file.")
    if path.is_dir() and chosen == "csv":
        path = path / _LIST
    files = _OPENERS[chosen](path)
    files.check_boxes()
    return files


def lists_folder(path: Path, data_format: DataFormat = "auto") -> bool:
    """Checks whether the data set is every image in a folder, so that none of another kind may be there."""
    chosen = _format_by_files(path) if data_format == "auto" else data_format
    return path.is_dir() and chosen in (None, "folder", "flat")


def _format_of(path: Path) -> DataFormat:
    if path.is_file():
        return _format_of_file(path)
    return _format_by_files(path) or _format_of_folder(path)


def _format_by_files(path: Path) -> DataFormat | None:
    if (path / "meta.bin").is_file():
        return "imagenet"
    if voc_root(path) is not None:
        return "voc"
    if coco_annotations(path) is not None:
        return "coco"
    return "csv" if (path / _LIST).is_file() else None


def _format_of_file(path: Path) -> DataFormat:
    formats: dict[str, DataFormat] = {".json": "coco", ".csv": "csv", ".tsv": "csv", ".txt": "voc"}
    if path.suffix.lower() not in formats:
        raise ValueError(
            f"Expected `path` to be a folder, a CSV file, a COCO JSON file or a VOC image list, but got {str(path)!r}."
        )
    return formats[path.suffix.lower()]


def _format_of_folder(path: Path) -> DataFormat:
    depths = {"/" in name for name in images_below(path)}
    if len(depths) == 2:
        raise ValueError(
            f"Expected images either in {str(path)!r} or in its subfolders, but found both. "
            "Set `data_format` to folder (only those in subfolders, with labels) or flat (all of them, without labels)."
        )
    return "folder" if True in depths else "flat"

"""Pascal VOC's detection data sets: images, each with an XML file of boxes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from captum_scorecam.datasets.image_files import Box, ImageFile, ImageFiles, largest_object

_SPLITS = ("val", "trainval", "test", "train")


def open_voc(path: Path) -> ImageFiles:
    """Opens a detection data set of Pascal VOC, laid out as for torchvision's VOCDetection.

    The label of an image is the class whose boxes have the largest total area; only the boxes of that class are used,
    including truncated and difficult objects.

    Args:
        path (Path): The list of a split, a text file in ``ImageSets/Main``; or a folder ``VOC2012`` (or another year),
            one that contains it, or one that contains ``VOCdevkit``. For a folder, the latest year is opened, and the
            first split among val, trainval, test and train.

    Raises:
        ValueError: If there is no such data set, or an annotation can't be read.
    """
    split = path if path.is_file() else _split(path)
    root = split.absolute().parent.parent.parent
    names = [line.split()[0] for line in split.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names:
        raise ValueError(f"Expected image names in {str(split)!r}, but found none.")
    return ImageFiles([_image_file(root, name) for name in names])


def voc_root(path: Path) -> Path | None:
    """Returns the folder of the latest year at or below a folder, or None."""
    years = [folder for pattern in ("VOC20*", "VOCdevkit/VOC20*") for folder in sorted(path.glob(pattern))[::-1]]
    return next((folder for folder in [path, *years] if (folder / "ImageSets" / "Main").is_dir()), None)


def _split(path: Path) -> Path:
    root = voc_root(path)
    if root is None:
        raise ValueError(f"Expected a folder VOC2012 with ImageSets/Main in {str(path)!r}, but found none.")
    splits = [root / "ImageSets" / "Main" / f"{split}.txt" for split in _SPLITS]
    found = next((split for split in splits if split.is_file()), None)
    if found is None:
        names = ", ".join(path.name for path in splits)
        raise ValueError(f"Expected one of {names} in {str(splits[0].parent)!r}, but found none.")
    return found


def _image_file(root: Path, name: str) -> ImageFile:
    annotation = root / "Annotations" / f"{name}.xml"
    try:
        tree = ElementTree.parse(annotation).getroot()
        label, boxes = largest_object([(_text(thing, "name"), _box(thing)) for thing in tree.findall("object")])
        size = (int(_text(tree, "size/width")), int(_text(tree, "size/height")))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"Expected a VOC annotation, but {str(annotation)!r} can't be read as one: {error}") from error
    file = f"{name}.jpg"
    return ImageFile(str(root / "JPEGImages" / file), file, label, boxes, size if all(size) else None)


def _box(thing: ElementTree.Element) -> Box:
    """Returns an object's box; VOC counts pixels from 1 and includes the last one."""
    left, top, right, bottom = (float(_text(thing, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
    return left - 1, top - 1, right, bottom


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"{element.tag} has no {path}")
    return text.strip()

"""Pascal VOC's detection data sets: images, each with an XML file of boxes."""

from __future__ import annotations

import reprlib
from math import nan
from pathlib import Path
from xml.etree import ElementTree

from captum_scorecam.datasets.boxes import MOST_PIXELS, Box, largest_object
from captum_scorecam.datasets.image_files import ImageFile, ImageFiles
from captum_scorecam.datasets.text_files import read_bytes, read_text

_SPLITS = ("val", "trainval", "test", "train")
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def open_voc(path: Path) -> ImageFiles:
    """Opens a detection data set of Pascal VOC, laid out as for torchvision's VOCDetection.

    The label of an image is the class whose boxes have the largest total area; only the boxes of that class are used,
    including truncated and difficult objects.

    Args:
        path (Path): The list of a split, a text file in ``ImageSets/Main``, without the images that the list of a class
            marks with −1; or a folder ``VOC2012`` (or another year), one that contains it, or one that contains
            ``VOCdevkit``. For a folder, the latest year is opened, and the first split among val, trainval, test and
            train.

    Raises:
        ValueError: If there is no such data set, or an annotation can't be read or is malformed; the message names it.
    """
    split = path if path.is_file() else _split(path)
    root = split.absolute().parent.parent.parent
    lines = [line.split() for line in read_text(split, "a list of images").splitlines() if line.strip()]
    names = [name for name, *flag in lines if flag != ["-1"]]
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
    expected = "a VOC annotation"
    content = read_bytes(annotation, expected)
    try:
        tree = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(
            f"Expected {expected}, but line {error.position[0]} of {str(annotation)!r} is not valid XML."
        ) from error
    except (LookupError, ValueError) as error:  # an unknown encoding, and one of several bytes per character
        raise ValueError(
            f"Expected {expected}, but {str(annotation)!r} declares an encoding that can't be read. Save it as UTF-8."
        ) from error
    objects = [
        _object(thing, f"object {number} of {str(annotation)!r}")
        for number, thing in enumerate(tree.findall("object"), start=1)
    ]
    width, height = (_number(tree, f"size/{side}", repr(str(annotation)), 0) for side in ("width", "height"))
    size = (int(width), int(height)) if width and height else None
    file = f"{name}.jpg"
    return ImageFile(str(root / "JPEGImages" / file), file, *largest_object(objects), size)


def _object(thing: ElementTree.Element, place: str) -> tuple[str, Box]:
    """Returns an object's class and box; VOC counts pixels from 1 and includes the last one."""
    left, top, right, bottom = (_number(thing, f"bndbox/{edge}", place) for edge in _EDGES)
    texts = [reprlib.repr(_text(thing, f"bndbox/{edge}", place))[1:-1] for edge in _EDGES]
    source = f"{', '.join(texts)} in {place}"
    if left > right or top > bottom:
        raise ValueError(f"Expected {', '.join(_EDGES)} with xmin ≤ xmax and ymin ≤ ymax, but got {source}.")
    return _text(thing, "name", place), Box(left - 1, top - 1, right, bottom, source)


def _number(element: ElementTree.Element, path: str, place: str, least: float = -MOST_PIXELS) -> float:
    text = _text(element, path, place)
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not least <= number <= MOST_PIXELS:
        raise ValueError(f"Expected {path} to be a number of pixels in {place}, but got {reprlib.repr(text)}.")
    return number


def _text(element: ElementTree.Element, path: str, place: str) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"Expected a VOC annotation with {path} in {place}, but found none.")
    return text

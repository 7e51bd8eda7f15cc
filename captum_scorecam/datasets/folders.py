"""Folders of images: one subfolder per class, or unlabelled images."""

from __future__ import annotations

import os
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from captum_scorecam.datasets.image_files import ImageFile, ImageFiles


def open_class_folders(root: Path) -> ImageFiles:
    """Opens a folder with one subfolder of images per class, like torchvision's ImageFolder.

    The label of an image is the name of the top-level subfolder that contains it, at any depth. Images directly in
    `root` are ignored.

    Raises:
        ValueError: If there are no images.
        OSError: If a folder can't be listed.
    """
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    names = [name for name in images_below(root) if "/" in name]
    _check_any(names, root, "in class folders of")
    return ImageFiles([ImageFile(str(root / name), name, label=name.split("/")[0]) for name in names], classes)


def open_flat_folder(root: Path) -> ImageFiles:
    """Opens the images in a folder and its subfolders, without labels.

    Raises:
        ValueError: If there are no images.
        OSError: If a folder can't be listed.
    """
    names = images_below(root)
    _check_any(names, root, "in")
    return ImageFiles([ImageFile(str(root / name), name) for name in names])


def images_below(root: Path) -> list[str]:
    """Lists a folder's images at any depth, as sorted paths relative to the folder.

    Hidden files and folders (whose names start with a dot) and files without an image suffix are ignored. Links are
    followed, except to a folder that contains the link.
    """
    found = []
    for folder, folders, files in os.walk(root, onerror=_raise, followlinks=True):
        real = Path(os.path.realpath(folder))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not real.is_relative_to(os.path.realpath(os.path.join(folder, name)))
        ]
        relative = Path(folder).relative_to(root)
        found += [(relative / name).as_posix() for name in files if is_image(name)]
    return sorted(found)


def is_image(path: str) -> bool:
    """Checks whether a file name has an image suffix and isn't hidden."""
    return path.lower().endswith(IMG_EXTENSIONS) and not os.path.basename(path).startswith(".")


def _raise(error: OSError) -> None:
    raise error


def _check_any(names: list[str], root: Path, where: str) -> None:
    if not names:
        suffixes = ", ".join(IMG_EXTENSIONS)
        raise ValueError(f"Expected images ({suffixes}) {where} {str(root)!r}, but found none.")

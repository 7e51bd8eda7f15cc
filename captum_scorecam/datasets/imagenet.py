"""ImageNet, as unpacked by torchvision."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets.imagenet import load_meta_file

from captum_scorecam.datasets.folders import open_class_folders
from captum_scorecam.datasets.image_files import ImageFiles


def open_imagenet(root: Path) -> ImageFiles:
    """Opens ImageNet's validation images, or the training images if there are no others.

    The label of an image is its wnid. `classes` are all wnids of ``meta.bin``, even if some have no folder.

    Args:
        root (Path): A folder with ``meta.bin`` and ``val`` or ``train``, as unpacked by torchvision's ImageNet.

    Raises:
        ValueError: If the folders or ``meta.bin`` are missing or invalid.
        OSError: If a folder can't be listed.
    """
    split = next((split for split in ("val", "train") if (root / split).is_dir()), None)
    if split is None or not (root / "meta.bin").is_file():
        raise ValueError(
            f"Expected meta.bin and val/ in {str(root)!r}. torchvision.datasets.ImageNet(root, 'val') unpacks them "
            "from ImageNet's archives. For plain class folders, set `data_format` to folder."
        )
    wnids = _wnids(root)
    files = open_class_folders(root / split).files
    known = set(wnids)
    unknown = next((file.label for file in files if file.label not in known), None)
    if unknown is not None:
        raise ValueError(
            f"Expected folders named by the wnids of meta.bin in {str(root / split)!r}, but got {unknown!r}."
        )
    return ImageFiles(files, wnids)


def _wnids(root: Path) -> list[str]:
    try:
        return sorted(load_meta_file(root)[0])
    except Exception as error:  # torch.load passes on the unpickler's and the zip reader's errors
        raise ValueError(
            f"Expected torchvision's meta.bin of ImageNet, but {str(root / 'meta.bin')!r} can't be read as one."
        ) from error

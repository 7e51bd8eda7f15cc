"""ImageNet as torchvision unpacks it."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import ImageNet
from torchvision.datasets.imagenet import load_meta_file

from captum_scorecam.datasets.folders import is_image
from captum_scorecam.datasets.image_files import ImageFile, ImageFiles


def open_imagenet(root: Path) -> ImageFiles:
    """Opens ImageNet's validation images, or else the training images, with torchvision's ImageNet.

    An image's label is its class index among the wnids of ``meta.bin``, also where folders of some are missing.

    Args:
        root (Path): A folder with ``meta.bin`` and ``val`` or ``train``, which torchvision makes of the archives.

    Raises:
        ValueError: If these are not there, or not ImageNet's.
    """
    split = next((split for split in ("val", "train") if (root / split).is_dir()), None)
    if split is None or not (root / "meta.bin").is_file():
        raise ValueError(
            f"Expected meta.bin and val/ in {str(root)!r}, which torchvision.datasets.ImageNet(root, 'val') makes "
            "of ImageNet's archives; folders of images can be opened as format folder."
        )
    try:
        wnids = sorted(load_meta_file(root)[0])
        data = ImageNet(root, split, is_valid_file=is_image, allow_empty=True)
        labels = [wnids.index(wnid) for wnid in data.wnids]
    except Exception as error:  # torch.load raises what the unpickler and the zip reader raise
        raise ValueError(f"Expected ImageNet's folders and meta.bin in {str(root)!r}, but got {error!r}.") from error
    if not data.samples:
        raise ValueError(f"Expected images in {str(root / split)!r}, but found none.")
    return ImageFiles(
        [
            ImageFile(path, Path(path).relative_to(root / split).as_posix(), labels[target])
            for path, target in data.samples
        ]
    )

"""ImageNet, as unpacked by torchvision."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import ImageNet
from torchvision.datasets.imagenet import load_meta_file

from captum_scorecam.datasets.folders import is_image
from captum_scorecam.datasets.image_files import ImageFile, ImageFiles


def open_imagenet(root: Path) -> ImageFiles:
    """Opens ImageNet's validation images, or the training images if there are no others.

    The label of an image is its class index among the wnids of ``meta.bin``, even if some classes have no folder.

    Args:
        root (Path): A folder with ``meta.bin`` and ``val`` or ``train``, as unpacked by torchvision's ImageNet.

    Raises:
        ValueError: If the folders or ``meta.bin`` are missing or invalid.
    """
    split = next((split for split in ("val", "train") if (root / split).is_dir()), None)
    if split is None or not (root / "meta.bin").is_file():
        raise ValueError(
            f"Expected meta.bin and val/ in {str(root)!r}. torchvision.datasets.ImageNet(root, 'val') unpacks them "
            "from ImageNet's archives. For plain class folders, set `data_format` to folder."
        )
    try:
        wnids = sorted(load_meta_file(root)[0])
        data = ImageNet(root, split, is_valid_file=is_image, allow_empty=True)
        labels = [wnids.index(wnid) for wnid in data.wnids]
    except Exception as error:  # torch.load passes on the unpickler's and the zip reader's errors
        raise ValueError(f"Expected ImageNet's folders and meta.bin in {str(root)!r}, but got {error!r}.") from error
    if not data.samples:
        raise ValueError(f"Expected images in {str(root / split)!r}, but found none.")
    return ImageFiles(
        [
            ImageFile(path, Path(path).relative_to(root / split).as_posix(), labels[target])
            for path, target in data.samples
        ]
    )

"""ImageNet, unpacked by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from captum_scorecam.datasets import ImageDataset, label_table, open_data, resolve_label

WNIDS = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",), "n01484850": ("great white shark",)}


def save(path: Path, size: tuple[int, int] = (6, 4), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (255, 0, 0)).save(path, **options)


def listed(data: ImageDataset) -> list[tuple[str, Any]]:
    return [(data.name(index), data.label(index)) for index in range(len(data))]


def imagenet(root: Path, split: str = "val") -> Path:
    torch.save((WNIDS, ["n01484850", "n01440764"]), root / "meta.bin")
    for name in ("n01484850/ILSVRC2012_val_00000002.JPEG", "n01440764/ILSVRC2012_val_00000001.JPEG"):
        save(root / split / name)
    return root


def test_labels_are_wnids_and_their_order_is_that_of_all_wnids(tmp_path: Path) -> None:
    save(imagenet(tmp_path) / "val" / "n01440764" / "._hidden.JPEG", format="JPEG")
    data = open_data(tmp_path)
    first, third = "n01440764/ILSVRC2012_val_00000001.JPEG", "n01484850/ILSVRC2012_val_00000002.JPEG"
    assert listed(data) == [(first, "n01440764"), (third, "n01484850")]
    assert data.classes == sorted(WNIDS)
    table = label_table(data.classes, None, 3)
    assert [resolve_label(label, None, 3, table) for _, label in listed(data)] == [0, 2]
    assert (data.has_labels, data.has_boxes) == (True, False)
    assert data[0].image.size == (6, 4)


def test_a_model_of_other_classes_has_no_class_of_a_wnid(tmp_path: Path) -> None:
    data = open_data(imagenet(tmp_path))
    for names in (None, ["background", "tench", "goldfish", "great white shark"]):
        table = label_table(data.classes, names, 4)
        with pytest.raises(ValueError, match="one of the model's 4 classes, but 'n01440764' names none"):
            resolve_label(str(data.label(0)), names, 4, table)


def test_training_images_are_used_if_there_are_no_others(tmp_path: Path) -> None:
    assert len(open_data(imagenet(tmp_path, "train"), "imagenet")) == 2


def test_archives_are_not_unpacked(tmp_path: Path) -> None:
    (imagenet(tmp_path) / "meta.bin").unlink()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        ValueError, match=r"Expected meta.bin and val/ in .*torchvision\.datasets\.ImageNet\(root, 'val'\) unpacks them"
    ):
        open_data(tmp_path, "imagenet")
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_files_raise(tmp_path: Path) -> None:
    (imagenet(tmp_path) / "meta.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Expected torchvision's meta\.bin .*meta\.bin' can't be read as one\.$"):
        open_data(tmp_path)
    torch.save([1], tmp_path / "meta.bin")
    with pytest.raises(ValueError, match=r"meta\.bin' can't be read as one\.$"):
        open_data(tmp_path)
    save(imagenet(tmp_path) / "val" / "n99999999" / "a.JPEG")
    with pytest.raises(ValueError, match=r"folders named by the wnids of meta\.bin in .*val', but got 'n99999999'"):
        open_data(tmp_path)


def test_missing_images_raise(tmp_path: Path) -> None:
    for image in imagenet(tmp_path).rglob("*.JPEG"):
        image.unlink()
    with pytest.raises(ValueError, match=r"Expected images .* in class folders of .*val', but found none"):
        open_data(tmp_path)

"""Data sets of (image, label) pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from captum_scorecam.datasets import DatasetOfPairs, ImageDataset


def pairs(*labels: object) -> list[tuple[Image.Image, object]]:
    return [(Image.new("L", (2, 2), 10 * index), label) for index, label in enumerate(labels)]


def test_pairs_become_an_image_dataset() -> None:
    data: ImageDataset = DatasetOfPairs(pairs(3, np.int64(4), torch.tensor(5), "cat"))
    assert isinstance(data, ImageDataset)
    assert [data.label(index) for index in range(4)] == [3, 4, 5, "cat"]
    assert [data.name(index) for index in range(4)] == ["0", "1", "2", "3"]
    assert (data.has_labels, data.has_boxes, data.classes) == (True, False, None)
    sample = data[2]
    assert (sample.name, sample.label, sample.region) == ("2", 5, None)
    assert (sample.image.mode, sample.image.getpixel((0, 0))) == ("RGB", (20, 20, 20))


def test_images_are_upright() -> None:
    image = Image.new("RGB", (3, 2))
    image.getexif()[0x0112] = 6
    assert DatasetOfPairs([(image, 0)])[0].image.size == (2, 3)


def test_given_labels_and_names_are_known_without_reading() -> None:
    class Unreadable:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            raise OSError

    data = DatasetOfPairs(Unreadable(), labels=[1, 0], names=["a", "b"])
    assert [(data.name(index), data.label(index)) for index in range(2)] == [("a", 1), ("b", 0)]
    assert DatasetOfPairs(pairs(0, 1), names=np.array(["a", "b"])).name(1) == "b"  # type: ignore[arg-type]


def test_given_labels_replace_those_of_the_pairs() -> None:
    images = [(Image.new("L", (2, 2), 200), label) for label in ({"annotation": 1}, 7)]
    data = DatasetOfPairs(images, labels=[3, "cat"])
    assert [data[index].label for index in range(2)] == [data.label(index) for index in range(2)] == [3, "cat"]


def test_invalid_labels_names_and_images_raise() -> None:
    with pytest.raises(ValueError, match="Expected `labels` to have 2 entries, but got 1"):
        DatasetOfPairs(pairs(0, 1), labels=[0])
    with pytest.raises(ValueError, match="Expected `names` to have 2 entries, but got 3"):
        DatasetOfPairs(pairs(0, 1), names=["a", "b", "c"])
    with pytest.raises(ValueError, match="Expected `names` to be unique, but some are equal"):
        DatasetOfPairs(pairs(0, 1), names=["a", "a"])
    with pytest.raises(TypeError, match="Expected names of images to be str, but got int"):
        DatasetOfPairs(pairs(0, 1), names=[139, 285])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"that returns PIL images, but got Tensor\. Remove its transform"):
        DatasetOfPairs([(torch.zeros(3, 2, 2), 0)])[0]
    with pytest.raises(TypeError, match="Expected labels to be class indices or strings, but got dict"):
        DatasetOfPairs(pairs({"annotation": 1}))[0]

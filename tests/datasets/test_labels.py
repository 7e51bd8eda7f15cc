"""Labels of a data set as classes of a model, and data sets of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_scorecam.datasets import DatasetOfPairs, ImageDataset, label_table, read_label_table, resolve_label

NAMES = ["tench", "Cardigan", "crane", "cardigan", "crane", "7", "Egyptian cat"]


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("tench", 0),
        ("TENCH", 0),
        (" egyptian cat ", 6),
        ("Cardigan", 1),
        ("cardigan", 3),
        ("7", 5),  # a name comes before an index
        ("4", 4),
        ("0003", 3),
        (2, 2),
        (np.int64(6), 6),
    ],
)
def test_a_label_is_a_name_or_an_index(label: str | int, index: int) -> None:
    assert resolve_label(label, NAMES, 7) == index


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("cat", "of the model's 7 classes, but 'cat' is none of their names"),
        ("", "'' is none of their names"),
        ("-1", "'-1' is none of their names"),
        ("crane", "'crane' is the name of classes 2, 4"),
        ("CARDIGAN", "'CARDIGAN' is the name of classes 1, 3"),
        (7, r"in 0\.\.6, but '7' is class 7"),
        (-1, r"in 0\.\.6, but '-1' is class -1"),
        ("12", r"in 0\.\.6, but '12' is class 12"),
    ],
)
def test_a_label_that_is_no_class_is_told(label: str | int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_label(label, NAMES, 7)


def test_without_names_only_indices_are_known() -> None:
    assert resolve_label("3", None, 5) == 3
    with pytest.raises(ValueError, match="'tench' is none of their names"):
        resolve_label("tench", None, 5)


def test_a_table_comes_first() -> None:
    table = {"n01": 2, "tench": 1, "0": 6, "far": 9}
    assert [resolve_label(label, NAMES, 7, table) for label in ("n01", "tench", 0, "cardigan")] == [2, 1, 6, 3]
    with pytest.raises(ValueError, match=r"in 0\.\.6, but 'far' is class 9"):
        resolve_label("far", NAMES, 7, table)


def test_as_many_unknown_folders_as_classes_go_by_their_order() -> None:
    folders = [f"n{index:08}" for index in range(7)]
    assert label_table(folders, NAMES, 7) == {name: index for index, name in enumerate(folders)}


@pytest.mark.parametrize(
    "folders",
    [
        None,
        [f"n{index:08}" for index in range(6)],
        [*(f"n{index:08}" for index in range(6)), "tench"],
        [*(f"n{index:08}" for index in range(6)), "3"],
    ],
)
def test_other_folders_do_not(folders: list[str] | None) -> None:
    assert label_table(folders, NAMES, 7) == {}


def test_a_table_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text("class_index,label\n3,dog\n207,golden retriever\n3,dog\n")
    assert read_label_table(path) == {"dog": 3, "golden retriever": 207}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,class_index\ndog,3\ndog,4\n", "one class for label 'dog', but got another in line 3 of 'classes.csv'"),
        ("label,class_index\ndog,three\n", "`class_index` to be a whole number from 0 in line 2 .*'three'"),
        ("label,class_index\ndog,\n", "Expected `class_index` in line 2 of 'classes.csv', but got nothing"),
        ("label\ndog\n", "Expected columns label, class_index, .* but got label"),
    ],
)
def test_a_bad_table_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_label_table(path)


def pairs(*labels: object) -> list[tuple[Image.Image, object]]:
    return [(Image.new("L", (2, 2), 10 * index), label) for index, label in enumerate(labels)]


def test_pairs_of_image_and_label_become_data() -> None:
    data: ImageDataset = DatasetOfPairs(pairs(3, np.int64(4), torch.tensor(5), "cat"))
    assert isinstance(data, ImageDataset)
    assert [data.label(index) for index in range(4)] == [3, 4, 5, "cat"]
    assert [data.name(index) for index in range(4)] == ["0", "1", "2", "3"]
    assert (data.has_labels, data.has_boxes, data.classes) == (True, False, None)
    sample = data[2]
    assert (sample.name, sample.label, sample.region) == ("2", 5, None)
    assert (sample.image.mode, sample.image.getpixel((0, 0))) == ("RGB", (20, 20, 20))


def test_an_image_of_a_pair_is_turned_upright() -> None:
    image = Image.new("RGB", (3, 2))
    image.getexif()[0x0112] = 6
    assert DatasetOfPairs([(image, 0)])[0].image.size == (2, 3)


def test_given_labels_and_names_spare_reading() -> None:
    class Unreadable:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            raise OSError

    data = DatasetOfPairs(Unreadable(), labels=[1, 0], names=["a", "b"])
    assert [(data.name(index), data.label(index)) for index in range(2)] == [("a", 1), ("b", 0)]


def test_pairs_that_are_none_are_told() -> None:
    with pytest.raises(ValueError, match="Expected 2 labels, one for each image, but got 1"):
        DatasetOfPairs(pairs(0, 1), labels=[0])
    with pytest.raises(ValueError, match="Expected 2 names, one for each image, but got 3"):
        DatasetOfPairs(pairs(0, 1), names=["a", "b", "c"])
    with pytest.raises(ValueError, match="Expected a different name for each image"):
        DatasetOfPairs(pairs(0, 1), names=["a", "a"])
    with pytest.raises(TypeError, match="Expected PIL images, of a data set without a transform, but got Tensor"):
        DatasetOfPairs([(torch.zeros(3, 2, 2), 0)])[0]
    with pytest.raises(TypeError, match="Expected labels to be class indices or texts, but got dict"):
        DatasetOfPairs(pairs({"annotation": 1}))[0]

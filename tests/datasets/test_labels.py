"""Labels of a data set as classes of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from captum_scorecam.datasets import label_table, read_label_table, resolve_label

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
        ("cat", "one of the model's 7 classes, but 'cat' names none"),
        ("", "but '' names none"),
        ("-1", "'-1' names none"),
        ("crane", "names one class, but 'crane' names classes 2, 4"),
        ("CARDIGAN", "'CARDIGAN' names classes 1, 3"),
        (7, r"in 0\.\.6, but '7' is class 7"),
        (-1, r"in 0\.\.6, but '-1' is class -1"),
        ("12", r"in 0\.\.6, but '12' is class 12"),
        ("1" * 5000, r"7 classes, but '1+\.\.\.1+' names none\.$"),
    ],
)
def test_an_unknown_or_ambiguous_label_raises(label: str | int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_label(label, NAMES, 7)


def test_without_names_only_indices_are_known() -> None:
    assert resolve_label("3", None, 5) == 3
    with pytest.raises(ValueError, match="'tench' names none"):
        resolve_label("tench", None, 5)


def test_the_table_comes_first() -> None:
    table = {"n01": 2, "tench": 1, "0": 6, "far": 9}
    assert [resolve_label(label, NAMES, 7, table) for label in ("n01", "tench", 0, "cardigan")] == [2, 1, 6, 3]
    with pytest.raises(ValueError, match=r"in 0\.\.6, but 'far' is class 9"):
        resolve_label("far", NAMES, 7, table)


def test_positions_are_indices_of_as_many_unknown_labels_as_classes() -> None:
    folders, names = [f"n{index:08}" for index in range(1000)], [f"class {index}" for index in range(1000)]
    assert label_table(folders, names, 1000) == {name: index for index, name in enumerate(folders)}


def test_positions_are_indices_for_a_model_without_names() -> None:
    assert label_table(["Dogs", "cats"], None, 2) == {"Dogs": 0, "cats": 1}


def test_numbers_are_indices_if_they_are_positions_too() -> None:
    assert label_table([str(number) for number in range(10)], None, 10) == {}
    assert label_table([f"{number:02}" for number in range(11)], None, 11) == {}
    assert label_table(["1", "10", "2"], None, 11) == {}  # of a few classes only
    assert label_table(["1", "10", "2"], ["a", "b", "c"], 3) == {}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (sorted(map(str, range(11))), "since '10' may be class 10 or, .* ImageFolder, its position"),
        (sorted(map(str, range(1, 103))), "since '10' may be class 10 or, .* ImageFolder, its position"),
    ],
)
def test_numbers_that_are_other_positions_raise(folders: list[str], message: str) -> None:
    table = label_table(folders, None, len(folders))
    with pytest.raises(ValueError, match=f"Expected `labels` for classes named by numbers, {message}"):
        resolve_label("10", None, len(folders), table)


@pytest.mark.parametrize(
    "folders",
    [
        None,
        ["Barsch", "Elster", "Hund", "Katze", "Kranich", "Strauss", "Wolf"],  # whose order is not that of the names
        [f"n{index:08}" for index in range(6)],
        [f"n{index:08}" for index in range(7)],  # of Tiny ImageNet, for example, whose models have other orders
        [*(f"n{index:08}" for index in range(6)), "tench"],
        [*(f"n{index:08}" for index in range(6)), "3"],
    ],
)
def test_there_is_no_table_for_other_labels(folders: list[str] | None) -> None:
    assert label_table(folders, NAMES, 7) == {}


def test_a_table_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text("class_index,label\n3,dog\n207,golden retriever\n3,dog\n")
    assert read_label_table(path) == {"dog": 3, "golden retriever": 207}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "label,class_index\ndog,3\ndog,4\n",
            "for label 'dog', but got a second one in line 3 of 'classes.csv'",
        ),
        ("label,class_index\ndog,three\n", "`class_index` to be a non-negative integer in line 2 .*'three'"),
        ("label,class_index\ndog,\n", "Expected `class_index` in line 2 of 'classes.csv', but got nothing"),
        ("label\ndog\n", r"Expected a column 'class_index' in .*, but got \['label'\]"),
    ],
)
def test_a_malformed_table_raises(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_label_table(path)

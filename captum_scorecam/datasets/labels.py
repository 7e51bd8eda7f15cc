"""Maps the labels of a data set to the classes of a model."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from captum_scorecam.datasets.csv_rows import read_rows
from captum_scorecam.datasets.sample import Label

_NO_TABLE: Mapping[str, int | None] = {}
_WNID = re.compile(r"n\d{8}")
_IMAGENET = 1000  # classes, in the order of their wnids


def resolve_label(
    label: Label, class_names: Sequence[str] | None, n_classes: int, table: Mapping[str, int | None] = _NO_TABLE
) -> int:
    """Returns the class index of a label.

    Args:
        label (str or int): A class index or a string. A string is looked up in `table`, then among the class names
            (first exactly, then ignoring case), and finally parsed as a decimal class index.
        class_names (sequence of str, optional): The model's class names, or None.
        n_classes (int): The model's number of classes.
        table (mapping of str to int): Class indices of labels that are not class names, or None for ambiguous numbers.
            Default: empty.

    Returns:
        int: The class index.

    Raises:
        ValueError: If no class or several classes match.
    """
    text = str(label)
    if text in table:
        index = table[text]
        if index is None:
            raise ValueError(
                f"Expected `labels` for classes named by numbers, since {text!r} may be class {text} or, as in "
                "torchvision's ImageFolder, its position in alphabetical order."
            )
        return _checked(index, text, n_classes)
    if not isinstance(label, str):
        return _checked(int(label), text, n_classes)
    matches = _classes_named(label, class_names or ())
    if len(matches) > 1:
        raise ValueError(
            f"Expected a label that names one class, but {label!r} names classes {', '.join(map(str, matches))}."
        )
    if matches:
        return matches[0]
    if label.strip().isdecimal() and len(label) < 100:
        return _checked(int(label), label, n_classes)
    shown = repr(label) if len(label) < 100 else reprlib.repr(label)
    raise ValueError(f"Expected a label that names one of the model's {n_classes} classes, but {shown} names none.")


def label_table(
    classes: Sequence[str] | None, class_names: Sequence[str] | None, n_classes: int
) -> dict[str, int | None]:
    """Returns a table for `resolve_label` that follows ImageFolder: the position of a class is its index.

    Args:
        classes (sequence of str, optional): The data set's `classes`, ordered by class index.
        class_names (sequence of str, optional): The model's class names, or None.
        n_classes (int): The model's number of classes.

    Returns:
        dict of str to int: The position of each class, if there are `n_classes` classes, `resolve_label` can resolve
        none of their names, and the model has no names or the classes are ImageNet's 1000 wnids, which have the order
        of its classes; otherwise empty, since other names in alphabetical order need not be the model's classes. None
        for each class if the model has no names, and theirs are numbers other than their positions.
    """
    if classes is None or len(classes) != n_classes:
        return {}
    if class_names is not None and not (n_classes == _IMAGENET and all(map(_WNID.fullmatch, classes))):
        return {}
    if class_names is None and all(map(str.isdecimal, classes)):
        agree = all(int(name) == index for index, name in enumerate(classes))
        return {} if agree else dict.fromkeys(classes)
    if any(_is_known(name, class_names, n_classes) for name in classes):
        return {}
    return {name: index for index, name in enumerate(classes)}


def _is_known(label: str, class_names: Sequence[str] | None, n_classes: int) -> bool:
    try:
        resolve_label(label, class_names, n_classes)
    except ValueError:
        return False
    return True


def _classes_named(label: str, class_names: Sequence[str]) -> list[int]:
    folded = label.strip().casefold()
    exact = [index for index, name in enumerate(class_names) if name == label]
    return exact or [index for index, name in enumerate(class_names) if name.casefold() == folded]


def _checked(index: int, label: str, n_classes: int) -> int:
    if not 0 <= index < n_classes:
        raise ValueError(f"Expected a label in 0..{n_classes - 1}, but {label!r} is class {index}.")
    return index


def read_label_table(path: Path) -> dict[str, int]:
    """Reads a table for `resolve_label` from a CSV file with columns ``label`` and ``class_index``.

    Raises:
        ValueError: If the file can't be read, a class index isn't a number, or a label has two different indices.
    """
    table: dict[str, int] = {}
    for row in read_rows(path, ["label", "class_index"]):
        label, index = row.text("label"), row.whole_number("class_index")
        if table.setdefault(label, index) != index:
            raise ValueError(f"Expected one class for label {label!r}, but got a second one in {row.place}.")
    return table

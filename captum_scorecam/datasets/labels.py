"""Labels of a data set as classes of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from captum_scorecam.datasets.csv_rows import read_rows
from captum_scorecam.datasets.sample import Label

_NO_TABLE: Mapping[str, int] = {}


def resolve_label(
    label: Label, class_names: Sequence[str] | None, n_classes: int, table: Mapping[str, int] = _NO_TABLE
) -> int:
    """Finds the class that a label means.

    Args:
        label (str or int): A class index; or a text, which is looked up in `table`, then among the class names,
            exactly, then in any case where one name fits, then read as a decimal class index.
        class_names (sequence of str, optional): The model's. None: it has none.
        n_classes (int): The number of the model's classes.
        table (mapping of str to int): Labels that go by no name of the model, from `label_table`. Default: empty.

    Returns:
        int: The class index.

    Raises:
        ValueError: If there is no such class, or several classes have that name.
    """
    text = str(label)
    if text in table:
        return _checked(table[text], text, n_classes)
    if not isinstance(label, str):
        return _checked(int(label), text, n_classes)
    matches = _classes_named(label, class_names or ())
    if len(matches) > 1:
        raise ValueError(
            f"Expected a label of one class, but {label!r} is the name of classes {', '.join(map(str, matches))}."
        )
    if matches:
        return matches[0]
    if label.strip().isdecimal():
        return _checked(int(label), label, n_classes)
    raise ValueError(f"Expected a label of the model's {n_classes} classes, but {label!r} is none of their names.")


def label_table(classes: Sequence[str] | None, class_names: Sequence[str] | None, n_classes: int) -> dict[str, int]:
    """Makes a table of labels for `resolve_label` by the convention of ImageFolder.

    Args:
        classes (sequence of str, optional): The data set's `classes`, in the order of their class indices.
        class_names (sequence of str, optional): The model's. None: it has none.
        n_classes (int): The number of the model's classes.

    Returns:
        dict of str to int: Each class's place, where they are as many as the model has and `resolve_label` knows
        none of them, as with the 1000 wnids of ImageNet; else empty.
    """
    if classes is None or len(classes) != n_classes:
        return {}
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
    """Reads a table for `resolve_label` from a CSV file with the columns ``label`` and ``class_index``.

    Raises:
        ValueError: If it can't be read, a class index is no number, or a label stands twice with different ones.
    """
    table: dict[str, int] = {}
    for row in read_rows(path, ["label", "class_index"]):
        label, index = row.text("label"), row.whole_number("class_index")
        if table.setdefault(label, index) != index:
            raise ValueError(f"Expected one class for label {label!r}, but got another in {row.place}.")
    return table

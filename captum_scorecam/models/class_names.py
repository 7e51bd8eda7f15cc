"""ImageNet's class names, and finding classes by name."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torchvision.models import ResNet18_Weights

from captum_scorecam._messages import closest_names


def imagenet_class_names() -> list[str]:
    """Returns the names of ImageNet's 1000 classes, by class index."""
    return list(ResNet18_Weights.DEFAULT.meta["categories"])


def listed_class_names(names: Any) -> list[str] | None:
    """Returns class names as a list, by class index.

    Args:
        names (sequence, NumPy array or dict, optional): One name per class, or a dict of class index to name, such as
            Hugging Face's ``id2label``, whose keys are 0, 1, … as int or str. None gives None.

    Raises:
        TypeError: If it is none of these.
        ValueError: If an index is missing.
    """
    if isinstance(names, np.ndarray):
        names = names.tolist()
    if names is None:
        return None
    if isinstance(names, Mapping):
        names = _by_index(names)
    if not isinstance(names, Sequence) or isinstance(names, str | bytes):
        raise TypeError(
            f"Expected class names as a list of str or a dict of class index to name, but got {type(names).__name__}."
        )
    for name in names:
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise TypeError(f"Expected class names of type str, but got {reprlib.repr(name)}.")
    return [str(name) for name in names]


def _by_index(names: Mapping[object, object]) -> list[object]:
    indices = [str(key) for key in names]
    if not all(index.isdecimal() for index in indices):
        strange = next(key for key in names if not str(key).isdecimal())
        raise TypeError(f"Expected a dict of class index to name, but got the key {reprlib.repr(strange)}.")
    by_index = {int(index): name for index, name in zip(indices, names.values(), strict=True)}
    missing = [index for index in range(len(names)) if index not in by_index]
    if missing:
        raise ValueError(f"Expected class names for 0..{len(names) - 1}, but there is none for {missing[0]}.")
    return [by_index[index] for index in range(len(names))]


def class_name(index: int, class_names: Sequence[str] | None) -> str:
    """Returns the name of a class.

    Args:
        index (int): The class index.
        class_names (sequence of str, optional): The names of all classes, or None for ``class 0``, ``class 1``, …
    """
    return f"class {index}" if class_names is None else class_names[index]


def find_class(target: str, n_classes: int, class_names: Sequence[str] | None = None) -> int:
    """Finds a class by index or name.

    Args:
        target (str): The class name, its index, or a part of the name that no other class contains, ignoring case.
            Case only matters for names that differ in nothing else ("Cardigan" the dog, "cardigan" the jacket).
        n_classes (int): The number of classes.
        class_names (sequence of str, optional): The class names. Default: None, ``class 0``, ``class 1``, …

    Returns:
        int: The class index.

    Raises:
        ValueError: If the index is out of range, or no class or several classes match.
    """
    if re.fullmatch(r"[+-]?\d{1,18}", target) and target not in (class_names or ()):
        if not 0 <= int(target) < n_classes:
            raise ValueError(f"Expected `target` in 0..{n_classes - 1}, but got {target}.")
        return int(target)
    shown = repr(target) if len(target) < 100 else reprlib.repr(target)
    names = [class_name(index, class_names) for index in range(n_classes)]
    folded = target.strip().casefold()
    for matches in (
        [index for index, name in enumerate(names) if name == target],
        [index for index, name in enumerate(names) if name.casefold() == folded],
        [index for index, name in enumerate(names) if folded and folded in name.casefold()],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = _listed(matches, names)
            raise ValueError(f"Expected `target` to name one class, but {shown} matches {len(matches)}: {listed}.")
    close = closest_names(folded, names, cutoff=0.4)
    matches = [index for index, name in enumerate(names) if name in close]
    listed = f" Closest matches: {_listed(matches, names)}." if matches else ""
    raise ValueError(f"Expected `target` to name a class, but {shown} matches none.{listed}")


def _listed(indices: list[int], names: Sequence[str]) -> str:
    shown = [f"{names[index]} ({index})" for index in indices[:6]]
    return ", ".join(shown + ["…"] * (len(indices) > 6))

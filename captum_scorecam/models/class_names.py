"""ImageNet's class names, and finding classes by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torchvision.models import ResNet18_Weights

from captum_scorecam._messages import closest_names


def imagenet_class_names() -> list[str]:
    """Returns the names of ImageNet's 1000 classes, by class index."""
    return list(ResNet18_Weights.DEFAULT.meta["categories"])


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
        target (str): The class index, name, or a part of the name that no other class contains, ignoring case. Case
            only matters for names that differ in nothing else ("Cardigan" the dog, "cardigan" the jacket).
        n_classes (int): The number of classes.
        class_names (sequence of str, optional): The class names. Default: None, ``class 0``, ``class 1``, …

    Returns:
        int: The class index.

    Raises:
        ValueError: If the index is out of range, or no class or several classes match.
    """
    if re.fullmatch(r"[+-]?\d{1,18}", target):
        if not 0 <= int(target) < n_classes:
            raise ValueError(f"Expected `target` in 0..{n_classes - 1}, but got {target}.")
        return int(target)
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
            raise ValueError(f"Expected `target` to name one class, but {target!r} matches {len(matches)}: {listed}.")
    close = closest_names(folded, names, cutoff=0.4)
    matches = [index for index, name in enumerate(names) if name in close]
    listed = f" Closest matches: {_listed(matches, names)}." if matches else ""
    raise ValueError(f"Expected `target` to name a class, but {target!r} matches none.{listed}")


def _listed(indices: list[int], names: Sequence[str]) -> str:
    shown = [f"{names[index]} ({index})" for index in indices[:6]]
    return ", ".join(shown + ["…"] * (len(indices) > 6))

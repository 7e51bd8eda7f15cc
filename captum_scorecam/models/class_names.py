"""ImageNet's class names, and classes found by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torchvision.models import ResNet18_Weights


def imagenet_class_names() -> list[str]:
    """Returns the names of ImageNet's 1000 classes, by class index."""
    return list(ResNet18_Weights.DEFAULT.meta["categories"])


def class_name(index: int, class_names: Sequence[str] | None) -> str:
    """Returns the name of a class.

    Args:
        index (int): The class.
        class_names (sequence of str, optional): The names of all classes; None for ``class 0``, ``class 1``, …
    """
    return f"class {index}" if class_names is None else class_names[index]


def find_class(target: str, n_classes: int, class_names: Sequence[str] | None = None) -> int:
    """Finds a class by index or name.

    Args:
        target (str): Its index, its name, or a part of its name that no other class has, ignoring case. Case matters
            where two names differ in nothing else ("Cardigan" the dog, "cardigan" the jacket).
        n_classes (int): The number of classes.
        class_names (sequence of str, optional): Their names. Default: None, ``class 0``, ``class 1``, …

    Returns:
        int: The class's index.

    Raises:
        ValueError: If the index is out of range, or no class matches, or more than one does.
    """
    if target.lstrip("+-").isdecimal():
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
    close = difflib.get_close_matches(folded, [name.casefold() for name in names], n=5, cutoff=0.4)
    matches = [index for index, name in enumerate(names) if name.casefold() in close]
    raise ValueError(
        f"Expected `target` to name a class, but {target!r} matches none. Nearest: {_listed(matches, names)}."
    )


def _listed(indices: list[int], names: Sequence[str]) -> str:
    shown = [f"{names[index]} ({index})" for index in indices[:6]]
    return ", ".join(shown + ["…"] * (len(indices) > 6)) or "none"

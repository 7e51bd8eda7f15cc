"""Registries of methods and metrics by name: adding an entry and checking names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from captum_scorecam._messages import closest_matches

Item = TypeVar("Item")

NAME = re.compile(r"\w+", re.ASCII)


def register(registry: dict[str, Item], name: str, item: Item, kind: Literal["method", "metric"]) -> None:
    """Adds an item to a registry. Adding the same item again has no effect.

    Args:
        registry (dict of str to item): The registry.
        name (str): Letters, digits and underscores; used in records and file names.
        item: The item.
        kind (str): ``method`` or ``metric``, for error messages.

    Raises:
        ValueError: If the name has other characters or belongs to another item.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"Expected the name of a {kind} to be letters, digits and underscores, but got {name!r}.")
    if registry.setdefault(name, item) is not item:
        raise ValueError(f"Expected a new name for a {kind}, but {name!r} is taken.")


def check_names(registry: Mapping[str, object], names: Iterable[str], parameter: str) -> tuple[str, ...]:
    """Returns names without duplicates.

    Args:
        registry (mapping of str): The registry.
        names (iterable of str): The names to check.
        parameter (str): The parameter's name, for error messages.

    Raises:
        ValueError: If a name is not in the registry.
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in registry:
            raise ValueError(
                f"Expected each of `{parameter}` to be one of {', '.join(registry)}, but got {name!r}."
                f"{closest_matches(name, registry)}"
            )
    return chosen

"""Registries of methods and metrics by name: how one is added, and how a choice of names is checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

Item = TypeVar("Item")


def register(registry: dict[str, Item], name: str, item: Item, kind: str) -> None:
    """Adds an item to a registry. Adding the same item again changes nothing.

    Args:
        registry (dict of str to item): The registry.
        name (str): Letters, digits and underscores; records and file names contain it.
        item: The item.
        kind (str): What it is, for messages.

    Raises:
        ValueError: If the name has other characters, or another item has it.
    """
    if not re.fullmatch(r"\w+", name, re.ASCII):
        raise ValueError(f"Expected the name of a {kind} to be letters, digits and underscores, but got {name!r}.")
    if registry.setdefault(name, item) is not item:
        raise ValueError(f"Expected a new name for a {kind}, but {name!r} is taken.")


def check_names(registry: Mapping[str, object], names: Iterable[str], parameter: str) -> tuple[str, ...]:
    """Returns names without duplicates.

    Args:
        registry (mapping of str): The registry that the names are from.
        names (iterable of str): The names.
        parameter (str): The parameter that they were given to, for messages.

    Raises:
        ValueError: If a name is not in the registry.
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in registry:
            raise ValueError(f"Expected each of `{parameter}` to be one of {', '.join(registry)}, but got {name!r}.")
    return chosen

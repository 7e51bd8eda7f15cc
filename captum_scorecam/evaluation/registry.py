"""Methods and measures have names: how one is added, and how a choice of them is checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

Item = TypeVar("Item")


def register(registry: dict[str, Item], name: str, item: Item, kind: str) -> None:
    """Adds an item; adding it again changes nothing.

    Args:
        registry (dict of str to item): What it is added to.
        name (str): Letters, digits and underscores; it stands in records and in the names of files.
        item: What is added.
        kind (str): What it is, for the messages.

    Raises:
        ValueError: If the name is of another form, or another item has it.
    """
    if not re.fullmatch(r"\w+", name, re.ASCII):
        raise ValueError(f"Expected a {kind}'s name of letters, digits and underscores, but got {name!r}.")
    if registry.setdefault(name, item) is not item:
        raise ValueError(f"Expected a new name for a {kind}, but {name!r} is taken.")


def check_names(registry: Mapping[str, object], names: Iterable[str], option: str) -> tuple[str, ...]:
    """Returns the names, each once.

    Args:
        registry (mapping of str): What they are names of.
        names (iterable of str): The names.
        option (str): Where they come from, for the message.

    Raises:
        ValueError: If a name is not in the registry.
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in registry:
            raise ValueError(f"Expected `{option}` to be one of {', '.join(registry)}, but got {name!r}.")
    return chosen

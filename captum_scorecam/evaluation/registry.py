"""Registries of methods and metrics by name: adding an entry and checking names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal, Protocol, TypeVar

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


class Chosen(Protocol):
    """A method or metric under a name, with the text of its options."""

    @property
    def name(self) -> str:
        """The name in records and tables."""

    @property
    def text(self) -> str | None:
        """The options, as on the command line."""


ChosenItem = TypeVar("ChosenItem", bound=Chosen)


def by_name(chosen: Iterable[ChosenItem], parameter: str) -> dict[str, ChosenItem]:
    """Returns methods or metrics by name, without duplicates.

    Raises:
        ValueError: If two of one name have different options.
    """
    found: dict[str, ChosenItem] = {}
    for each in chosen:
        if found.setdefault(each.name, each).text != each.text:
            raise ValueError(
                f"Expected a name for each of several `{parameter}` {each.name}, as in NAME={each.text}, but "
                f"{each.name!r} is used twice."
            )
    return found


def check_name(known: Collection[str], name: str, parameter: str) -> None:
    """Raises ValueError if one of the names that `parameter` lists is unknown. The message has near misses."""
    if name not in known:
        raise ValueError(
            f"Expected each of `{parameter}` to be one of {', '.join(known)}, but got {name!r}."
            f"{closest_matches(name, known)}"
        )

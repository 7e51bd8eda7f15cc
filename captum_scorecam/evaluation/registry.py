"""Registries of methods and metrics by name: adding an entry and checking names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal, Protocol, TypeAlias, TypeVar

from captum_scorecam._messages import closest_names

Item = TypeVar("Item")
Kind: TypeAlias = Literal["method", "metric"]

NAME = re.compile(r"\w+", re.ASCII)
MAP = "map"  # in records, the part of the work that is the map's; the other parts are metrics


def check_name(name: str, kind: Kind) -> None:
    """Raises ValueError if a name can't be that of a method or metric."""
    if not NAME.fullmatch(name):
        raise ValueError(f"Expected the name of a {kind} to be letters, digits and underscores, but got {name!r}.")
    if kind == "metric" and name == MAP:
        raise ValueError(f"Expected a name for a metric that records do not use for the map itself, but got {name!r}.")


def register(registry: dict[str, Item], name: str, item: Item, kind: Kind) -> None:
    """Adds an item to a registry. Adding the same item again has no effect.

    Args:
        registry (dict of str to item): The registry.
        name (str): Letters, digits and underscores; used in records and file names.
        item: The item.
        kind (str): ``method`` or ``metric``, for error messages.

    Raises:
        ValueError: If the name has other characters, belongs to another item, or is ``map`` for a metric.
    """
    check_name(name, kind)
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


def unknown_base(
    text: str, known: Collection[str], package: str, classes: Collection[str], parameter: str
) -> ValueError:
    """Returns the error for a text of `parameter` that begins with no known name, with near misses.

    Args:
        text (str): ``BASE[:OPTION=VALUE,…]`` or ``BASE:CLASS[:OPTION=VALUE,…]``.
        known (collection of str): The names.
        package (str): Its classes, as ``PACKAGE:CLASS``, are known, too.
        classes (collection of str): Those classes.
        parameter (str): The parameter.
    """
    base, second, *_ = (*text.split(":"), "")
    closest = closest_names(base, known)
    closest += [f"{package}:{name}" for word in (base, second) for name in closest_names(word, classes)]
    if not closest and closest_names(base, [package]):
        closest = [f"{package}:CLASS"]
    return ValueError(
        f"Expected each of `{parameter}` to be one of {', '.join(known)}, {package}:CLASS, but got {base!r}."
        + (f" Closest matches: {', '.join(closest)}." if closest else "")
    )

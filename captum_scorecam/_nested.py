"""Values in lists and dictionaries of any class, tuples, and whatever else PyTorch's pytrees hold."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable
from typing import Any

from torch.utils._pytree import tree_leaves, tree_map


def opened(value: Any) -> Any:
    """Returns nested containers with a plain one for each that PyTorch doesn't know, such as Hugging Face's batches."""

    def of_leaf(leaf: Any) -> Any:
        if isinstance(leaf, UserDict | dict):
            return opened(dict(leaf))
        return opened([*leaf]) if isinstance(leaf, list) else leaf

    return tree_map(of_leaf, value)


def leaves(value: Any) -> list[Any]:
    """Returns the values in nested containers, or the value itself."""
    return tree_leaves(opened(value))


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Returns new containers of the same types with a function of each value; those that can't be copied unchanged."""

    def of_leaf(leaf: Any) -> Any:
        if not isinstance(leaf, UserDict | dict | list):
            return function(leaf)
        keys = range(len(leaf)) if isinstance(leaf, list) else [*leaf]
        values = {key: mapped(function, leaf[key]) for key in keys}
        try:
            copied = copy.copy(leaf)
            for key, value in values.items():
                copied[key] = value
        except Exception:  # of a class of the user's, which may refuse either
            return leaf
        return copied

    return tree_map(of_leaf, value)

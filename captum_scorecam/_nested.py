"""Values in lists, tuples, dictionaries and whatever else PyTorch's pytrees or `UserDict` hold."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable
from typing import Any

from torch.utils._pytree import tree_leaves, tree_map


def opened(value: Any) -> Any:
    """Returns nested containers with a dictionary for each `UserDict`, as which Hugging Face's batches come."""
    return tree_map(lambda leaf: opened(leaf.data) if isinstance(leaf, UserDict) else leaf, value)


def leaves(value: Any) -> list[Any]:
    """Returns the values in nested containers, or the value itself."""
    return tree_leaves(opened(value))


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Returns new containers of the same types with a function of each value."""

    def of_leaf(leaf: Any) -> Any:
        if not isinstance(leaf, UserDict):
            return function(leaf)
        copied = copy.copy(leaf)
        copied.data = mapped(function, leaf.data)
        return copied

    return tree_map(of_leaf, value)

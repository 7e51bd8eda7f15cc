"""The tensor of scores in a model's output, and descriptions of outputs that have none, for error messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

_MOST_PARTS, _MOST_LEVELS = 10, 3


def tensor_or_logits(output: Any) -> Tensor | None:
    """Returns an output that is a tensor, or its ``logits`` (Hugging Face); None if it is and has neither."""
    return next((scores for scores in (output, getattr(output, "logits", None)) if isinstance(scores, Tensor)), None)


def output_type(output: Any) -> str:
    """Returns the type of an output, and that of its `logits` if they are no tensor."""
    kind = type(output).__name__
    return f"{kind}, whose `logits` are of type {type(output.logits).__name__}" if hasattr(output, "logits") else kind


def parts_of_output(output: Any) -> list[tuple[str, str]]:
    """Returns the tensors and NumPy arrays in an output, at most ten: a description and a `score` that reads each.

    They are looked for in mappings, sequences and the fields of objects, three levels deep.
    """
    if isinstance(output, np.ndarray):
        return [(f"an array of shape {output.shape}", "torch.from_numpy")]
    return list(islice(_inside(output, "", "output", _MOST_LEVELS), _MOST_PARTS))


def _inside(value: Any, place: str, read: str, levels: int) -> Iterator[tuple[str, str]]:
    for name, part, access in _children(value):
        part_place, part_read = f"{place}{name}, ", read + access
        if isinstance(part, Tensor | np.ndarray):
            converted = part_read if isinstance(part, Tensor) else f"torch.from_numpy({part_read})"
            yield f"{part_place}of shape {tuple(part.shape)}", f"lambda output: {converted}"
        elif levels > 1:
            yield from _inside(part, part_place, part_read, levels - 1)


def _children(value: Any) -> Iterator[tuple[str, Any, str]]:
    """Yields the name and value of each part, and the Python code that reads it."""
    if isinstance(value, tuple | list):
        yield from ((f"item {i}", part, f"[{i}]") for i, part in enumerate(value))
    elif isinstance(value, Mapping):
        yield from ((f"key {key!r}", part, f"[{key!r}]") for key, part in value.items() if isinstance(key, str | int))
    else:
        yield from ((name, part, f".{name}") for name, part in _fields(value))


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    slots = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
    names = [name for of_kind in slots for name in ([of_kind] if isinstance(of_kind, str) else of_kind)]
    for name in dict.fromkeys([*getattr(value, "__dict__", ()), *names]):
        if not name.startswith("_") and hasattr(value, name):
            yield name, getattr(value, name)

"""The scores of two examples in a model's output, whatever its form, and how far two such pairs differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

Rows: TypeAlias = tuple[Tensor, ...]


def scores_of_examples(output: Any) -> Rows:
    """The scores of the two examples: of the logits, of a list with one entry per example, or of the first tensor."""
    if isinstance(output, (list, tuple)) and len(output) == 2 and all(isinstance(row, Mapping) for row in output):
        first, second = (torch.cat([leaf.flatten() for leaf in _leaves(row)]) for row in output)
        return first, second
    leaf = next((leaf for leaf in _leaves(output) if leaf.dim() and len(leaf) == 2), None)
    if leaf is None:
        raise ValueError(
            "Expected `model` to return a tensor with one row per example, or an object with `logits`, but got "
            f"{type(output).__name__}."
        )
    return leaf[0], leaf[1]


def distance(found: Rows, expected: Rows) -> float:
    """The largest difference between two pairs of scores; infinite if their shapes differ."""
    pairs = list(zip(found, expected, strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max(float((a - b).nan_to_num().abs().max()) if a.numel() else 0.0 for a, b in pairs)


def scores_shape(output: Any) -> tuple[int, ...]:
    """The shape of the logits or of the first tensor."""
    leaves = _leaves(output)
    return tuple(leaves[0].shape) if leaves else ()


def float_values(value: Tensor) -> Tensor:
    """The values in float32, or float64 for float64."""
    values = value.dequantize() if value.is_quantized else value
    return values if values.dtype == torch.float64 else values.float()


def _leaves(output: Any) -> list[Tensor]:
    logits = getattr(output, "logits", None)
    values = [logits] if isinstance(logits, Tensor) else tree_flatten(output)[0]
    inside = [field for value in values for field in ([value] if isinstance(value, Tensor) else _fields(value))]
    return [float_values(value) for value in inside if isinstance(value, Tensor)]


def _fields(value: Any) -> list[Any]:
    return list(vars(value).values()) if hasattr(value, "__dict__") else []

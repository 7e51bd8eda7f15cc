"""The scores of two examples in a model's output, whatever its form, and how far two such pairs differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from captum_scorecam.scoring.class_scores import Score, ScoreFunction, score_function

Rows: TypeAlias = tuple[Tensor, ...]
_MOST_LEVELS = 3  # of objects in an output


def reader_of_scores(output: Any, score: Score | None) -> Callable[[Any], Tensor]:
    """Returns a function that reads what the scores of two examples depend on, from outputs like `output`.

    This is the tensor with the logits, or the first one; if `score` is a callable, the tensors that it reads. They
    tell more than the score, which may be one number, or 0 for noise.

    Raises:
        TypeError, ValueError: If a named `score` cannot be read.
    """
    if callable(score):
        return _reader_of(score, output)
    if score is not None and not isinstance(output, Tensor):
        score_function(score)(output)
    return _first_tensor


def scores_of_examples(output: Any, read: Callable[[Any], Tensor]) -> Rows:
    """The scores of the two examples: of a list with one entry per example, or as `read`."""
    if isinstance(output, list) and len(output) == 2 and all(isinstance(row, Mapping) for row in output):
        first, second = (torch.cat([tensor.flatten() for tensor in _logits_or_tensors(row)]) for row in output)
        return first, second
    found = read(output)
    return found[0], found[1]


def distance(found: Rows, expected: Rows) -> float:
    """The largest difference between two pairs of scores; infinite if their shapes differ."""
    pairs = list(zip(found, expected, strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max(float((a - b).nan_to_num().abs().max()) if a.numel() else 0.0 for a, b in pairs)


def float_values(value: Tensor) -> Tensor:
    """The values in float32, or float64 for float64."""
    values = value.dequantize() if value.is_quantized else value
    return values if values.dtype == torch.float64 else values.float()


def _first_tensor(output: Any) -> Tensor:
    tensor = next((tensor for tensor in _logits_or_tensors(output) if tensor.dim() and len(tensor) == 2), None)
    if tensor is None:
        raise ValueError(
            "Expected `model` to return a tensor with one row per example, or an object with `logits`, but got "
            f"{type(output).__name__}."
        )
    return tensor


def _logits_or_tensors(output: Any) -> list[Tensor]:
    logits = getattr(output, "logits", None)
    return [float_values(x) for x in ([logits] if isinstance(logits, Tensor) else _tensors(output, _MOST_LEVELS))]


def _tensors(value: Any, levels: int) -> Iterator[Tensor]:
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif levels:
            yield from _tensors(list(getattr(leaf, "__dict__", {}).values()), levels - 1)


def _reader_of(score: ScoreFunction, output: Any) -> Callable[[Any], Tensor]:
    tensors = list(_tensors(output, _MOST_LEVELS))
    with_rows = [i for i, x in enumerate(tensors) if x.dim() and len(x) == 2 and x.is_floating_point()]
    differ, read = False, []
    try:
        found = score(output)
        differ = len(found) == 2 and _difference(found) > 0
        read = [i for i in with_rows if distance((_score_of_swapped(tensors[i], score, output),), (found,)) > 0]
    except Exception:  # a score may fail on noise; if it always does, the attribution says so
        differ = False
    if differ and not read:
        return lambda output: float_values(score(output))  # of arrays, or of an object that hides its tensors
    chosen = read or with_rows
    scales = {i: _difference(float_values(tensors[i])) or 1.0 for i in chosen}
    return partial(_joined, scales) if chosen else _first_tensor


def _score_of_swapped(tensor: Tensor, score: ScoreFunction, output: Any) -> Tensor:
    """The score of an output in which the rows of one of its tensors are swapped."""
    values = tensor.data
    tensor.data = values.flip(0)
    try:
        return score(output)
    finally:
        tensor.data = values


def _difference(rows: Tensor) -> float:
    return distance((rows[0],), (rows[1],))


def _joined(scales: dict[int, float], output: Any) -> Tensor:
    """The tensors with these indices; several are joined, each scaled by what its rows differed by."""
    tensors = list(_tensors(output, _MOST_LEVELS))
    values = [float_values(tensors[i]) for i in scales]
    if len(values) == 1:
        return values[0]
    return torch.cat([(x / scale).flatten(1) for x, scale in zip(values, scales.values(), strict=True)], dim=1)

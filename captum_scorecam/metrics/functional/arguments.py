"""Checks of metrics' arguments, before any work: what was expected, and what was given."""

from __future__ import annotations

from torch import Tensor

from captum_scorecam._captum import Tensors
from captum_scorecam._messages import check_dense, type_of


def check_tensor(name: str, value: object, shape: str) -> None:
    """Raises TypeError if an argument is no dense floating-point tensor; `shape` is expected, for the message."""
    if not isinstance(value, Tensor):
        raise TypeError(f"Expected `{name}` to be a tensor {shape}, but got {type_of(value)}.")
    if not value.is_floating_point():
        raise TypeError(f"Expected `{name}` to be a floating-point tensor {shape}, but got {value.dtype}.")
    check_dense(name, value)


def as_tensors(name: str, value: object) -> Tensors:
    """Returns a tensor, or a tuple of tensors, as a tuple.

    Raises:
        TypeError: If `value` is neither, or an empty tuple, or a tensor is not dense.
    """
    values = value if isinstance(value, tuple) else (value,)
    others = [part for part in values if not isinstance(part, Tensor)]
    if others or not values:
        got = f"a tuple with {type_of(others[0])}" if others and isinstance(value, tuple) else type_of(value)
        raise TypeError(f"Expected `{name}` to be a tensor or a tuple of tensors, but got {got}.")
    for part in values:
        check_dense(name, part)
    return values

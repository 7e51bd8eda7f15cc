"""Checks of metrics' arguments, before any work: what was expected, and what was given."""

from __future__ import annotations

from torch import Tensor

from captum_scorecam._messages import check_dense, type_of


def check_tensor(name: str, value: object, shape: str) -> None:
    """Raises TypeError if an argument is not a dense floating-point tensor; `shape` is expected, for the message."""
    if not isinstance(value, Tensor):
        raise TypeError(f"Expected `{name}` to be a tensor {shape}, but got {type_of(value)}.")
    if not value.is_floating_point():
        raise TypeError(f"Expected `{name}` to be a floating-point tensor {shape}, but got {value.dtype}.")
    check_dense(name, value)

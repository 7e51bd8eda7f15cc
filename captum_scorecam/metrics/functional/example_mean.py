"""What every measure ends with: the mean of one value per example."""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("mean", "none")


def _mean_update(values: Tensor) -> tuple[Tensor, Tensor]:
    """The sum (in float64, so that the order of batches hardly matters) and the number of some examples' values."""
    return values.double().sum(), torch.tensor(values.numel(), device=values.device)


def _mean_compute(total: Tensor, count: Tensor) -> Tensor:
    """The mean, float32.

    Raises:
        ValueError: If there was no example.
    """
    if count == 0:
        raise ValueError("Expected at least one example, but got none.")
    return (total / count).float()


def reduced(values: Tensor, reduction: str) -> Tensor:
    """The mean of the examples' values, or the values (``"none"``), float32.

    Raises:
        ValueError: If `reduction` is neither, or there is no example.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"Expected `reduction` to be {' or '.join(map(repr, REDUCTIONS))}, but got {reduction!r}.")
    return values.float() if reduction == "none" else _mean_compute(*_mean_update(values))

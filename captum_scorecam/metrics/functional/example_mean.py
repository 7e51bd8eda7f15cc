"""Reduces one value per example to the mean, the last step of every metric."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_scorecam._messages import check_choice

Reduction: TypeAlias = Literal["mean", "none"]


def reduce_examples(values: Tensor, reduction: Reduction) -> Tensor:
    """Returns the mean over the examples, or the values for ``"none"``; float32.

    Raises:
        ValueError: If `reduction` is unknown, or there are no examples.
    """
    check_choice("reduction", reduction, Reduction)
    return values.float() if reduction == "none" else _mean_compute(*_mean_update(values))


def _mean_update(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the sum over the examples and their number; float64, so that the order of batches hardly matters."""
    return values.double().sum(0), torch.tensor(len(values), device=values.device)


def _mean_compute(total: Tensor, count: Tensor) -> Tensor:
    """Returns the mean, float32.

    Raises:
        ValueError: If there are no examples.
    """
    if count == 0:
        raise ValueError("Expected at least one example, but got none.")
    return (total / count).float()

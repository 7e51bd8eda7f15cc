"""What the metric classes have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from captum_scorecam.metrics.functional.example_mean import _mean_compute, _mean_update


class ExampleMean(Metric):
    """The mean of one value per example, over all batches and processes; a subclass's ``update`` gives the values.

    Args:
        measured (str): What is measured, with the options that matter, as a part of the states' names. A
            ``MetricCollection`` takes metrics whose states have equal names and, by chance, equal values for the same.
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, measured: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._total = f"{measured}_total"
        self._count = f"{measured}_count"
        self.add_state(self._total, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state(self._count, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The mean over all examples so far, float32.

        Raises:
            ValueError: If there was none.
        """
        return _mean_compute(getattr(self, self._total), getattr(self, self._count))

    def _add(self, values: Tensor) -> None:
        for name, increment in zip((self._total, self._count), _mean_update(values), strict=True):
            state = getattr(self, name)
            setattr(self, name, state + increment.to(state.device))

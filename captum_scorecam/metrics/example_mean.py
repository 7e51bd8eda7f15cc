"""The base class of all metrics: the mean of one value per example, or of several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from captum_scorecam.metrics.functional.example_mean import _mean_compute, _mean_update


class ExampleMean(Metric):
    """The mean of one value per example over all batches and processes; subclasses add values in ``update``.

    Attributes:
        state_name (str): Prefix of the state names, unique for each metric and its options: a ``MetricCollection``
            merges metrics whose states have the same names and the same initial values.
        shape (tuple of int): The shape of an example's values. Default: ``()``, one value.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    state_name: str
    shape: tuple[int, ...] = ()
    is_differentiable = False
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._total = f"{self.state_name}_total"
        self._count = f"{self.state_name}_count"
        self.add_state(self._total, torch.zeros(self.shape, dtype=torch.float64, device="cpu"), dist_reduce_fx="sum")
        self.add_state(self._count, torch.zeros((), dtype=torch.long, device="cpu"), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """Returns the mean over all examples so far, float32.

        Raises:
            ValueError: If there are no examples.
        """
        return _mean_compute(getattr(self, self._total), getattr(self, self._count))

    def _add(self, values: Tensor) -> None:
        for name, increment in zip((self._total, self._count), _mean_update(values), strict=True):
            state = getattr(self, name)
            setattr(self, name, state + increment.to(state.device))

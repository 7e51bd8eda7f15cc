"""Average drop, average increase and average gain as ``torchmetrics.Metric`` classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_scorecam._messages import check_flags
from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.average_drop import (
    _average_drop_update,
    _average_gain_update,
    _average_increase_update,
)


class AverageDrop(ExampleMean):
    """Average drop in percent: see :func:`~captum_scorecam.metrics.functional.average_drop`.

    Args:
        relative (bool): Whether to divide the drop by the original score. Default: True.
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics import AverageDrop
        >>> metric = AverageDrop()
        >>> metric.update(torch.tensor([0.8]), torch.tensor([0.2]))
        >>> metric.update(torch.tensor([0.5]), torch.tensor([0.6]))
        >>> metric.compute()
        tensor(37.5000)
    """

    higher_is_better = False

    def __init__(self, relative: bool = True, **kwargs: Any) -> None:
        check_flags(relative=relative)
        self.state_name = "relative_drop" if relative else "absolute_drop"
        super().__init__(**kwargs)
        self.relative = relative

    def update(self, original_scores: Tensor, masked_scores: Tensor) -> None:
        """Adds a batch of scores, as returned by :func:`~captum_scorecam.metrics.functional.masked_input_scores`.

        Args:
            original_scores (Tensor): Y, shape N: the class scores of the inputs.
            masked_scores (Tensor): O, shape N: the class scores of the inputs masked with their attributions.
        """
        self._add(_average_drop_update(original_scores, masked_scores, self.relative))


class AverageIncrease(ExampleMean):
    """Average increase in percent: see :func:`~captum_scorecam.metrics.functional.average_increase`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = True
    state_name = "increase"

    def update(self, original_scores: Tensor, masked_scores: Tensor) -> None:
        """Adds a batch of scores, as :meth:`~captum_scorecam.metrics.AverageDrop.update` does."""
        self._add(_average_increase_update(original_scores, masked_scores))


class AverageGain(ExampleMean):
    """Average gain in percent: see :func:`~captum_scorecam.metrics.functional.average_gain`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = True
    state_name = "gain"

    def update(self, original_scores: Tensor, masked_scores: Tensor) -> None:
        """Adds a batch of probabilities, as :meth:`~captum_scorecam.metrics.AverageDrop.update` does."""
        self._add(_average_gain_update(original_scores, masked_scores))

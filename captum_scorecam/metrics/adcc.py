"""Coherency, complexity and ADCC as ``torchmetrics.Metric`` classes."""

from __future__ import annotations

from torch import Tensor

from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.adcc import _adcc_update, _coherency_update, _l1_complexity_update


class Coherency(ExampleMean):
    """Coherency: see :func:`~captum_scorecam.metrics.functional.coherency`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = True
    state_name = "coherency"

    def update(self, attributions: Tensor, masked_attributions: Tensor) -> None:
        """Adds a batch of attributions.

        Args:
            attributions (Tensor): The maps, N×C×spatial, summed over the channels.
            masked_attributions (Tensor): The maps of the inputs that are masked with `attributions`.
        """
        self._add(_coherency_update(attributions, masked_attributions))


class L1Complexity(ExampleMean):
    """The complexity of ADCC: see :func:`~captum_scorecam.metrics.functional.l1_complexity`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = False
    state_name = "l1_complexity"

    def update(self, attributions: Tensor) -> None:
        """Adds a batch of attributions, N×C×spatial, summed over the channels."""
        self._add(_l1_complexity_update(attributions))


class ADCC(ExampleMean):
    """Average drop, coherency and complexity: see :func:`~captum_scorecam.metrics.functional.adcc`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics import ADCC
        >>> metric = ADCC()
        >>> metric.update(torch.tensor([50.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.0]))
        >>> metric.compute()
        tensor(0.8000)
    """

    higher_is_better = True
    state_name = "adcc"

    def update(self, drops: Tensor, coherencies: Tensor, complexities: Tensor) -> None:
        """Adds a batch of values, one per example.

        Args:
            drops (Tensor): Drops in percent, in [0, 100].
            coherencies (Tensor): In [0, 1].
            complexities (Tensor): In [0, 1].
        """
        self._add(_adcc_update(drops, coherencies, complexities))

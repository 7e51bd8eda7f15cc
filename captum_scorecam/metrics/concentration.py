"""Sparseness and complexity as ``torchmetrics.Metric`` classes."""

from __future__ import annotations

from torch import Tensor

from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.concentration import _complexity_update, _sparseness_update


class Sparseness(ExampleMean):
    """Gini index: see :func:`~captum_scorecam.metrics.functional.sparseness`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = True
    state_name = "sparseness"

    def update(self, attributions: Tensor) -> None:
        """Adds a batch of attributions.

        Args:
            attributions (Tensor): N×C×spatial, summed over the channels.
        """
        self._add(_sparseness_update(attributions))


class Complexity(ExampleMean):
    """Entropy: see :func:`~captum_scorecam.metrics.functional.complexity`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = False
    state_name = "entropy"

    def update(self, attributions: Tensor) -> None:
        """Adds a batch of attributions, as :meth:`~captum_scorecam.metrics.Sparseness.update` does."""
        self._add(_complexity_update(attributions))

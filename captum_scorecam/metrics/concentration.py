"""Sparseness and complexity as ``torchmetrics.Metric`` classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.concentration import _complexity_update, _sparseness_update


class Sparseness(ExampleMean):
    """Gini index: see :func:`~captum_scorecam.metrics.functional.sparseness`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sparseness", **kwargs)

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

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("entropy", **kwargs)

    def update(self, attributions: Tensor) -> None:
        """Adds a batch of attributions, as :meth:`~captum_scorecam.metrics.Sparseness.update` does."""
        self._add(_complexity_update(attributions))

"""Relevance mass and rank accuracy and intersection over union as ``torchmetrics.Metric`` classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from captum_scorecam._messages import check_fraction
from captum_scorecam.metrics.energy_pointing_game import EnergyPointingGame
from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.localization import _iou_update, _relevance_rank_update


class RelevanceMass(EnergyPointingGame):
    """Relevance mass accuracy: see :func:`~captum_scorecam.metrics.functional.relevance_mass`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """


class RelevanceRank(ExampleMean):
    """Relevance rank accuracy: see :func:`~captum_scorecam.metrics.functional.relevance_rank`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("relevance_rank", **kwargs)

    def update(self, attributions: Tensor, regions: Tensor | Sequence[Tensor]) -> None:
        """Adds a batch, as :meth:`~captum_scorecam.metrics.EnergyPointingGame.update` does."""
        self._add(_relevance_rank_update(attributions, regions))


class IoU(ExampleMean):
    """Intersection over union: see :func:`~captum_scorecam.metrics.functional.iou`.

    Args:
        threshold (float): Share of the map's range above which pixels count, in (0, 1). Default: 0.2.
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        TypeError: If `threshold` is not a number.
        ValueError: If `threshold` is not in (0, 1).
    """

    higher_is_better = True

    def __init__(self, threshold: float = 0.2, **kwargs: Any) -> None:
        check_fraction("threshold", threshold)
        super().__init__(f"iou_above_{threshold}".replace(".", "_"), **kwargs)
        self.threshold = threshold

    def update(self, attributions: Tensor, regions: Tensor | Sequence[Tensor]) -> None:
        """Adds a batch, as :meth:`~captum_scorecam.metrics.EnergyPointingGame.update` does."""
        self._add(_iou_update(attributions, regions, self.threshold))

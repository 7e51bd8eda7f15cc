"""Relevance mass and rank accuracy, intersection over union and MaxBoxAcc as ``torchmetrics.Metric`` classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from captum_scorecam._messages import check_fraction
from captum_scorecam.metrics.energy_pointing_game import EnergyPointingGame
from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.box_accuracy import (
    N_THRESHOLDS,
    Components,
    _box_hits_update,
    check_box_options,
)
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
    state_name = "relevance_rank"

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
        self.state_name = f"iou_above_{threshold}".replace(".", "_")
        super().__init__(**kwargs)
        self.threshold = threshold

    def update(self, attributions: Tensor, regions: Tensor | Sequence[Tensor]) -> None:
        """Adds a batch, as :meth:`~captum_scorecam.metrics.EnergyPointingGame.update` does."""
        self._add(_iou_update(attributions, regions, self.threshold))


class MaxBoxAcc(ExampleMean):
    """MaxBoxAcc over all batches and processes: see :func:`~captum_scorecam.metrics.functional.max_box_acc`.

    Args:
        iou_threshold (float): The paper's δ, in (0, 1]. Default: 0.5.
        components (str): ``"largest"`` or ``"all"``. Default: ``"largest"``.
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        TypeError: If `iou_threshold` is not a number.
        ValueError: If `iou_threshold` is not in (0, 1], or `components` is unknown.
        ModuleNotFoundError: If SciPy is not installed.
    """

    higher_is_better = True
    shape = (N_THRESHOLDS,)

    def __init__(self, iou_threshold: float = 0.5, components: Components = "largest", **kwargs: Any) -> None:
        check_box_options(iou_threshold, components)
        self.state_name = f"box_hits_of_{components}_from_{iou_threshold}".replace(".", "_")
        super().__init__(**kwargs)
        self.iou_threshold: float = iou_threshold
        self.components: Components = components

    def update(self, attributions: Tensor, regions: Tensor | Sequence[Tensor]) -> None:
        """Adds a batch of attributions and boxes of their objects.

        Args:
            attributions (Tensor): N×C×H×W, summed over the channels.
            regions (sequence of Tensor): N tensors M×4 of boxes.
        """
        self._add(_box_hits_update(attributions, regions, self.iou_threshold, self.components))

    def compute(self) -> Tensor:
        """Returns the mean of the hits at the best threshold for all examples so far, float32.

        Raises:
            ValueError: If there are no examples.
        """
        return super().compute().max()

"""ROAD as a ``torchmetrics.Metric`` class."""

from __future__ import annotations

from torch import Tensor

from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.road import _road_update


class ROAD(ExampleMean):
    """ROAD: see :func:`~captum_scorecam.metrics.functional.road`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = True
    state_name = "road"

    def update(self, morf: Tensor, lerf: Tensor) -> None:
        """Adds a batch of curves, fields of a :class:`~captum_scorecam.metrics.functional.RoadCurves`.

        Args:
            morf (Tensor): N×S, the class scores at each fraction, most relevant pixels imputed first.
            lerf (Tensor): N×S, the same, least relevant pixels first.
        """
        self._add(_road_update(morf, lerf))

"""The energy-based and the classic pointing game as ``torchmetrics.Metric`` classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from captum_scorecam._messages import check_at_least
from captum_scorecam.metrics.example_mean import ExampleMean
from captum_scorecam.metrics.functional.energy_pointing_game import (
    _energy_pointing_game_update,
    _pointing_game_update,
)


class EnergyPointingGame(ExampleMean):
    """Energy-based pointing game: see :func:`~captum_scorecam.metrics.functional.energy_pointing_game`.

    Args:
        **kwargs: Arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = True
    state_name = "energy_in_region"

    def update(self, attributions: Tensor, regions: Tensor | Sequence[Tensor]) -> None:
        """Adds a batch of attributions and object regions.

        Args:
            attributions (Tensor): N×C×spatial, summed over the channels.
            regions (Tensor or sequence of Tensor): Boolean masks N×spatial, or N tensors M×4 of boxes.
        """
        self._add(_energy_pointing_game_update(attributions, regions))


class PointingGame(ExampleMean):
    """Pointing game: see :func:`~captum_scorecam.metrics.functional.pointing_game`.

    Args:
        tolerance (float): Largest distance between the maximum and the object, in pixels. Default: 15.
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        TypeError: If `tolerance` is not a number.
        ValueError: If `tolerance` is negative or not finite.
    """

    higher_is_better = True

    def __init__(self, tolerance: float = 15, **kwargs: Any) -> None:
        check_at_least("tolerance", tolerance, 0)
        # A persistent state becomes a buffer, whose name must not contain a dot.
        self.state_name = f"hits_within_{tolerance}".replace(".", "_")
        super().__init__(**kwargs)
        self.tolerance = tolerance

    def update(self, attributions: Tensor, regions: Tensor | Sequence[Tensor]) -> None:
        """Adds a batch, as :meth:`~captum_scorecam.metrics.EnergyPointingGame.update` does."""
        self._add(_pointing_game_update(attributions, regions, self.tolerance))

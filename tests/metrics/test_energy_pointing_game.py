"""The classes of the pointing games."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from captum_scorecam.metrics import EnergyPointingGame, PointingGame
from tests.support.evidence_model import patch, perfect, worst


@pytest.mark.parametrize("metric", [EnergyPointingGame(), PointingGame(tolerance=0)])
@pytest.mark.parametrize(("maps", "expected"), [(perfect(2), 1), (worst(2), 0)], ids=["perfect", "worst"])
def test_perfect_and_worst_explanation(metric: Metric, maps: Tensor, expected: float) -> None:
    metric.reset()
    metric.update(maps, patch()[:, 0].expand(2, -1, -1) == 1)
    assert metric.compute().item() == expected


def test_a_collection_keeps_metrics_apart() -> None:
    metrics = MetricCollection({"energy": EnergyPointingGame(), "hit": PointingGame(0), "near": PointingGame(2)})
    # All are 1 in the first batch; in the second, all the energy and the maximum are one pixel off.
    maps = torch.zeros(1, 1, 4, 6)
    maps[0, 0, 1, 2] = 1
    metrics.update(maps, [torch.tensor([[2, 1, 3, 2]])])
    metrics.update(maps, [torch.tensor([[3, 1, 4, 2]])])
    assert {name: value.item() for name, value in metrics.compute().items()} == {"energy": 0.5, "hit": 0.5, "near": 1}

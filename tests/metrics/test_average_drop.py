"""The classes of average drop, increase and gain."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from captum_scorecam.metrics import AverageDrop, AverageGain, AverageIncrease
from captum_scorecam.metrics.functional import masked_input_scores
from tests.support.evidence_model import EvidenceModel, ones, perfect, worst

METRICS = [AverageDrop, AverageIncrease, AverageGain]

# Without the evidence for the other class, or for its own, a probability of 1/2 becomes sigmoid(1) or sigmoid(-1).
CHANGE = 100 * math.tanh(0.5)


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        (perfect(2), {"drop": 0, "increase": 100, "gain": CHANGE}),
        (worst(2), {"drop": CHANGE, "increase": 0, "gain": 0}),
    ],
    ids=["perfect", "worst"],
)
def test_perfect_and_worst_explanation(maps: Tensor, expected: dict[str, float]) -> None:
    metrics = MetricCollection({"drop": AverageDrop(), "increase": AverageIncrease(), "gain": AverageGain()})
    metrics.update(*masked_input_scores(EvidenceModel(), ones(2), maps, 0, keep_fraction=None))
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(expected)


def test_a_collection_keeps_metrics_apart() -> None:
    metrics = MetricCollection(
        {"drop": AverageDrop(), "absolute": AverageDrop(relative=False), "up": AverageIncrease(), "gain": AverageGain()}
    )
    # All are 0 in the first batch: MetricCollection would merge metrics whose states have equal names and values.
    metrics.update(torch.tensor([0.5]), torch.tensor([0.5]))
    metrics.update(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6]))
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found == pytest.approx({"drop": 75 / 3, "absolute": 60 / 3, "up": 100 / 3, "gain": 20 / 3})


@pytest.mark.parametrize("metric", METRICS)
def test_scores_must_be_finite(metric: type[Metric]) -> None:
    with pytest.raises(ValueError, match="Expected `original_scores` to be finite, but got NaN or Inf"):
        metric().update(torch.tensor([float("nan")]), torch.tensor([0.5]))

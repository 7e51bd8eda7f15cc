"""The classes of the areas under insertion and deletion curves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from captum_scorecam.metrics import DeletionAUC, InsertionAUC
from captum_scorecam.metrics.functional import deletion, insertion
from tests.support.evidence_model import EvidenceModel, ones, perfect, worst


@pytest.mark.parametrize(
    ("make", "curve", "maps", "expected"),
    [
        (InsertionAUC, insertion, perfect(2), 0.875),
        (InsertionAUC, insertion, worst(2), 0.125),
        (DeletionAUC, deletion, perfect(2), 0.125),
        (DeletionAUC, deletion, worst(2), 0.875),
    ],
    ids=["insertion-perfect", "insertion-worst", "deletion-perfect", "deletion-worst"],
)
def test_perfect_and_worst_explanation(make: type[Metric], curve: Any, maps: Tensor, expected: float) -> None:
    metric = make()
    fractions, scores, _ = curve(EvidenceModel(), ones(2), maps, 0, step=0.25, baselines=0, score="output")
    metric.update(fractions, scores)
    assert metric.compute().item() == expected


@pytest.mark.parametrize("metric", [InsertionAUC, DeletionAUC])
@pytest.mark.parametrize(
    ("fractions", "scores", "message"),
    [
        (
            [0.0, 1.0],
            [0.5, 0.5],
            r"Expected fractions of shape S and scores of shape N×S, .* but got \(2,\) and \(2,\)",
        ),
        ([0.0, 0.5, 1.0], [[0.5, 0.5]], r"but got \(3,\) and \(1, 2\)"),
        ([0.0, 0.5], [[0.5, 0.5]], r"Expected `fractions` to rise from 0 to 1, but got \[0.0, 0.5\]"),
        ([0.1, 1.0], [[0.5, 0.5]], "Expected `fractions` to rise from 0 to 1"),
        ([0.0, 0.7, 0.6, 1.0], [[0.5] * 4], "Expected `fractions` to rise from 0 to 1"),
        ([0.0], [[0.5]], "Expected `fractions` to rise from 0 to 1"),
        ([0.0, 1.0], [[0.5, float("nan")]], "Expected `scores` to be finite, but got NaN or Inf for 1 of 1 examples"),
        ([0.0, 1.0], torch.empty(0, 2), r"for at least one example, but got \(2,\) and \(0, 2\)"),
    ],
)
def test_malformed_curves(metric: type[Metric], fractions: list[float], scores: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric().update(torch.tensor(fractions), torch.as_tensor(scores))

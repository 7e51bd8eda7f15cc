"""What error is left of a map."""

from __future__ import annotations

import math

import pytest
import torch

from captum_scorecam import ChannelScores
from captum_scorecam.budget.within_budget import remaining_errors
from captum_scorecam.masking.channel_masks import ChannelMasks


@pytest.mark.parametrize(
    ("score", "errors", "expected"),
    [
        (3.0, [0.1, 0.6], 0.1),
        (3.0, [0.6, 0.1], 0.1),
        (3.0, [0.0, 0.0], 0.0),
        # Below 0, by two errors at both positions or not
        (-3.0, [0.1, 0.6], 0.1),
        (-3.0, [1.5, 0.6], 0.25),
        (-3.0, [1.6, 0.6], math.inf),
        (-3.0, [0.0, 0.0], 0.0),
        (0.0, [0.1, 0.1], math.inf),
        (0.0, [0.0, 0.0], 0.0),
    ],
)
def test_remaining_errors_by_hand(score: float, errors: list[float], expected: float) -> None:
    activations = torch.tensor([[[1.0, 2.0]]])
    masks = ChannelMasks.from_activations(activations, ((2,),))
    found = ChannelScores(activations, masks, torch.tensor([[score]]), torch.zeros(1, 1))
    found.known_errors["score"] = torch.tensor([[errors]])
    assert remaining_errors(found, "score").tolist() == [[pytest.approx(expected)]]

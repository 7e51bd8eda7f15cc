"""Standard errors of maps in the dtype of the activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_scorecam import ScoreCAM
from captum_scorecam.budget.map_errors import in_dtype
from tests.support.score_cam import last_run
from tests.support.small_net import Net, images


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_no_error_underflows_to_zero_which_means_exact(dtype: torch.dtype) -> None:
    errors = in_dtype(torch.tensor([0.0, 1e-300, 0.5], dtype=torch.float64), dtype)
    assert errors.dtype == dtype
    assert errors[0] == 0
    assert 0 < errors[1] < 1e-7
    assert errors[2] == 0.5


@pytest.mark.parametrize("weighting", ["score", "increase"])
def test_predicted_maps_of_tiny_probabilities_in_half_precision_are_not_called_exact(weighting: Any) -> None:
    net, x = Net(channels=24, gain=2), images(1, torch.float16)
    net.fc.bias.data[2] -= 17
    score_cam = ScoreCAM(
        net.half(),
        net.relu,
        score="probability",
        channel_weighting=weighting,
        max_forwards=5,
    )
    _, errors = score_cam.attribute_with_error(x, 2)
    assert errors.dtype == torch.float16
    assert last_run(score_cam).omitted > 0
    assert (errors > 0).any()
    assert last_run(score_cam).errors[0] > 0

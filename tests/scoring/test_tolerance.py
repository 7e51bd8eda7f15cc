from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from tests.support.score_cam import last_run

OPTIONS: dict[str, Any] = {"score": "probability", "channel_weighting": "score"}


class Channels(nn.Module):
    """A layer with 64 channels, of which a few are far stronger than the rest; the classes look at their means."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        strengths = 0.6 ** torch.arange(64)
        self.kernel = torch.randn(64, 3, 3, 3, generator=generator) * strengths[:, None, None, None]
        self.classes = 3 * torch.randn(64, 5, generator=generator)
        self.shift = shift * strengths[:, None, None]
        self.layer = nn.Identity()
        self.rows = 0

    def forward(self, x: Tensor) -> Any:
        self.rows += len(x)
        maps = self.layer(torch.conv2d(x, self.kernel, stride=2).relu() - self.shift)
        return maps.mean((2, 3)) @ self.classes


class TwoChannels(nn.Module):
    """Channel 0 is 1 in one cell, channel 1 `height` in another. The probability of class 0 is 1 for every input."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.maps = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]], [[0.0, height], [0.0, 0.0]]]])
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Any:
        self.layer(self.maps.expand(len(x), -1, -1, -1))
        return torch.tensor([[40.0, 0.0]]).expand(len(x), 2)


def scaled(maps: Tensor) -> Tensor:
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize("tolerance", [0.3, 0.1, 0.01])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_scaled_map_is_within_the_tolerance_and_rows_are_saved(tolerance: float, relu: bool, shift: float) -> None:
    model, x = Channels(shift), torch.rand(3, 3, 15, 13, generator=torch.Generator().manual_seed(1))
    score_cam = ScoreCAM(model, model.layer, **OPTIONS)
    targets = torch.tensor([[0, 1], [2, 3], [4, 0]])
    exact = score_cam.attribute_targets(x, targets, relu_attributions=relu)
    assert last_run(score_cam).omitted == 0
    model.rows = 0
    score_cam = ScoreCAM(model, model.layer, tolerance=tolerance, **OPTIONS)
    near = score_cam.attribute_targets(x, targets, relu_attributions=relu, perturbations_per_eval=1)
    run = last_run(score_cam)
    assert 0 < (scaled(exact) - scaled(near)).abs().max() <= tolerance
    assert run.rows < run.channels - run.constant - run.shared
    assert run.omitted == run.channels - run.constant - run.shared - run.rows
    unmasked = 2 * 3  # for the activations, and to compare the memory formats
    assert 0 <= model.rows - run.rows - unmasked <= 2 * 3  # an example's last forward pass is padded to three rows


@pytest.mark.parametrize(("height", "rows"), [(0.29, 1), (0.31, 2)])
def test_a_channel_is_omitted_only_if_it_changes_the_scaled_map_by_at_most_the_tolerance(
    height: float, rows: int
) -> None:
    # With channel 0 alone, the map has a span of 1, and channel 1 can add between 0 and its height.
    model = TwoChannels(height)
    score_cam = ScoreCAM(model, model.layer, tolerance=0.3, **OPTIONS)
    actual = score_cam.attribute(torch.rand(1, 3, 4, 4), 0, perturbations_per_eval=1)
    assert last_run(score_cam).rows == rows
    expected = torch.tensor([[[[1.0, height if rows == 2 else 0.0], [0.0, 0.0]]]])
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)


def test_a_tiny_tolerance_runs_everything_and_equals_the_exact_map() -> None:
    model, x = Channels(), torch.rand(2, 3, 15, 13)
    score_cam = ScoreCAM(model, model.layer, tolerance=1e-30, **OPTIONS)
    exact = ScoreCAM(model, model.layer, **OPTIONS).attribute(x, 1)
    near = score_cam.attribute(x, 1)
    assert last_run(score_cam).omitted == 0
    assert torch.allclose(exact, near, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, r"Expected `tolerance` in \(0, 1\), but got 0.0"),
        ({"tolerance": 1.5}, r"Expected `tolerance` in \(0, 1\), but got 1.5"),
        ({"tolerance": 0.1, "score": "output"}, "but got 'output' and 'score'"),
        ({"tolerance": 0.1, "channel_weighting": "increase"}, "but got 'probability' and 'increase'"),
    ],
)
def test_a_tolerance_whose_bound_does_not_hold_is_an_error(options: dict[str, Any], message: str) -> None:
    model = Channels()
    with pytest.raises(ValueError, match=message):
        ScoreCAM(model, model.layer, **{**OPTIONS, **options})


def test_a_call_whose_bound_does_not_hold_is_an_error() -> None:
    model = Channels()
    score_cam = ScoreCAM(model, model.layer, tolerance=0.1, **OPTIONS)
    with pytest.raises(ValueError, match="Expected neither attr_dim_summation=False nor a `process_group`"):
        score_cam.attribute(torch.rand(1, 3, 15, 13), 1, attr_dim_summation=False)
    assert model.rows == 0

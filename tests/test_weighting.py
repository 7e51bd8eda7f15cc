"""Scores to channel weights, and weights to a map, by hand."""

from __future__ import annotations

import pytest
import torch

from captum_scorecam.weighting import ChannelWeighting, channel_weights, weighted_maps

SCORES = torch.tensor([[[1.0], [3.0], [99.0]]])
MASKED = torch.tensor([[True, True, False]])
BASELINE = torch.tensor([[0.5]])


def test_softmax_runs_over_the_channels_that_have_a_mask() -> None:
    weights = channel_weights(SCORES, MASKED, "softmax")
    e = torch.e
    assert torch.allclose(weights.flatten(), torch.tensor([1 / (1 + e**2), e**2 / (1 + e**2), 0.0]))


def test_increase_subtracts_the_baseline_score() -> None:
    assert channel_weights(SCORES, MASKED, "increase", BASELINE).flatten().tolist() == [0.5, 2.5, 0.0]


def test_score_keeps_the_score() -> None:
    assert channel_weights(SCORES, MASKED, "score").flatten().tolist() == [1.0, 3.0, 0.0]


@pytest.mark.parametrize("weighting", ["softmax", "increase", "score"])
def test_an_example_without_masks_gets_zero_weights(weighting: ChannelWeighting) -> None:
    weights = channel_weights(SCORES, torch.zeros(1, 3, dtype=torch.bool), weighting, BASELINE)
    assert torch.equal(weights, torch.zeros(1, 3, 1))


def test_softmax_of_large_scores_is_finite() -> None:
    weights = channel_weights(torch.tensor([[[1e4], [0.0]]]), torch.tensor([[True, True]]), "softmax")
    assert weights.flatten().tolist() == [1.0, 0.0]


def test_unknown_weighting_and_missing_baseline_are_errors() -> None:
    with pytest.raises(ValueError, match=r"Expected `channel_weighting` to be .*, but got 'mean'"):
        channel_weights(SCORES, MASKED, "mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected `baseline_scores` for the weighting 'increase', but got None"):
        channel_weights(SCORES, MASKED, "increase")


def test_weighted_maps_for_two_targets() -> None:
    activations = torch.tensor([[[1.0, 2.0], [10.0, 20.0]]])
    weights = torch.tensor([[[1.0, -1.0], [0.5, 2.0]]])
    assert weighted_maps(activations, weights).tolist() == [[[6.0, 12.0], [19.0, 38.0]]]
    unsummed = [[[[1.0, 2.0], [5.0, 10.0]], [[-1.0, -2.0], [20.0, 40.0]]]]
    assert weighted_maps(activations, weights, summed=False).tolist() == unsummed


def test_weighted_maps_are_summed_in_float32_and_have_the_activations_dtype() -> None:
    activations = torch.tensor([[[256.0], [1.0], [1.0]]], dtype=torch.bfloat16)
    weights = torch.ones(1, 3, 1)
    # In bfloat16 256 + 1 is 256; in float32 the sum is 258, which bfloat16 can hold.
    result = weighted_maps(activations, weights)
    assert result.dtype == torch.bfloat16
    assert result.item() == 258.0


def test_maps_beyond_the_range_of_their_dtype_are_refused() -> None:
    activations, weights = torch.full((1, 3, 4), 3e4, dtype=torch.float16), torch.ones(1, 3, 1)
    assert weighted_maps(activations, weights / 3).dtype == torch.float16
    message = r"Expected maps within the range of the layer's torch.float16, but values reach 9e\+04. Run the model in"
    assert not weighted_maps(activations, -weights, relu=True).any()
    for sign in (1, -1):
        with pytest.raises(ValueError, match=message):
            weighted_maps(activations, sign * weights)

"""Attributions as one value per pixel, by hand."""

from __future__ import annotations

import pytest
import torch

from captum_scorecam.metrics.functional.pixel_values import channel_sums, pixel_values


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_channels_are_summed_in_at_least_single_precision(dtype: torch.dtype, expected: torch.dtype) -> None:
    # In half precision 2048 + 1 is 2048.
    attributions = torch.tensor([2048.0, 1.0, 1.0]).reshape(1, 3, 1).to(dtype).requires_grad_()
    sums = channel_sums(attributions)
    assert (sums.dtype, sums.tolist(), sums.requires_grad) == (expected, [[[2050]]], False)


def test_pixels_of_several_inputs_are_side_by_side() -> None:
    inputs = (torch.zeros(1, 2, 2, 2), torch.zeros(1, 1, 3))
    attributions = (torch.arange(8.0).reshape(1, 2, 2, 2), torch.tensor([[[7.0]]]))
    assert pixel_values(attributions, inputs).tolist() == [[4, 6, 8, 10, 7, 7, 7]]


def test_the_first_example_that_is_not_finite_is_named() -> None:
    attributions = torch.zeros(3, 1, 2)
    attributions[1:, 0, 1] = float("inf")
    message = "Expected `attributions` to be finite, but got NaN or Inf for 2 of 3 examples, the first for example 1"
    with pytest.raises(ValueError, match=message):
        channel_sums(attributions)

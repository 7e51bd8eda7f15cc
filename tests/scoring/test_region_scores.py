"""Means over regions, against values computed by hand and plain loops."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from captum_scorecam import region_scores

OUTPUT = torch.arange(24.0).reshape(2, 2, 2, 3) ** 2


def test_by_hand() -> None:
    regions = torch.tensor([[[[1, 0, 1], [0, 0, 0]]], [[[0, 0, 0], [0, 1, 0]]]])
    expected = torch.tensor([[(0 + 4) / 2, (36 + 64) / 2], [16.0**2, 22.0**2]])
    for dtype in (torch.bool, torch.int64, torch.float32):
        torch.testing.assert_close(region_scores(OUTPUT, regions.to(dtype)), expected)


def test_weights_of_a_volume() -> None:
    output = torch.randn(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.tensor([0.5, 0, 0, 0, 0, 0, 0, 1.5]).reshape(1, 1, 2, 2, 2)
    expected = 0.25 * output[..., 0, 0, 0] + 0.75 * output[..., 1, 1, 1]
    torch.testing.assert_close(region_scores(output, weights), expected)


def test_half_precision_is_summed_in_float32() -> None:
    output = torch.full((1, 1, 300, 300), 2.0, dtype=torch.float16)
    assert torch.equal(region_scores(output, torch.ones(1, 1, 300, 300)), torch.tensor([[2.0]]))


@pytest.mark.parametrize("shape", [(2, 2, 3), (1, 1, 2, 3), (2, 1, 3, 2), (2, 2, 2, 3)])
def test_other_shapes_raise(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"`regions` of shape \(2, 1, 2, 3\) for an output of shape \(2, 2, 2, 3\), but"
    ):
        region_scores(OUTPUT, torch.ones(shape))


@pytest.mark.parametrize(
    ("output", "regions", "error", "message"),
    [
        (None, torch.ones(2, 1, 2, 3), TypeError, "`output` to be a tensor R×C×spatial, but got NoneType."),
        ({"out": OUTPUT}, torch.ones(2, 1, 2, 3), TypeError, "`output` to be a tensor R×C×spatial, but got dict."),
        (OUTPUT.numpy(), torch.ones(2, 1, 2, 3), TypeError, "but got ndarray; use torch.from_numpy."),
        (OUTPUT * 1j, torch.ones(2, 1, 2, 3), TypeError, "R×C×spatial of real numbers, but got torch.complex64."),
        (
            torch.tensor(1.0),
            torch.ones(2, 1, 2, 3),
            ValueError,
            "`output` to be a tensor R×C×spatial, but got shape ().",
        ),
        (OUTPUT, None, TypeError, "`regions` to be a tensor R×1×spatial, but got NoneType."),
        (OUTPUT, "s", TypeError, "`regions` to be a tensor R×1×spatial, but got str."),
        (OUTPUT, [[True]], TypeError, "`regions` to be a tensor R×1×spatial, but got list."),
        (OUTPUT, torch.ones(2), ValueError, "`regions` to be a tensor R×1×spatial, but got shape (2,)."),
    ],
    ids=str,
)
def test_other_types_raise(output: Any, regions: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        region_scores(output, regions)


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_negative_weights_raise(value: float) -> None:
    regions = torch.ones(2, 1, 2, 3)
    regions[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match="`regions` of weights that are at least 0, but some are negative or NaN"):
        region_scores(OUTPUT, regions)


def test_an_empty_region_raises() -> None:
    regions = torch.zeros(2, 1, 2, 3)
    regions[0] = 1
    with pytest.raises(ValueError, match="`regions` with at least one pixel each, but 1 of 2 are empty"):
        region_scores(OUTPUT, regions)


def test_infinite_values_outside_of_a_region_do_not_count() -> None:
    output = torch.tensor([[[[-torch.inf, 2.0, torch.nan]]]])
    assert region_scores(output, torch.tensor([[[[False, True, False]]]])).tolist() == [[2.0]]

"""Sparseness and complexity: known values, extremes, and what does not change them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_scorecam.metrics.functional import complexity, sparseness

N_PIXELS = 20


def one_pixel() -> Tensor:
    maps = torch.zeros(1, 1, 4, 5)
    maps[0, 0, 2, 3] = 7
    return maps


@pytest.mark.parametrize(
    ("maps", "gini", "entropy"),
    [
        (one_pixel(), 1 - 1 / N_PIXELS, 0.0),
        (-one_pixel(), 1 - 1 / N_PIXELS, 0.0),
        (torch.ones(1, 1, 4, 5), 0.0, math.log(N_PIXELS)),
        (torch.zeros(1, 1, 4, 5), 0.0, math.log(N_PIXELS)),
        (torch.full((1, 1, 4, 5), 1e38), 0.0, math.log(N_PIXELS)),
    ],
    ids=["one pixel", "one negative pixel", "constant", "zero", "huge"],
)
def test_the_most_and_the_least_concentrated_map(maps: Tensor, gini: float, entropy: float) -> None:
    assert sparseness(maps).item() == pytest.approx(gini, abs=1e-6)
    assert complexity(maps).item() == pytest.approx(entropy, abs=1e-6)


def test_values_are_those_computed_by_hand() -> None:
    maps = torch.tensor([[[0.0, 1.0, -3.0]], [[1.0, 1.0, 2.0]]])
    # Gini: (−2·0 + 0·1 + 2·3) / (3·4), and (−2·1 + 0·1 + 2·2) / (3·4).
    assert sparseness(maps, reduction="none").tolist() == pytest.approx([0.5, 1 / 6])
    entropies = [-0.25 * math.log(0.25) - 0.75 * math.log(0.75), 0.5 * math.log(4) + 0.5 * math.log(2)]
    assert complexity(maps, reduction="none").tolist() == pytest.approx(entropies)
    assert complexity(maps).item() == pytest.approx(sum(entropies) / 2)


@pytest.mark.parametrize("metric", [sparseness, complexity])
def test_scale_and_order_of_pixels_do_not_count_and_channels_are_summed(metric: Any) -> None:
    maps = torch.randn(3, 2, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = metric(maps, reduction="none")
    torch.testing.assert_close(metric(1e-30 * maps.flip(2), reduction="none"), expected)
    torch.testing.assert_close(metric(maps.sum(1, keepdim=True), reduction="none"), expected)

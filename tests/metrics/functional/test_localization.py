"""Relevance mass, relevance rank and IoU: known values, extremes, ties and boxes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from captum_scorecam.metrics.functional import energy_pointing_game, iou, l1_complexity, relevance_mass, relevance_rank

METRICS = [relevance_mass, relevance_rank, iou]
REGION = torch.zeros(1, 4, 5, dtype=torch.bool)
REGION[0, 1:3, 1:4] = True


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_and_worst_explanation(metric: Any) -> None:
    assert metric(REGION.float().unsqueeze(1), REGION).item() == 1
    assert metric((~REGION).float().unsqueeze(1), REGION).item() == 0


@pytest.mark.parametrize(
    ("values", "threshold", "mass", "rank", "overlap"),
    [
        ([4.0, 3, 2, 1, 0], 0.3, 7 / 10, 1.0, 2 / 3),  # above 1.2
        ([4.0, 1, 3, 2, -9], 0.8, 5 / 10, 0.5, 1 / 4),  # above 1.4
    ],
)
def test_values_are_those_computed_by_hand(
    values: list[float], threshold: float, mass: float, rank: float, overlap: float
) -> None:
    maps, region = torch.tensor([[values]]), torch.tensor([[True, True, False, False, False]])
    assert relevance_mass(maps, region).item() == pytest.approx(mass)
    assert relevance_rank(maps, region).item() == pytest.approx(rank)
    assert iou(maps, region, threshold=threshold).item() == pytest.approx(overlap)


def test_of_pixels_tied_for_the_last_place_the_expected_share_counts() -> None:
    maps, region = torch.tensor([[[5.0, 2.0, 2.0, 2.0, 1.0]]]), torch.tensor([[True, True, False, True, False]])
    # Two places are left for three pixels of 2, of which two are on the object: 1 + 2 · 2/3, of 3.
    assert relevance_rank(maps, region).item() == pytest.approx((1 + 4 / 3) / 3)
    assert relevance_rank(maps.flip(2), region.flip(1)).item() == pytest.approx((1 + 4 / 3) / 3)


def test_a_constant_map_ranks_by_area_and_overlaps_nothing() -> None:
    constant = torch.full((1, 1, 4, 5), -0.7)
    assert relevance_rank(constant, REGION).item() == pytest.approx(6 / 20)
    assert iou(constant, REGION).item() == 0


@pytest.mark.parametrize("metric", METRICS)
def test_boxes_are_their_masks(metric: Any) -> None:
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) - 0.3
    boxes = [torch.tensor([[1, 1, 4, 3]])] * 2
    found = metric(maps, boxes, reduction="none")
    assert torch.equal(found, metric(maps, REGION.expand(2, 4, 5), reduction="none"))
    assert found.min() > 0
    assert found.max() < 1


def test_relevance_mass_is_the_energy_in_the_region() -> None:
    maps: Tensor = torch.randn(2, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(relevance_mass(maps, REGION.expand(2, 4, 5)), energy_pointing_game(maps, REGION.expand(2, 4, 5)))


@pytest.mark.parametrize("threshold", [0.0, 1.0, float("nan")])
def test_a_threshold_is_a_share(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `threshold` in \(0, 1\), but got"):
        iou(REGION.float().unsqueeze(1), REGION, threshold=threshold)


def test_values_near_the_largest_number_do_not_overflow() -> None:
    maps = torch.tensor([[[[3e38, -3e38], [3e38, 0.0]]]])
    region = torch.tensor([[[True, False], [False, False]]])
    assert relevance_mass(maps, region).item() == 0.5
    assert iou(maps, region, threshold=0.6).item() == 0.5
    assert l1_complexity(maps).item() == pytest.approx(0.625)


def test_a_map_that_is_constant_up_to_rounding_finds_nothing() -> None:
    assert iou(torch.tensor([[[[1.0, 1.0000001], [1.0, 1.0]]]]), [torch.tensor([[1, 0, 2, 1]])]) == 0

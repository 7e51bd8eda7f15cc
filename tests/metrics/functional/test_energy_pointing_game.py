"""The energy-based and the classic pointing game."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_scorecam.metrics import PointingGame
from captum_scorecam.metrics.functional import energy_pointing_game, pointing_game
from tests.support.default_dtype import default_dtype, other_default_dtypes
from tests.support.evidence_model import patch, perfect, worst

GAMES = [energy_pointing_game, pointing_game]
PATCH_BOX = torch.tensor([[2, 1, 5, 3]])  # x1, y1, x2, y2 of rows 1 and 2, columns 2, 3 and 4


def energy(maps: Tensor, regions: Any) -> list[float]:
    return energy_pointing_game(maps, regions, reduction="none").tolist()


def hits(maps: Tensor, regions: Any, tolerance: float = 0) -> list[float]:
    return pointing_game(maps, regions, tolerance=tolerance, reduction="none").tolist()


def box_mask_by_hand(boxes: list[list[float]], height: int, width: int) -> Tensor:
    inside = [
        [any(x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2 for x1, y1, x2, y2 in boxes) for x in range(width)]
        for y in range(height)
    ]
    return torch.tensor(inside)


# --- Perfect and worst ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regions", [[PATCH_BOX], patch()[:, 0] == 1], ids=["boxes", "masks"])
def test_perfect_and_worst_explanation(regions: Any) -> None:
    assert energy_pointing_game(perfect(), regions).item() == 1
    assert energy_pointing_game(worst(), regions).item() == 0
    assert pointing_game(perfect(), regions, tolerance=0).item() == 1
    assert pointing_game(worst(), regions, tolerance=0).item() == 0


def test_uniform_energy_is_the_share_of_the_area() -> None:
    assert energy(torch.ones(1, 1, 4, 6), [PATCH_BOX]) == [0.25]


# --- Boxes ------------------------------------------------------------------------------------------------------------


def test_x_runs_along_columns_and_y_along_rows() -> None:
    maps = torch.zeros(1, 1, 4, 6)
    maps[0, 0, 1, 4] = 3  # row 1, column 4
    maps[0, 0, 3, 0] = 1
    assert energy(maps, [torch.tensor([[4, 1, 5, 2]])]) == [0.75]
    assert energy(maps, [torch.tensor([[1, 4, 2, 5], [0, 3, 1, 4]])]) == [0.25]
    assert hits(maps, [torch.tensor([[4, 1, 5, 2]])]) == [1]
    assert hits(maps, [torch.tensor([[0, 3, 1, 4]])]) == [0]


def test_right_and_bottom_edges_are_exclusive() -> None:
    maps = torch.ones(1, 1, 4, 6)
    assert energy(maps, [torch.tensor([[0, 0, 1, 1]])]) == [pytest.approx(1 / 24)]
    assert energy(maps, [torch.tensor([[0, 0, 6, 4]])]) == [1]


def test_overlaps_of_boxes_count_once() -> None:
    assert energy(torch.ones(1, 1, 4, 6), [torch.tensor([[0, 0, 4, 2], [2, 0, 6, 2], [1, 1, 2, 2]])]) == [0.5]


def test_a_pixel_beyond_the_border_does_not_count() -> None:
    boxes = torch.tensor([[-1, -1, 2, 2], [5, 3, 7, 5], [6, 0, 7, 4]])
    assert energy(torch.ones(1, 1, 4, 6), [boxes]) == [pytest.approx(5 / 24)]


def test_an_empty_box_next_to_another_does_not_count() -> None:
    assert energy(torch.ones(1, 1, 4, 6), [torch.tensor([[0, 0, 0, 4], [0, 0, 6, 2]])]) == [0.5]


def test_each_image_has_its_own_number_of_boxes() -> None:
    maps = torch.ones(2, 1, 4, 6)
    regions = [torch.tensor([[0, 0, 6, 1]]), torch.tensor([[0, 0, 6, 1], [0, 3, 6, 4]])]
    assert energy(maps, regions) == [0.25, 0.5]


@pytest.mark.parametrize(
    "boxes", [[[0.4, 0.4, 2.6, 2.4]], [[0.5, 0.5, 1.5, 1.5]], [[0.6, 0.0, 3.0, 0.6], [4.49, 2.0, 5.51, 4.0]]]
)
def test_a_pixel_is_in_a_box_if_its_centre_is(boxes: list[list[float]]) -> None:
    maps = torch.rand(1, 1, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inside = box_mask_by_hand(boxes, 4, 6)
    expected = (maps[0, 0] * inside).sum() / maps.sum()
    assert energy(maps, [torch.tensor(boxes)]) == [pytest.approx(float(expected))]
    assert energy(maps, inside[None]) == energy(maps, [torch.tensor(boxes)])


def test_one_tensor_of_boxes_for_all_images() -> None:
    assert energy(torch.ones(2, 1, 4, 6), PATCH_BOX.expand(2, 1, 4)) == [0.25, 0.25]


# --- Maps -------------------------------------------------------------------------------------------------------------


def test_negative_values_have_no_energy() -> None:
    maps = torch.tensor([[[[3.0, 1.0], [-5.0, -1.0]]]])
    assert energy(maps, [torch.tensor([[0, 0, 1, 2]])]) == [0.75]


def test_channels_are_summed_first() -> None:
    maps = torch.tensor([[[[3.0, -2.0]], [[-1.0, 4.0]]]])
    assert energy(maps, [torch.tensor([[0, 0, 1, 1]])]) == [0.5]
    assert hits(maps + torch.tensor([0.0, 0.25]), [torch.tensor([[0, 0, 1, 1]])]) == [0]


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_a_map_without_positive_energy_scores_zero(value: float) -> None:
    assert energy(torch.full((1, 1, 4, 6), value), [PATCH_BOX]) == [0]


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
def test_a_constant_map_is_a_miss(value: float) -> None:
    assert hits(torch.full((1, 1, 4, 6), value), [torch.tensor([[0, 0, 6, 4]])], tolerance=15) == [0]


def test_the_first_of_equal_maxima_counts() -> None:
    maps = torch.zeros(1, 1, 4, 6)
    maps[0, 0, 1, 3] = maps[0, 0, 3, 1] = 1
    assert hits(maps, [torch.tensor([[3, 1, 4, 2]])]) == [1]
    assert hits(maps, [torch.tensor([[1, 3, 2, 4]])]) == [0]


def test_the_maximum_may_be_negative() -> None:
    assert hits(perfect() - 5, [PATCH_BOX]) == [1]


@pytest.mark.parametrize(("size", "place"), [((9,), (4,)), ((3, 4, 5), (1, 2, 3))])
def test_masks_in_one_and_three_dimensions(size: tuple[int, ...], place: tuple[int, ...]) -> None:
    maps, masks = torch.ones(1, 1, *size), torch.zeros(1, *size, dtype=torch.bool)
    maps[(0, 0, *place)] = 2
    masks[(0, *place)] = True
    assert energy(maps, masks) == [pytest.approx(2 / (math.prod(size) + 1))]
    assert hits(maps, masks) == [1]
    assert hits(maps, masks.roll(1, dims=-1)) == [0]
    assert hits(maps, masks.roll(1, dims=-1), tolerance=1) == [1]


# --- Tolerance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tolerance", "hit"), [(0, 0), (4.9, 0), (5, 1), (15, 1)])
def test_tolerance_is_a_distance_between_centres(tolerance: float, hit: float) -> None:
    maps = torch.zeros(1, 1, 10, 10)
    maps[0, 0, 1, 2] = 1  # 3 rows and 4 columns from the nearest pixel of the box
    assert hits(maps, [torch.tensor([[6, 4, 9, 9]])], tolerance=tolerance) == [hit]


def test_the_default_tolerance_is_fifteen_pixels() -> None:
    maps = torch.zeros(2, 1, 1, 40)
    maps[:, 0, 0, 0] = 1
    assert pointing_game(maps, [torch.tensor([[15, 0, 16, 1]]), torch.tensor([[16, 0, 17, 1]])]).item() == 0.5


@other_default_dtypes
def test_tolerance_does_not_depend_on_the_default_dtype(dtype: torch.dtype) -> None:
    maps = torch.zeros(1, 1, 2, 40)
    maps[0, 0, 0, 0] = 1  # 1 row and 20 columns from the box
    with default_dtype(dtype):
        assert hits(maps, [torch.tensor([[20, 1, 40, 2]])], tolerance=20.0) == [0]


@pytest.mark.parametrize(
    ("tolerance", "error", "message"),
    [
        (-1, ValueError, "Expected `tolerance` to be at least 0, but got -1"),
        (float("nan"), ValueError, "Expected `tolerance` to be at least 0, but got nan"),
        (float("inf"), ValueError, "Expected `tolerance` to be a finite number, but got inf"),
        ("15", TypeError, "Expected `tolerance` to be a number, but got '15'"),
        (None, TypeError, "Expected `tolerance` to be a number, but got None"),
    ],
)
def test_tolerance_out_of_range(tolerance: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pointing_game(perfect(), [PATCH_BOX], tolerance=tolerance)
    with pytest.raises(error, match=message):
        PointingGame(tolerance)


# --- Wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize(
    ("attributions", "message"),
    [
        (
            torch.full((1, 1, 4, 6), float("nan")),
            "Expected `attributions` to be finite, but got NaN or Inf for 1 of 1 examples",
        ),
        (
            torch.full((1, 1, 4, 6), float("inf")),
            "Expected `attributions` to be finite, but got NaN or Inf for 1 of 1 examples",
        ),
        (torch.ones(4, 6), r"Expected attributions of shape N×C×spatial .* but got shape \(4, 6\)"),
        (torch.ones(0, 1, 4, 6), r"Expected attributions .* at least one, but got shape \(0, 1, 4, 6\)"),
    ],
)
def test_malformed_attributions(game: Any, attributions: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        game(attributions, [PATCH_BOX])

"""Regions that pointing games refuse, and unusual ones that they accept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes

from captum_scorecam.metrics import EnergyPointingGame, PointingGame
from captum_scorecam.metrics.functional import energy_pointing_game, pointing_game
from captum_scorecam.metrics.functional.regions import region_masks
from tests.support.default_dtype import default_dtype, other_default_dtypes
from tests.support.evidence_model import perfect

GAMES = [energy_pointing_game, pointing_game, EnergyPointingGame().update, PointingGame().update]
every_game = pytest.mark.parametrize("game", GAMES, ids=["energy", "pointing", "EnergyPointingGame", "PointingGame"])
PATCH_BOX = torch.tensor([[2, 1, 5, 3]])


def area(boxes: Tensor, height: int, width: int) -> int:
    """Returns the number of pixels in the boxes of one image."""
    return int(region_masks([boxes], torch.zeros(1, height, width)).sum())


# --- Containers and shapes --------------------------------------------------------------------------------------------

WANTED = r"Expected `regions` to be boolean masks of shape \(2, 4, 6\) or a tensor M×4 of boxes for each of 2 maps"


@every_game
@pytest.mark.parametrize(
    ("regions", "error", "message"),
    [
        (np.ones((2, 4, 6), bool), TypeError, f"{WANTED}, but got ndarray; use torch.from_numpy"),
        (None, TypeError, f"{WANTED}, but got NoneType"),
        ("boxes", TypeError, f"{WANTED}, but got str"),
        ([], ValueError, f"{WANTED}, but got a list of 0"),
        ([PATCH_BOX], ValueError, f"{WANTED}, but got a list of 1"),
        ((PATCH_BOX,) * 3, ValueError, f"{WANTED}, but got a tuple of 3"),
        (PATCH_BOX, ValueError, rf"{WANTED}, but got torch.int64 of shape \(1, 4\)"),
        (torch.tensor(1.0), ValueError, rf"{WANTED}, but got torch.float32 of shape \(\)"),
        (torch.ones(2, 6, 4, dtype=torch.bool), ValueError, rf"{WANTED}, but got torch.bool of shape \(2, 6, 4\)"),
        (torch.ones(1, 4, 6, dtype=torch.bool), ValueError, rf"{WANTED}, but got torch.bool of shape \(1, 4, 6\)"),
        (torch.ones(2, 1, 4, 6), ValueError, rf"{WANTED}, but got torch.float32 of shape \(2, 1, 4, 6\)"),
        (torch.ones(2, 4, 6), ValueError, r"or one boolean .* N×spatial, but got torch.float32 of shape \(4, 6\)"),
        ([[[2, 1, 5, 3]]] * 2, TypeError, "Expected `regions` to be tensors, but got list for example 0"),
        ([PATCH_BOX, PATCH_BOX.numpy()], TypeError, "but got ndarray; use torch.from_numpy for example 1"),
        ([PATCH_BOX, PATCH_BOX[0]], ValueError, r"but got torch.int64 of shape \(4,\) for example 1"),
        ([PATCH_BOX, PATCH_BOX.bool()], ValueError, r"but got torch.bool of shape \(1, 4\) for example 1"),
        ([PATCH_BOX, PATCH_BOX * 1j], ValueError, r"but got torch.complex64 of shape \(1, 4\) for example 1"),
    ],
)
def test_malformed_regions(game: Any, regions: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        game(perfect(2), regions)


@every_game
@pytest.mark.parametrize("size", [(9,), (3, 4, 6)])
def test_boxes_need_images(game: Any, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"boolean masks of shape .* \(boxes need maps N×C×H×W\), but got a list of 1"):
        game(torch.ones(1, 1, *size), [PATCH_BOX])


@every_game
@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([PATCH_BOX, torch.empty(0, 4)], "pixel of its image, but 1 do not, the first for example 1"),
        ([torch.tensor([[6, 0, 7, 4]]), PATCH_BOX], "but 1 do not, the first for example 0"),
        ([PATCH_BOX, torch.tensor([[2.6, 1.0, 3.4, 3.0]])], "but 1 do not, the first for example 1"),
        (torch.zeros(2, 4, 6, dtype=torch.bool), "but 2 do not, the first for example 0"),
    ],
)
def test_regions_without_a_pixel(game: Any, regions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        game(perfect(2), regions)


# --- Boxes that can't be corners in pixels of the map -----------------------------------------------------------------


@every_game
@pytest.mark.parametrize(
    "boxes",
    [
        [[0.1, 0.2, 0.6, 0.9]],
        [[0.0, 0.0, 1.0, 1.0]],  # a whole image
        [[0.3, 0.6, 0.2, 0.1]],  # x, y, width, height
        [[-1e-7, 0.5, 0.5, 1 + 1e-7]],  # rounded
    ],
)
def test_fractions_are_no_pixels(game: Any, boxes: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"but all coordinates are in \[0, 1\], as fractions of the image are"):
        game(perfect(2), [torch.tensor(boxes)] * 2)


@every_game
@pytest.mark.parametrize(
    "box",
    [
        [100.0, 90.0, 40.0, 120.0],  # x, y, width, height of images 224×224
        [100.0, 90.0, 140.0, 20.0],
        [30.0, 30.0, 30.0, 50.0],
        [10.0, 10.0, 20.0, float("nan")],
        [10.0, 10.0, float("inf"), 20.0],
    ],
)
def test_swapped_edges(game: Any, box: list[float]) -> None:
    boxes = [torch.tensor([[50.0, 60.0, 70.0, 80.0]]), torch.tensor([[50.0, 60.0, 70.0, 80.0], box])]
    with pytest.raises(ValueError, match=r"with x1 < x2 and y1 < y2, but got .* for example 1") as caught:
        game(torch.rand(2, 1, 224, 224), boxes)
    assert str(box) in str(caught.value)


@every_game
@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((7, 7), [30, 40, 120, 160]),  # in pixels of the image
        ((7, 7), [1, 1, 5, 9]),
        ((7, 9), [1, 1, 5, 9]),  # axes swapped
        ((224, 224), [10, 20, 227, 100]),
        ((224, 224), [-30, 20, 100, 100]),
    ],
)
def test_boxes_beyond_the_map(game: Any, size: tuple[int, int], box: list[int]) -> None:
    with pytest.raises(ValueError, match=f"Expected boxes within the {size[0]}×{size[1]} pixels of the map") as caught:
        game(torch.rand(1, 1, *size), [torch.tensor([box])])
    assert f"but got {box} for example 0. Resize maps to the size of the images" in str(caught.value)


@every_game
@pytest.mark.parametrize("layout", ["XYWH", "CXCYWH"])
def test_bounding_boxes_of_torchvision_in_another_format(game: Any, layout: Any) -> None:
    boxes = BoundingBoxes([[2.0, 1.0, 3.0, 2.0]], format=layout, canvas_size=(4, 6))
    with pytest.raises(ValueError, match=rf"\(XYXY\) in `regions`, but got boxes of format {layout}"):
        game(perfect(), [boxes])


# --- Boxes that are unusual, but right --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((7, 7), [0.0, 0.0, 7.0, 7.0], 49),  # touches every border
        ((7, 7), [-1.0, -1.0, 8.0, 8.0], 49),
        ((375, 500), [-3.75, -3.75, 505.0, 378.75], 375 * 500),  # one pixel of an image of a fourth of the size
        ((224, 224), [0.2, 0.3, 1.2, 1.4], 1),  # one pixel in the corner
        ((1, 1), [0.0, 0.0, 1.0, 1.0], 1),
    ],
)
def test_boxes_at_the_border(size: tuple[int, int], box: list[float], expected: int) -> None:
    assert area(torch.tensor([box]), *size) == expected


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_whole_numbers_are_pixels(dtype: torch.dtype) -> None:
    assert area(torch.tensor([[0, 0, 1, 1]], dtype=dtype), 4, 6) == 1


def test_one_box_in_the_first_pixel_among_others() -> None:
    masks = region_masks(
        [torch.tensor([[0.2, 0.2, 0.9, 0.9]]), torch.tensor([[1.0, 1.0, 3.0, 3.0]])], torch.zeros(2, 7, 7)
    )
    assert masks.flatten(1).sum(1).tolist() == [1, 4]


@pytest.mark.parametrize("gone", [[0, 2, 0, 5], [7, 2, 7, 5], [2, 0, 5, 0], [7, 7, 7, 7]])
def test_boxes_that_clipping_left_empty_do_not_count(gone: list[int]) -> None:
    assert area(torch.tensor([gone, [1, 1, 3, 4]]), 7, 7) == 6


def test_bounding_boxes_of_torchvision() -> None:
    boxes = BoundingBoxes([[2, 1, 5, 3]], format="XYXY", canvas_size=(4, 6))
    assert area(boxes, 4, 6) == 6


# --- The default dtype ------------------------------------------------------------------------------------------------


@other_default_dtypes
def test_boxes_do_not_depend_on_the_default_dtype(dtype: torch.dtype) -> None:
    boxes, too_wide = torch.tensor([[300.2, 1.0, 555.7, 5.0]]), torch.tensor([[0.0, 1.0, 711.5, 5.0]])
    with default_dtype(dtype):
        assert area(boxes, 7, 703) == 4 * 256
        with pytest.raises(ValueError, match="Expected boxes within the 7×703 pixels of the map"):
            area(too_wide, 7, 703)

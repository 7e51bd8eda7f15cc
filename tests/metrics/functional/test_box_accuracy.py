"""MaxBoxAcc: known values, extremes, an independent search for components, and the steps of the paper's code."""

from __future__ import annotations

import sys
from typing import Any, Literal

import cv2
import pytest
import torch
from torch import Tensor

from captum_scorecam.metrics.functional import max_box_acc
from captum_scorecam.metrics.functional.box_accuracy import N_THRESHOLDS

BOX = torch.tensor([[1, 1, 4, 3]])
INSIDE = torch.zeros(1, 1, 4, 5)
INSIDE[..., 1:3, 1:4] = 1
BOXES = [torch.tensor([[1, 2, 14, 13]]), torch.tensor([[0, 0, 5, 9], [7, 2, 16, 14]]), torch.tensor([[3, 0, 16, 16]])]


def noise(side: int, seed: int = 0) -> Tensor:
    small = torch.rand(3, 2, side, side, generator=torch.Generator().manual_seed(seed)) - 0.4
    return torch.nn.functional.interpolate(small, (16, 16), mode="bilinear")


def test_perfect_and_worst_explanation() -> None:
    assert max_box_acc(INSIDE, [BOX]).hits.eq(1).all()
    assert max_box_acc(INSIDE, [BOX]).max_box_acc == 1
    corner = torch.zeros(1, 1, 4, 5)
    corner[..., 0, 0] = 1
    assert max_box_acc(corner, [BOX]).max_box_acc == 0


def test_values_are_those_computed_by_hand() -> None:
    # Above 0: the box of all five pixels; from 0.25 on: the first four, 0.5: three, 0.75: two; IoU with the first two.
    maps = torch.tensor([[[[8.0, 7.0, 5.0, 3.0, 1.0, 0.0]]]])
    first_two = [torch.tensor([[0, 0, 2, 1]])]
    found = max_box_acc(maps, first_two, iou_threshold=2 / 3)
    assert found.thresholds.tolist() == pytest.approx([number / 100 for number in range(100)])
    # Three pixels, IoU 2/3, are above 3/8; two, IoU 1, above 5/8; one, IoU 1/2, above 7/8.
    expected = [1.0 if 0.375 <= number / 100 < 0.875 else 0.0 for number in range(100)]
    assert found.hits.tolist() == [expected]
    half = max_box_acc(maps, first_two, iou_threshold=0.5)
    assert half.hits.tolist() == [[1.0 if number / 100 >= 0.125 else 0.0 for number in range(100)]]
    assert max_box_acc(maps, first_two, iou_threshold=1).hits.sum() == 25  # 0.63, …, 0.87


def test_one_threshold_counts_for_all_examples() -> None:
    levels = torch.tensor([[[[4.0, 4.0, 1.0, 0.0]]], [[[4.0, 1.0, 0.0, 0.0]]]])
    first, second = torch.tensor([[0, 0, 3, 1]]), torch.tensor([[0, 0, 1, 1]])
    found = max_box_acc(levels, [first, second], iou_threshold=0.9)
    # The first is right below 1/4, the second from there on: each has a threshold, but not the same.
    assert found.hits.sum(1).tolist() == [25, 75]
    assert found.max_box_acc == 0.5


def test_any_box_may_match_and_all_components_if_asked() -> None:
    maps = torch.zeros(1, 1, 4, 9)
    maps[..., 0:2, 0:2] = 1
    maps[..., 1:4, 5:8] = 1  # the larger
    small, large = torch.tensor([[0, 0, 2, 2]]), torch.tensor([[5, 1, 8, 4]])
    assert max_box_acc(maps, [large]).max_box_acc == 1
    assert max_box_acc(maps, [small]).max_box_acc == 0
    assert max_box_acc(maps, [torch.cat([small, large])]).max_box_acc == 1
    assert max_box_acc(maps, [small], components="all").max_box_acc == 1


def test_pixels_that_touch_at_a_corner_are_connected() -> None:
    maps = torch.eye(4)[None, None]
    assert max_box_acc(maps, [torch.tensor([[0, 0, 4, 4]])], iou_threshold=1).max_box_acc == 1


def test_a_box_at_the_edge_is_clipped() -> None:
    maps = torch.zeros(1, 1, 4, 5)
    maps[..., 2:, 3:] = 1
    assert max_box_acc(maps, [torch.tensor([[3, 2, 6, 5]])], iou_threshold=1).max_box_acc == 1
    assert max_box_acc(maps, [torch.tensor([[-1, 0, 0, 4], [3, 2, 5, 4]])], iou_threshold=1).max_box_acc == 1


@pytest.mark.parametrize("value", [0.0, -0.7, 3.0])
def test_a_constant_map_has_no_hit(value: float) -> None:
    assert max_box_acc(torch.full((1, 1, 4, 5), value), [torch.tensor([[0, 0, 5, 4]])]).hits.eq(0).all()


def test_a_map_upsampled_to_the_image_has_the_boxes_of_the_image() -> None:
    small = torch.zeros(1, 1, 2, 2)
    small[..., 0, 0] = 1
    maps = torch.nn.functional.interpolate(small, (16, 16), mode="bilinear")
    assert max_box_acc(maps, [torch.tensor([[0, 0, 8, 8]])], iou_threshold=0.9).max_box_acc == 1
    with pytest.raises(ValueError, match="Resize maps to the size of the images"):
        max_box_acc(small, [torch.tensor([[0, 0, 8, 8]])])


def naive_boxes(pixels: list[list[bool]], components: str) -> list[tuple[int, int, int, int]]:
    """The boxes of components, each found by a flood fill."""
    left = {(y, x) for y, row in enumerate(pixels) for x, above in enumerate(row) if above}
    found: list[list[tuple[int, int]]] = []
    while left:
        component, todo = [], [left.pop()]
        while todo:
            y, x = todo.pop()
            component.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.append(component)
    if components == "largest":
        most = max(map(len, found), default=0)
        found = [component for component in found if len(component) == most]
    edges = [([y for y, _ in component], [x for _, x in component]) for component in found]
    return [(min(x), min(y), max(x) + 1, max(y) + 1) for y, x in edges]


def naive_iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    pixels = [{(x, y) for x in range(c[0], c[2]) for y in range(c[1], c[3])} for c in (a, b)]
    return len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])


@pytest.mark.parametrize("components", ["largest", "all"])
@pytest.mark.parametrize("iou_threshold", [0.3, 0.5])
def test_hits_are_those_of_a_flood_fill(components: Literal["largest", "all"], iou_threshold: float) -> None:
    maps = noise(5)
    found = max_box_acc(maps, BOXES, iou_threshold=iou_threshold, components=components)
    total = maps.sum(1)
    low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
    scaled = (total - low) / (high - low)
    for number in range(0, N_THRESHOLDS, 3):
        for example, boxes in enumerate(BOXES):
            predicted = naive_boxes((scaled[example] > found.thresholds[number]).tolist(), components)
            is_hit = any(naive_iou(a, tuple(b.tolist())) >= iou_threshold for a in predicted for b in boxes)
            if len(predicted) == 1 or components == "all":  # else several are the largest
                assert bool(found.hits[example, number]) == is_hit
    assert found.max_box_acc == found.hits.mean(0).max()
    assert 0 < found.hits.mean() < 1


def boxes_of_the_papers_code(image: Any, threshold: float) -> list[list[int]]:
    """As `compute_bboxes_from_scoremaps` of github.com/clovaai/wsolevaluation, for the largest contour."""
    height, width = image.shape
    _, above = cv2.threshold(image, int(threshold * image.max()), 255, cv2.THRESH_BINARY)
    contours = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return [[0, 0, 0, 0]]
    x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return [[x, y, min(x + w, width - 1), min(y + h, height - 1)]]


def test_clear_hits_and_misses_are_those_of_the_papers_code() -> None:
    """That code counts pixels of 8 bits, the area within a contour, and last pixels as parts of a box."""
    side = 64
    small = torch.rand(12, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(small, (side, side), mode="bicubic")
    low, high = smooth.amin((2, 3), keepdim=True), smooth.amax((2, 3), keepdim=True)
    maps = ((smooth - low) / (high - low) * 255).floor() / 255
    truth = torch.tensor([[12, 8, 44, 40]])
    lenient, strict = (max_box_acc(maps, [truth] * 12, iou_threshold=delta).hits for delta in (0.42, 0.58))
    compared = 0
    for example in range(12):
        image = (maps[example, 0] * 255).round().byte().numpy()
        for number in range(0, N_THRESHOLDS, 5):
            (found,) = boxes_of_the_papers_code(image, number / 100)
            overlap = naive_iou((found[0], found[1], found[2] + 1, found[3] + 1), (12, 8, 45, 41))
            if lenient[example, number] == strict[example, number]:
                compared += 1
                assert (overlap >= 0.5) == bool(strict[example, number])
    assert compared > 150
    assert strict.any()
    assert not lenient.all()


def test_masks_are_no_boxes() -> None:
    with pytest.raises(ValueError, match="Expected `regions` to be boxes, a tensor M×4 for each map, but got masks"):
        max_box_acc(INSIDE, INSIDE[0].bool())


@pytest.mark.parametrize("boxes", [torch.zeros(0, 4), torch.tensor([[-1.0, 0, 0, 3]])])
def test_an_example_without_a_box_in_its_image_raises(boxes: Tensor) -> None:
    with pytest.raises(ValueError, match="every region to contain at least one pixel of its image, but 1 do not"):
        max_box_acc(INSIDE, [boxes])


def test_a_map_with_nan_raises() -> None:
    with pytest.raises(ValueError, match=r"attributions.*finite|finite.*attributions"):
        max_box_acc(torch.where(INSIDE > 0, INSIDE, torch.nan), [BOX])


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"Expected `iou_threshold` in \(0, 1\], but got 0"):
        max_box_acc(INSIDE, [BOX], iou_threshold=0)
    with pytest.raises(ValueError, match="Expected `components` to be 'largest' or 'all', but got 'most'"):
        max_box_acc(INSIDE, [BOX], components="most")  # type: ignore[arg-type]


def test_without_scipy_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ModuleNotFoundError, match="max_box_acc needs scipy: pip install scipy"):
        max_box_acc(INSIDE, [BOX])

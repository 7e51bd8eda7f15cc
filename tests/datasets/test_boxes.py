"""Boxes of objects, and their regions."""

from __future__ import annotations

import pytest

from captum_scorecam.datasets.boxes import Box, draw_region, largest_object
from tests.support.images import white

WHERE = "0.1, 0.2, 0.5, 0.7 in line 2 of 'labels.csv'"


def test_the_label_with_the_largest_area_is_the_object() -> None:
    cat, dog, other_dog, line = Box(0, 0, 2, 2), Box(0, 0, 1, 1), Box(3, 0, 6, 2), Box(1, 1, 1, 4)
    assert largest_object([("cat", cat), ("dog", dog), ("dog", other_dog)]) == ("dog", (dog, other_dog))
    assert largest_object([("cat", cat), ("dog", cat)]) == ("cat", (cat,))
    assert largest_object([("cat", line), ("dog", dog)]) == ("dog", (dog,))
    assert largest_object([("cat", line)]) == largest_object([]) == (None, ())


def test_a_region_is_the_pixels_whose_centre_is_in_a_box() -> None:
    region = draw_region([Box(0.5, 1, 2.4, 3), Box(4, 0, 6, 1.6)], (6, 4), "a.png")
    assert white(region) == ["....##", "##..##", "##....", "......"]


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(-1, -1, 6, 4), (6, 4)),  # counted from 1 twice
        (Box(0, 0, 7, 5), (6, 4)),  # the maxima of a file that counts from 1
        (Box(0, 0, 5.93, 4.04), (6, 4)),  # rounded
        (Box(0, 0, 604, 4), (600, 4)),  # drawn on a smaller copy of the image
    ],
)
def test_a_box_may_slightly_exceed_the_image(box: Box, size: tuple[int, int]) -> None:
    assert draw_region([box], size, "a.png").getextrema() == (255, 255)


@pytest.mark.parametrize("box", [(-3, 0, 5, 4), (0, -3, 5, 4), (2, 1, 9, 4), (2, 1, 5, 7), (600, 400, 640, 480)])
def test_a_box_that_reaches_further_outside_raises(box: tuple[int, int, int, int]) -> None:
    message = r"Expected boxes in pixels of 'a\.png', 6×4, but got .*, which reaches outside the image"
    with pytest.raises(ValueError, match=message):
        draw_region([Box(0, 0, 6, 4), Box(*box)], (6, 4), "a.png")


@pytest.mark.parametrize(
    "boxes",
    [
        [Box(0.1, 0.2, 0.5, 0.7, WHERE)],
        [Box(0.1, 0.2, 0.5, 0.7, WHERE), Box(0, 0, 1, 1)],
        [Box(-0.9, -0.8, 0.5, 0.7, WHERE)],  # counted from 1
    ],
)
def test_boxes_in_fractions_of_the_image_raise(boxes: list[Box]) -> None:
    message = rf"boxes in pixels of 'a\.png', 640×480, but got {WHERE}, .* Multiply boxes given as fractions"
    with pytest.raises(ValueError, match=message):
        draw_region(boxes, (640, 480), "a.png")


def test_a_small_box_beside_others_and_the_only_pixel_are_no_fractions() -> None:
    assert white(draw_region([Box(0, 0, 1, 1), Box(2, 0, 4, 1)], (4, 1), "a.png")) == ["#.##"]
    assert white(draw_region([Box(0, 0, 1, 1)], (1, 1), "a.png")) == ["#"]


def test_a_box_beside_the_image_or_between_pixels_raises() -> None:
    for box in (Box(6, 0, 8, 4), Box(2.6, 1, 3.4, 3)):
        with pytest.raises(ValueError, match=r"Expected a box that contains a pixel of 'a\.png', 6×4, but got"):
            draw_region([box], (6, 4), "a.png")

"""How numbers are shown, in the terminal and in the report."""

from __future__ import annotations

import pytest

from captum_scorecam.evaluation.presentation import decimals, error_text, number_text, verdict
from captum_scorecam.evaluation.statistics import Estimate


def test_a_difference_is_better_or_worse_by_the_direction_of_its_metric() -> None:
    up, down, unclear = Estimate(1.0, 0.5, 1.5, 9), Estimate(-1.0, -1.5, -0.5, 9), Estimate(1.0, -0.1, 2.0, 9)
    assert [verdict(estimate, "insertion") for estimate in (up, down, unclear)] == ["better", "worse", None]
    assert [verdict(estimate, "deletion") for estimate in (up, down, unclear)] == ["worse", "better", None]
    assert verdict(up, "metric_of_a_plugin") is None
    assert verdict(Estimate(1.0, None, None, 1), "insertion") is None


@pytest.mark.parametrize(("largest", "places"), [(100.0, 1), (13.4, 1), (9.9, 2), (0.612, 3), (0.0123, 4), (0.0, 1)])
def test_numbers_are_shown_with_three_digits_of_the_largest(largest: float, places: int) -> None:
    assert decimals([0.0, None, -largest]) == places


def test_numbers_have_a_true_minus_and_a_dash_where_there_is_none() -> None:
    assert [number_text(value, 1) for value in (-1.26, 0.0, None)] == ["−1.3", "0.0", "–"]
    assert number_text(1.26, 1, signed=True) == "+1.3"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "exact"),
        (1e-5, "±<0.1%"),
        (0.0005, "±0.1%"),
        (0.0312, "±3.1%"),
        (0.0994, "±9.9%"),
        (0.0996, "±10%"),
        (2.5, "±250%"),
        (float("inf"), "error unknown"),
    ],
)
def test_an_error_is_a_percentage_with_the_digits_that_count(share: float, text: str) -> None:
    assert error_text(share) == text

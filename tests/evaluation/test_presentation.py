"""How numbers are shown, in the terminal and in the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from captum_scorecam.evaluation.presentation import decimals, error_text, evidence_text, number_text
from captum_scorecam.evaluation.statistics import Difference


def difference(mean: float, p: float | None) -> Difference:
    return Difference(mean, mean - 0.5, mean + 0.5, 12, 0.8, p, p)


@pytest.mark.parametrize(
    ("p", "text"), [(0.0002, "< 0.001"), (0.00417, "0.0042"), (0.0417, "0.042"), (0.417, "0.42"), (1.0, "1.00")]
)
def test_evidence_is_the_effect_size_and_the_corrected_p_value(p: float, text: str) -> None:
    assert evidence_text(difference(1.0, p)) == f"d 0.80, p {text}"
    assert evidence_text(difference(1.0, None)) == "d 0.80"
    assert evidence_text(replace(difference(0.0, p), effect_size=None)) == f"p {text}"


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

"""Moments of probabilities whose logits are normal, against numeric integration."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit

from captum_scorecam.budget.score_scale import LEAST_PROBABILITY, from_latent, softmax_changes, to_latent


def expectation(function: Callable[[float], float]) -> float:
    """Of a function of a standard normal variable, by adaptive quadrature."""

    def integrand(z: float) -> float:
        return function(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    return sum(float(quad(integrand, a, a + 2, epsabs=1e-13)[0]) for a in range(-10, 10, 2))


def moments(mean: float, deviation: float) -> tuple[float, float]:
    """Mean and variance of the logistic function of a normal variable, without the shift away from 0 and 1."""
    first, second = (
        expectation(lambda z, power=power: float(expit(mean + deviation * z)) ** power)  # type: ignore[misc]
        for power in (1, 2)
    )
    scale = 1 - 2 * LEAST_PROBABILITY
    return (first - LEAST_PROBABILITY) / scale, (second - first**2) / scale**2


@pytest.mark.parametrize(("deviation", "tolerance"), [(0.01, 1e-9), (0.5, 1e-9), (1.0, 1e-8), (2.0, 1e-4), (4.0, 5e-3)])
def test_moments_of_probabilities(deviation: float, tolerance: float) -> None:
    means = [-6.0, -2.0, -0.3, 0.0, 1.0, 4.0, 6.0]
    expected = [moments(mean, deviation) for mean in means]
    latent = torch.tensor(means, dtype=torch.float64)
    mean, variance = from_latent(latent, torch.full_like(latent, deviation**2), bounded=torch.tensor(True))
    assert mean.tolist() == pytest.approx([m for m, _ in expected], abs=tolerance)
    assert variance.tolist() == pytest.approx([v for _, v in expected], abs=tolerance)


def test_predictions_beyond_every_probability_are_0_and_1() -> None:
    latent = torch.tensor([-16.0, -30.0, -1e4, 16.0, 30.0, 1e4], dtype=torch.float64)
    mean, variance = from_latent(latent, torch.zeros_like(latent), bounded=torch.tensor(True))
    assert mean.tolist() == pytest.approx([0, 0, 0, 1, 1, 1], abs=1e-15)
    assert variance.tolist() == pytest.approx([0] * 6, abs=1e-30)


def test_a_huge_variance_leaves_a_probability_between_0_and_1() -> None:
    mean, variance = from_latent(
        torch.zeros(3).double(), torch.tensor([1e4, 1e8, 1e30]).double(), bounded=torch.tensor(True)
    )
    assert mean.tolist() == pytest.approx([0.5] * 3)
    assert all(0.1 < v <= 0.25 for v in variance.tolist())


@given(st.lists(st.floats(0, 1), min_size=1))
def test_a_probability_without_variance_is_itself(values: list[float]) -> None:
    scores = torch.tensor(values, dtype=torch.float64)
    latent = to_latent(scores, bounded=torch.tensor(True))
    assert latent.isfinite().all()
    mean, variance = from_latent(latent, torch.zeros_like(latent), bounded=torch.tensor(True))
    torch.testing.assert_close(mean, scores, rtol=0, atol=1e-15)
    assert variance.tolist() == pytest.approx([0.0] * len(values), abs=1e-30)


def test_probabilities_of_0_and_1_have_finite_logits() -> None:
    latent = to_latent(torch.tensor([0.0, -1e-9, 1.0, 1 + 1e-6]), bounded=torch.tensor(True))
    largest = math.log((1 - LEAST_PROBABILITY) / LEAST_PROBABILITY)
    assert latent.tolist() == pytest.approx([-largest, -largest, largest, largest])


def test_other_scores_stay_as_they_are() -> None:
    scores = torch.tensor([-1e6, 0.5, 3.0])
    assert torch.equal(to_latent(scores, bounded=torch.tensor(False)), scores.double())
    mean, variance = from_latent(scores, scores.square(), bounded=torch.tensor(False))
    assert torch.equal(mean, scores)
    assert torch.equal(variance, scores.square())


# --- Softmax-weighted means ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.1, 1.5, 3.0])
@pytest.mark.parametrize("gap", [0.0, 2.0])
def test_changes_of_a_softmax_weighted_mean(deviation: float, gap: float) -> None:
    logits, rise = torch.tensor([0.3, gap, -1.0, 0.1]).double(), torch.tensor([0.5, 0.2, 0.0, 1.0]).double()
    averages = torch.tensor([[1.0, 5.0], [2.0, -1.0], [0.5, 0.0], [4.0, 2.0]]).double()
    deviations = torch.full((4,), deviation).double()
    actual = softmax_changes(logits, rise, deviations, averages)
    mean = logits.softmax(0) @ averages

    def change(z: float, mask: int, cell: int) -> float:
        moved = logits.clone()
        moved[mask] += deviation * z - rise[mask]
        return float((moved.softmax(0) @ averages - mean)[cell])

    for mask in range(4):
        for cell in range(2):
            expected = math.sqrt(expectation(lambda z, mask=mask, cell=cell: change(z, mask, cell) ** 2))  # type: ignore[misc]
            assert abs(float(actual[mask, cell])) == pytest.approx(expected, rel=0.02)
        if mask != int(logits.argmax()):
            torch.testing.assert_close(actual[mask].sign(), (averages[mask] - mean).sign())


@pytest.mark.parametrize("size", [1e3, 1e6, 1e30])
def test_changes_of_logits_that_are_far_apart_and_as_uncertain(size: float) -> None:
    # The other one is the largest with a probability of 0.16, of which the mean would then consist
    logits, averages = torch.tensor([size, 0.0]).double(), torch.tensor([[0.0], [1.0]]).double()
    uncertain = softmax_changes(logits, torch.zeros(2).double(), torch.tensor([0.0, size]).double(), averages)
    assert uncertain.flatten().tolist() == pytest.approx([0.0, 0.159**0.5], abs=0.05)
    sunk = softmax_changes(logits, torch.zeros(2).double(), torch.tensor([size, 0.0]).double(), averages)
    assert sunk.flatten().tolist() == pytest.approx([-(0.159**0.5), 0.0], abs=0.05)

"""Moments of probabilities whose logits are normal, against numeric integration."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit

from captum_scorecam.budget.score_scale import LEAST_PROBABILITY, from_latent, to_latent


def moments(mean: float, deviation: float) -> tuple[float, float]:
    """Mean and variance of the logistic function of a normal variable, by adaptive quadrature."""

    def integral(power: int) -> float:
        def integrand(z: float) -> float:
            return float(expit(mean + deviation * z)) ** power * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        return sum(float(quad(integrand, a, a + 2, epsabs=1e-13)[0]) for a in range(-10, 10, 2))

    first = integral(1)
    return first, integral(2) - first**2


@pytest.mark.parametrize(("deviation", "tolerance"), [(0.01, 1e-9), (0.5, 1e-9), (1.0, 1e-8), (2.0, 1e-4), (4.0, 5e-3)])
def test_moments_of_probabilities(deviation: float, tolerance: float) -> None:
    means = [-13.8, -6.0, -2.0, -0.3, 0.0, 1.0, 4.0, 13.8]
    expected = [moments(mean, deviation) for mean in means]
    latent = torch.tensor(means, dtype=torch.float64)
    mean, variance = from_latent(latent, torch.full_like(latent, deviation**2), bounded=True)
    assert mean.tolist() == pytest.approx([m for m, _ in expected], abs=tolerance)
    assert variance.tolist() == pytest.approx([v for _, v in expected], abs=tolerance)


def test_a_huge_variance_leaves_a_probability_between_0_and_1() -> None:
    mean, variance = from_latent(torch.zeros(3).double(), torch.tensor([1e4, 1e8, 1e30]).double(), bounded=True)
    assert mean.tolist() == pytest.approx([0.5] * 3)
    assert all(0.1 < v <= 0.25 for v in variance.tolist())


def test_a_probability_without_variance_is_itself() -> None:
    scores = torch.tensor([1e-5, 0.2, 0.5, 0.99], dtype=torch.float64)
    mean, variance = from_latent(to_latent(scores, True), torch.zeros(4).double(), bounded=True)
    torch.testing.assert_close(mean, scores)
    assert variance.tolist() == pytest.approx([0.0] * 4, abs=1e-30)


def test_probabilities_of_0_and_1_have_finite_logits() -> None:
    latent = to_latent(torch.tensor([0.0, 1e-9, 1.0, 1 + 1e-6]), bounded=True)
    largest = math.log((1 - LEAST_PROBABILITY) / LEAST_PROBABILITY)
    assert latent.tolist() == pytest.approx([-largest, -largest, largest, largest])


def test_other_scores_stay_as_they_are() -> None:
    scores = torch.tensor([-1e6, 0.5, 3.0])
    assert torch.equal(to_latent(scores, bounded=False), scores.double())
    mean, variance = from_latent(scores, scores.square(), bounded=False)
    assert torch.equal(mean, scores)
    assert torch.equal(variance, scores.square())

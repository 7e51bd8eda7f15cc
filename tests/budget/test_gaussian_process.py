"""The Gaussian process against scikit-learn's, and its restricted likelihood against the direct formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern
from torch import Tensor

from captum_scorecam.budget.gaussian_process import KERNELS, PRIOR, Kernel, MaskSpace, Posterior, fit, matern

FLAT = 1e7  # the variance of scikit-learn's constant kernel: close to a constant mean of which nothing is known


def maps(n: int, size: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sklearns(points: Tensor, rows: Tensor, values: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all scores. scikit-learn's covariance leaves the noise out."""
    centred = points - points.mean(0)
    features = centred / centred.square().sum(1).mean().sqrt()  # of which the linear kernel's mean variance is 1
    length = kernel.length_scale * float(torch.pdist(features).median())
    process = GaussianProcessRegressor(
        Matern(length, nu=2.5) + kernel.linear * DotProduct(0.0, "fixed") + ConstantKernel(FLAT),
        alpha=kernel.nugget,
        optimizer=None,
    ).fit(features[rows].numpy(), values.numpy())
    mean, covariance = process.predict(features.numpy(), return_cov=True)
    return torch.from_numpy(mean), torch.from_numpy(covariance)


@pytest.mark.parametrize("kernel", [PRIOR, *KERNELS[::13]], ids=str)
@pytest.mark.parametrize(("n_masks", "n_known"), [(9, 1), (9, 4), (40, 15), (40, 39)])
def test_posterior_equals_scikit_learns(
    kernel: Kernel, n_masks: int, n_known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, rows = maps(n_masks), torch.randperm(n_masks, generator=torch.Generator().manual_seed(3))[:n_known]
    values = normal(n_known)
    mean, covariance = sklearns(points, rows, values, kernel)
    posterior = Posterior.given(MaskSpace(points), rows, kernel)
    torch.testing.assert_close(posterior.mean(values.unsqueeze(1))[:, 0], mean, rtol=0, atol=1e-5)

    covariance += kernel.nugget * torch.eye(n_masks)
    variance = covariance.diagonal()
    torch.testing.assert_close(posterior.variance(), variance, rtol=1e-5, atol=1e-5)
    unknown = torch.ones(n_masks, dtype=torch.bool).index_fill(0, rows, False).nonzero()[:, 0]
    correlation = (covariance / torch.outer(variance, variance).sqrt())[unknown][:, unknown]
    weights = normal(len(unknown), 4, seed=2)
    weights[:, 0] = 1
    expected = (weights * (correlation @ weights)).sum(0)
    for block in (2, 256):  # the number of masks whose covariances are in memory
        monkeypatch.setattr("captum_scorecam.budget.gaussian_process.BLOCK", block)
        torch.testing.assert_close(posterior.variance_of_sums(unknown, weights), expected, rtol=1e-5, atol=1e-5)


def test_every_target_is_predicted_alone() -> None:
    values = normal(5, 3)
    posterior = Posterior.given(MaskSpace(maps(9)), torch.arange(5), PRIOR)
    one_by_one = torch.cat([posterior.mean(values[:, t : t + 1]) for t in range(3)], dim=1)
    torch.testing.assert_close(posterior.mean(values), one_by_one)


def test_matern_by_hand() -> None:
    d = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    expected = [1.0, *((1 + a + a * a / 3) * math.exp(-a) for a in (math.sqrt(5) / 2, math.sqrt(5)))]
    assert matern(d, 2.0).tolist() == pytest.approx(expected)


def test_scale_of_distances_and_products_by_hand() -> None:
    # Points 0, 3, 7 on a line: distances 3, 4, 7 with median 4; centred at 10/3, squares 100/9, 1/9, 121/9, mean 74/9
    space = MaskSpace(torch.tensor([[0.0], [3.0], [7.0]]))
    linear = space.covariance(Kernel(1.0, 2.0, 0.0)) - space.covariance(Kernel(1.0, 0.0, 0.0))
    assert linear[0].tolist() == pytest.approx([2 * 100 / 74, 2 * 10 / 74, -2 * 110 / 74])
    of_distances = space.covariance(Kernel(0.5, 0.0, 0.0))[0]
    torch.testing.assert_close(of_distances, matern(torch.tensor([0.0, 3 / 4, 7 / 4]).double(), 0.5))


@pytest.mark.parametrize("n_masks", [2, 3, 4, 5, 16, 17])
def test_distances_are_in_units_of_their_median_however_many_are_in_memory(
    n_masks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = maps(n_masks)
    expected = torch.cdist(points, points) / torch.pdist(points).median()
    for block in (1, 4, 256):
        monkeypatch.setattr("captum_scorecam.budget.gaussian_process.BLOCK", block)
        torch.testing.assert_close(MaskSpace(points).distances(), expected, rtol=0, atol=1e-7)


def test_masks_that_nearly_agree_have_exact_distances() -> None:
    # |x|² + |y|² - 2xy would be rounding alone
    points = maps(1).repeat(40, 1)
    points[:, 0] = 0.5 + 1e-12 * torch.arange(40, dtype=torch.float64)
    steps = points[:, :1] - points[:, :1].T
    expected = matern(steps.abs() / torch.pdist(points).median(), 1.0)
    torch.testing.assert_close(MaskSpace(points).covariance(Kernel(1.0, 0.0, 0.0)), expected, rtol=0, atol=1e-9)


# --- The choice of the kernel ----------------------------------------------------------------------------------------


def restricted_likelihood(
    space: MaskSpace, rows: Tensor, values: Tensor, unmasked: Tensor, kernel: Kernel
) -> tuple[float, Tensor]:
    """-2 log of the likelihood of contrasts of the scores, at the best variance, and that variance for each target.

    The unmasked score adds 1/n of an observation.
    """
    n = len(rows)
    covariance = space.covariance(kernel, rows, rows) + kernel.nugget * torch.eye(n)
    contrasts = torch.linalg.qr(torch.cat([torch.ones(n, 1).double(), torch.eye(n).double()], dim=1)).Q[:, 1:]
    inner = contrasts.T @ covariance @ contrasts
    of_contrasts = contrasts.T @ values
    squares = (of_contrasts * torch.linalg.solve(inner, of_contrasts)).sum(0)
    prior_variance = 1 + kernel.linear + kernel.nugget
    degrees = n - 1 + 1 / n
    variance = (squares + (unmasked - values.mean(0)).square() / n / prior_variance) / degrees
    # log |V| + log 1'V⁻¹1 is log |A'VA| + log n for orthonormal contrasts A
    penalty = float(torch.logdet(inner)) + math.log(n) if n > 1 else 0.0
    return float((degrees * variance.log() + penalty).sum()), variance


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 1000))
def test_fit_maximises_the_restricted_likelihood(n: int, n_targets: int, seed: int) -> None:
    points, rows = maps(n + 2, seed=seed), torch.arange(n)
    space, smooth = MaskSpace(points), points[:n] @ normal(12, n_targets, seed=seed)
    values = smooth + (seed % 3) * normal(n, n_targets, seed=seed + 1)
    unmasked = normal(n_targets, seed=seed + 2)
    kernel, variance = fit(space, rows, values, unmasked)
    losses = [restricted_likelihood(space, rows, values, unmasked, each)[0] for each in KERNELS]
    loss, expected = restricted_likelihood(space, rows, values, unmasked, kernel)
    assert loss == pytest.approx(min(losses), abs=1e-8)
    torch.testing.assert_close(variance, expected)


def test_fit_tells_smooth_scores_from_noise() -> None:
    points, rows = maps(60), torch.arange(60)
    smooth, _ = fit(MaskSpace(points), rows, points @ normal(12, 1), torch.zeros(1))
    noise, _ = fit(MaskSpace(points), rows, normal(60, 1), torch.zeros(1))
    assert (smooth.linear, smooth.noise) == (max(k.linear for k in KERNELS), min(k.noise for k in KERNELS))
    assert noise.noise == max(k.noise for k in KERNELS)


@pytest.mark.parametrize("value", [0.0, 0.3, 1e6 / 3, -1e-6])
def test_constant_scores_are_predicted_exactly_with_no_variance(value: float) -> None:
    points, rows = maps(12), torch.arange(5)
    values = torch.full((5, 1), value, dtype=torch.float64)
    kernel, variance = fit(MaskSpace(points), rows, values, torch.full((1,), value, dtype=torch.float64))
    assert float(variance) <= 1e-20 * value**2
    mean = Posterior.given(MaskSpace(points), rows, kernel).mean(values)
    assert mean.tolist() == [[value]] * 12

"""How similar two maps are, against SciPy, naive loops and values by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from captum_scorecam.metrics.functional.map_similarity import cosine, rank_correlation, structural_similarity


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def similarity(maps: Tensor, original: Tensor) -> dict[str, list[float]]:
    flat, flat_original = maps.flatten(1), original.flatten(1)
    return {
        "spearman": rank_correlation(flat, flat_original).tolist(),
        "absolute_spearman": rank_correlation(flat.abs(), flat_original.abs()).tolist(),
        "ssim": structural_similarity(maps, original).tolist(),
        "cosine": cosine(flat, flat_original).tolist(),
    }


def naive_ssim(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic], window: tuple[int, ...]) -> float:
    """Returns SSIM (Wang et al., 2004) of maps in [0, 1]: uniform windows, mirrored edges, population variances."""
    widths = [(size // 2, size // 2) for size in window]
    a, b = (np.pad(x.astype(np.float64), widths, mode="reflect") for x in (a, b))
    c1, c2, values = 0.01**2, 0.03**2, []
    windows = [np.lib.stride_tricks.sliding_window_view(z, window).reshape(-1, np.prod(window)) for z in (a, b)]
    for x, y in zip(*windows, strict=True):
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        contrast = (2 * covariance + c2) / (x.var() + y.var() + c2)
        values.append((2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1) * contrast)
    return float(np.mean(values))


@pytest.mark.parametrize(("size", "window"), [((9, 8), (7, 7)), ((5, 12), (5, 7)), ((4, 4), (3, 3)), ((7, 7), (7, 7))])
def test_structural_similarity_agrees_with_a_naive_loop(size: tuple[int, int], window: tuple[int, int]) -> None:
    maps, original = (torch.rand(2, 1, *size, generator=seeded(seed), dtype=torch.float64) for seed in (1, 2))
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    of_low, of_high = original.amin((2, 3), keepdim=True), original.amax((2, 3), keepdim=True)
    scaled = [((maps - low) / (high - low)).numpy(), ((original - of_low) / (of_high - of_low)).numpy()]
    expected = [naive_ssim(scaled[0][n, 0], scaled[1][n, 0], window) for n in range(2)]
    assert similarity(3 * maps - 1, original)["ssim"] == pytest.approx(expected)


@pytest.mark.parametrize(("size", "window"), [((15,), (7,)), ((4, 9, 5), (3, 7, 5))])
def test_structural_similarity_in_one_and_three_dimensions(size: tuple[int, ...], window: tuple[int, ...]) -> None:
    maps, original = (torch.rand(1, 1, *size, generator=seeded(seed), dtype=torch.float64) for seed in (1, 2))
    for x in (maps, original):
        x -= x.min()
        x /= x.max()
    expected = naive_ssim(maps[0, 0].numpy(), original[0, 0].numpy(), window)
    assert similarity(maps, original)["ssim"] == [pytest.approx(expected)]


@pytest.mark.parametrize("side", [7, 300])
def test_rank_correlation_agrees_with_scipy(side: int) -> None:
    # Mostly zeros, as after a ReLU: the sum of the tied ranks of 300² pixels overflows 32 bits.
    maps, original = ((torch.randn(1, 1, side, side, generator=seeded(seed)) - 1.3).relu() for seed in (1, 2))
    maps[..., : side // 2] = original[..., : side // 2]
    expected = spearmanr(maps.flatten().numpy(), original.flatten().numpy()).statistic
    assert similarity(maps, original)["spearman"] == [pytest.approx(expected, abs=1e-6)]


def test_similarity_has_full_precision_under_autocast() -> None:
    ramp = torch.linspace(0.5, 1, 400).reshape(1, 1, 20, 20)
    maps, original = ramp, ramp + 0.01 * torch.rand(1, 1, 20, 20, generator=seeded(0))
    expected = similarity(maps, original)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert similarity(maps, original) == expected


def test_the_similarity_does_not_depend_on_the_scale() -> None:
    maps, original = (torch.randn(1, 1, 9, 9, generator=seeded(seed)) for seed in (1, 2))
    tiny = similarity(1e-30 * maps, 1e25 * original)
    assert tiny == {name: pytest.approx(value, abs=1e-4) for name, value in similarity(maps, original).items()}


@pytest.mark.parametrize(("value", "cosine"), [(0.0, 0.0), (2.0, 1 / 2**0.5)])
def test_a_constant_map_is_similar_to_nothing(value: float, cosine: float) -> None:
    original = torch.zeros(1, 1, 8, 8)
    original[..., 4:] = 1
    found = similarity(torch.full((1, 1, 8, 8), value), original)
    assert (found["spearman"], found["absolute_spearman"]) == ([0], [0])
    assert found["cosine"] == [pytest.approx(cosine)]
    assert found["ssim"] == [pytest.approx(naive_ssim(np.zeros((8, 8)), original[0, 0].numpy(), (7, 7)), abs=1e-6)]


def test_values_that_differ_in_sign_only_have_no_absolute_correlation() -> None:
    original = torch.ones(1, 1, 4, 4)
    original[..., :2] = -1
    assert similarity(original, original)["absolute_spearman"] == [0]

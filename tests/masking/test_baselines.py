"""Baselines computed from the inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur as torchvision_blur

from captum_scorecam.masking.baselines import blend, gaussian_blur, resolve_baselines


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_agrees_with_torchvision_away_from_the_edges() -> None:
    # At the edges torchvision reflects the image, and this function replicates it.
    x = noise(2, 3, 20, 24)
    expected = torchvision_blur(x, [11, 11], [5.0, 5.0])
    torch.testing.assert_close(gaussian_blur(x)[..., 5:-5, 5:-5], expected[..., 5:-5, 5:-5])


def test_edges_are_replicated() -> None:
    weights = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)  # exp(-1 / 2σ²) = 1/2
    sigma = (1 / (2 * torch.log(torch.tensor(2.0)))).sqrt().item()
    x = torch.tensor([[[8.0, 0.0, 4.0]]], dtype=torch.float64)
    expected = [(weights * torch.tensor(v)).sum().item() for v in ([8.0, 8.0, 0.0], [8.0, 0.0, 4.0], [0.0, 4.0, 4.0])]
    assert gaussian_blur(x, 3, sigma).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 3, 4, 3), (1, 2, 3, 4, 5)])
def test_a_constant_input_is_unchanged(shape: tuple[int, ...]) -> None:
    torch.testing.assert_close(gaussian_blur(torch.full(shape, 3.0)), torch.full(shape, 3.0))


def test_dimensions_are_blurred_one_after_another() -> None:
    a, b, c = noise(4), noise(5), noise(6)
    product = torch.einsum("i,j,k->ijk", a, b, c)[None, None]
    blurred = [gaussian_blur(line[None, None])[0, 0] for line in (a, b, c)]
    torch.testing.assert_close(gaussian_blur(product)[0, 0], torch.einsum("i,j,k->ijk", *blurred))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    x = noise(1, 1, 6, 6).to(dtype)
    expected = gaussian_blur(x.double()).to(dtype)
    assert gaussian_blur(x).dtype == dtype
    torch.testing.assert_close(gaussian_blur(x), expected)


@pytest.mark.parametrize(
    ("kernel_size", "sigma", "message"),
    [(4, 1.0, "Expected `kernel_size` to be odd and positive, but got 4"), (-1, 1.0, "but got -1"),
     (3, 0.0, "Expected `sigma` to be positive, but got 0.0")],
)  # fmt: skip
def test_wrong_options(kernel_size: int, sigma: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gaussian_blur(noise(1, 1, 6), kernel_size, sigma)


def test_a_callable_is_called_with_every_input() -> None:
    x = (noise(1, 1, 3), noise(1, 2, 4))
    first, second = resolve_baselines(x, lambda t: t + 1)
    assert torch.equal(first, x[0] + 1)
    assert torch.equal(second, x[1] + 1)
    assert torch.equal(resolve_baselines(x[0], lambda t: 2 * t), 2 * x[0])


@pytest.mark.parametrize("value", [None, 0.5, (1, 2)])
def test_values_are_returned_unchanged(value: object) -> None:
    assert resolve_baselines(noise(1, 1, 3), value) is value


def test_blur_by_name() -> None:
    x = noise(1, 2, 9, 8)
    assert torch.equal(resolve_baselines(x, "blur"), gaussian_blur(x))


def test_an_unknown_name() -> None:
    message = "Expected `baselines` to be 'blur' or a number, tensor, tuple or callable, but got 'black'"
    with pytest.raises(ValueError, match=message):
        resolve_baselines(noise(1, 1, 3), "black")


def test_autocast_does_not_blur_in_half_precision() -> None:
    x = noise(1, 2, 9, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        blurred = gaussian_blur(x)
    assert torch.equal(blurred, gaussian_blur(x))


def test_blend_mixes_towards_the_baseline() -> None:
    inputs = torch.tensor([[[2.0, 2.0, 2.0]]])
    masks = torch.tensor([[[0.0, 0.25, 1.0]]])
    assert blend(inputs, masks, torch.tensor(-2.0)).tolist() == [[[-2.0, -1.0, 2.0]]]

"""Images of noise."""

from __future__ import annotations

import torch

from captum_scorecam.layers.noise_images import noise_image


def test_noise_does_not_depend_on_the_default_dtype() -> None:
    x, default = torch.rand(1, 3, 9, 10), torch.get_default_dtype()
    expected = noise_image(x, torch.Generator().manual_seed(0))
    torch.set_default_dtype(torch.float64)
    try:
        found = noise_image(x, torch.Generator().manual_seed(0))
    finally:
        torch.set_default_dtype(default)
    torch.testing.assert_close(found, expected)

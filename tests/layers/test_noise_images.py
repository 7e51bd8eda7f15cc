"""Images of noise."""

from __future__ import annotations

import torch

from captum_scorecam.layers.noise_images import noise_image
from tests.support.default_dtype import default_dtype, other_default_dtypes


@other_default_dtypes
def test_noise_does_not_depend_on_the_default_dtype(dtype: torch.dtype) -> None:
    x = torch.rand(1, 3, 9, 10)
    expected = noise_image(x, torch.Generator().manual_seed(0))
    with default_dtype(dtype):
        found = noise_image(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected)

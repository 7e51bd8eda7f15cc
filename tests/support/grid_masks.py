"""A naive mask from one random grid, as a reference for the RISE tests."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tests.naive_reference import UPSAMPLING


def naive_mask(grid: Tensor, shift: Tensor, size: tuple[int, ...]) -> Tensor:
    """One grid, upsampled whole by PyTorch and cropped, in float64."""
    cell = [-(-pixels // cells) for pixels, cells in zip(size, grid.shape, strict=True)]
    whole = [c * (cells + 1) for c, cells in zip(cell, grid.shape, strict=True)]
    mask = F.interpolate(grid.double()[None, None], whole, mode=UPSAMPLING[len(size)], align_corners=False)[0, 0]
    for dimension, (c, pixels) in enumerate(zip(cell, size, strict=True)):
        mask = mask.narrow(dimension, int(float(shift[dimension]) * c), pixels)
    return mask

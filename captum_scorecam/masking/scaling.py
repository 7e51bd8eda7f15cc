"""Resizes maps and scales them to [0, 1]. Pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

INTERPOLATION_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes maps with linear, bilinear or trilinear interpolation, by rank (``align_corners=False``).

    Args:
        maps (Tensor): Shape N×K×h, N×K×h×w or N×K×d×h×w.
        size (sequence of int): Spatial size of the result.

    Returns:
        Tensor: N×K×*size.
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode=INTERPOLATION_MODES[maps.dim() - 2], align_corners=False)


def min_max_normalize(maps: Tensor) -> Tensor:
    """Scales each map of each example to [0, 1]: s(A) = (A − min A) / (max A − min A).

    A map that is constant up to rounding (see `varies`) becomes zero instead of 0/0.

    Args:
        maps (Tensor): Shape N×K×spatial, floating point.

    Returns:
        Tensor: Scaled maps with the shape of `maps`.
    """
    spatial = tuple(range(2, maps.dim()))
    low, high = maps.amin(spatial, keepdim=True), maps.amax(spatial, keepdim=True)
    span = high - low
    constant = span <= 2 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    return (maps - low).div_(span.masked_fill_(constant, torch.inf))  # one pass less than with torch.where


def varies(maps: Tensor) -> Tensor:
    """Checks which maps vary by more than rounding: max A − min A > 2 ε max |A|, with ε of the maps' dtype.

    Args:
        maps (Tensor): Shape N×K×spatial, floating point.

    Returns:
        Tensor: N×K, bool.
    """
    flat = maps.flatten(2).to(working_dtype(maps.dtype))
    span = flat.amax(2) - flat.amin(2)
    return span > 2 * torch.finfo(maps.dtype).eps * flat.abs().amax(2)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype in which masks, scores and weights are computed: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def precise(values: Tensor) -> Tensor:
    """Converts values to float64, or to float32 on a device without it."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)

"""Images of noise that differ as a whole or in one slab."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_N_SLABS = 4


def noise_image(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of the mean, spread and range of an input, coarse and fine, since layers may respond to one of them."""
    if x.dim() < 3:
        return x.detach().clone()
    values = x.detach().float().nan_to_num()
    fine = torch.randn(x.shape, generator=generator, dtype=torch.float32, device="cpu")
    cells = (-(-size // 8) for size in x.shape[2:])
    coarse = torch.randn(*x.shape[:2], *cells, generator=generator, dtype=torch.float32, device="cpu")
    for axis, size in enumerate(x.shape[2:], start=2):
        coarse = coarse.index_select(axis, torch.arange(size, device="cpu") // 8)
    noise = ((fine + coarse) / 2**0.5).to(x.device)
    spread = values.std() if x.numel() > 1 else values.new_zeros(())
    if not spread > 0:
        return (values.mean() + noise).to(x.dtype)
    return (values.mean() + spread * noise).clamp(values.min(), values.max()).to(x.dtype)


def slab_bounds(size: int, most: int = _N_SLABS) -> list[int]:
    """The bounds of up to `most` slabs along a dimension."""
    n_slabs = min(most, size)
    return [size * k // n_slabs for k in range(n_slabs + 1)]


def with_slab(bounds: list[int], dimension: int, k: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns a function that replaces one slab of an image by that of another."""

    def replaced(first: Tensor, second: Tensor) -> Tensor:
        if first.dim() - 2 <= dimension:
            return first
        size = first.shape[dimension + 2]
        start, stop = (bound * size // bounds[-1] for bound in (bounds[k], bounds[k + 1]))
        new = first.clone()
        new.narrow(dimension + 2, start, stop - start).copy_(second.narrow(dimension + 2, start, stop - start))
        return new

    return replaced

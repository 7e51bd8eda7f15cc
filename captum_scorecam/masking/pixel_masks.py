"""Pixel masks: precomputed ones, and ones that keep or remove the highest-ranked pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_scorecam._captum import Tensors


@dataclass(frozen=True)
class StoredMasks:
    """Precomputed masks, all held in memory.

    Attributes:
        values (Tensor): M×P, in [0, 1], over the concatenated P pixels of all inputs.
        examples (Tensor): Shape M, the example that each mask is applied to.
        sizes (tuple): The spatial size of each input tensor.
    """

    values: Tensor
    examples: Tensor
    sizes: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor) -> Tensors:
        """Returns the masks at the given rows: one tensor per input, len(rows)×1×size."""
        return _split_by_input(self.values[rows], self.sizes)


@dataclass(frozen=True)
class RankMasks:
    """Masks that keep or remove each order's first pixels, computed a few at a time; those of one rank fade together.

    Attributes:
        before (Tensor): R×P, the number of pixels with a higher rank, as :func:`shared_ranks` or :func:`pixel_ranks`
            returns them.
        sharing (Tensor): R×P or R×1, the number of pixels with the same rank; ones without ties.
        counts (Tensor): Shape S, the numbers of pixels to keep or remove. Each of the R orders has S masks.
        examples_of_orders (Tensor): Shape R, the example that each order belongs to.
        keeps_first (bool): Whether to keep the first pixels (insertion) or remove them (deletion).
        sizes (tuple): The spatial size of each input tensor.
        dtype (torch.dtype): The masks' dtype.
    """

    before: Tensor
    sharing: Tensor
    counts: Tensor
    examples_of_orders: Tensor
    keeps_first: bool
    sizes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    @property
    def examples(self) -> Tensor:
        """The example that each mask is applied to, shape R·S."""
        return self.examples_of_orders.repeat_interleave(len(self.counts))

    def __len__(self) -> int:
        return len(self.before) * len(self.counts)

    def __getitem__(self, rows: Tensor) -> Tensors:
        """Returns the masks at the given rows: one tensor per input, len(rows)×1×size, in [0, 1]."""
        order, step = rows // len(self.counts), rows % len(self.counts)
        first = (self.counts[step].unsqueeze(1) - self.before[order]).to(self.dtype) / self.sharing[order]
        first = first.clamp(0, 1)
        return _split_by_input(first if self.keeps_first else 1 - first, self.sizes)


def shared_ranks(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the number of pixels with a higher value, and of those with the same, for values N×P; N×P each."""
    before, sharing = [], []
    for row in values:
        _, place, counts = torch.unique(-row, return_inverse=True, return_counts=True)
        before.append((counts.cumsum(0) - counts)[place])
        sharing.append(counts[place])
    return torch.stack(before), torch.stack(sharing)


def pixel_ranks(values: Tensor) -> Tensor:
    """Returns the rank of each pixel for values N×P; the highest has rank 0, and ties go to the earlier pixel."""
    return values.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def _split_by_input(values: Tensor, sizes: Sequence[tuple[int, ...]]) -> Tensors:
    """Splits flat masks R×P into one tensor R×1×size per input."""
    parts = torch.split(values, [math.prod(size) for size in sizes], dim=1)
    return tuple(part.reshape(-1, 1, *size) for part, size in zip(parts, sizes, strict=True))

"""The order in which a tensor's dimensions lie in memory: contiguous, channels-last, or any other."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

MemoryOrder: TypeAlias = tuple[int, ...]


def memory_order(x: Tensor) -> MemoryOrder:
    """Returns a tensor's dimensions from the outermost to the innermost in memory, as contiguous ones if they overlap.

    A dimension of size 1 may be anywhere; the first one, of a single example, is outermost, as in a larger batch.
    """
    strides = x.stride()
    overlaps = any(stride == 0 and size > 1 for stride, size in zip(strides, x.shape, strict=True))
    if x.is_contiguous() or overlaps:
        return tuple(range(x.dim()))
    if is_channels_last(x):
        return channels_last_order(x.dim())
    first = [0] if len(x) == 1 else []
    return (*first, *sorted(range(len(first), x.dim()), key=lambda dimension: -strides[dimension]))


def channels_last_order(n_dimensions: int) -> MemoryOrder:
    """Returns the order of N×C×spatial with the channels innermost."""
    return (0, *range(2, n_dimensions), 1)


def is_channels_last(x: Tensor) -> bool:
    """Checks whether a tensor is N×C×spatial with the channels innermost in memory."""
    return x.dim() > 2 and x.permute(channels_last_order(x.dim())).is_contiguous()


def in_memory_order(x: Tensor, order: MemoryOrder) -> Tensor:
    """Returns the tensor with its dimensions in the given order in memory, copied if it has another."""
    permuted = x.permute(order)
    if permuted.is_contiguous():
        return x
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return permuted.contiguous().permute(inverse)

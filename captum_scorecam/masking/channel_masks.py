"""Masks in [0, 1] from the channels of an activation. Pure functions of tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_scorecam.masking.scaling import min_max_normalize, precise, resize, varies, working_dtype

EQUAL_TO_ROUNDING = 32  # multiples of the dtype's epsilon, for values in [0, 1]


def most_varied(maps: Tensor, max_channels: int) -> Tensor:
    """Selects the `max_channels` channels of each example with the largest standard deviation (Faster-Score-CAM).

    Args:
        maps (Tensor): Shape N×K×spatial.
        max_channels (int): Number of channels to select, at least 1.

    Returns:
        Tensor: N×K, bool; True for the selected channels.
    """
    deviation = maps.flatten(2).to(working_dtype(maps.dtype)).std(2, correction=0)
    kept = deviation.topk(min(max_channels, maps.shape[1]), dim=1).indices
    return torch.zeros_like(deviation, dtype=torch.bool).scatter_(1, kept, True)


@dataclass(frozen=True)
class ChannelMasks:
    """The masks H_k = s(U(A_k)) of a layer's channels, computed a few at a time.

    A channel with a constant map has no mask. If a map is constant at the size of only one of several inputs, its mask
    for that input is zero, which hides the input completely. Channels of the same example whose scaled maps are equal
    (positive affine copies of each other) share a mask.

    Attributes:
        maps (Tensor): P×1×spatial, the distinct scaled maps at the layer's resolution.
        examples (Tensor): Shape P, the example that each mask belongs to, in ascending order.
        index (Tensor): N×K, the index of each channel's mask; −1 for none.
        sizes (tuple): The spatial size of each input tensor.
        n_constant (int): Number of constant channels among the N·K.
    """

    maps: Tensor
    examples: Tensor
    index: Tensor
    sizes: tuple[tuple[int, ...], ...]
    n_constant: int

    @classmethod
    def from_activations(
        cls, activations: Tensor, sizes: tuple[tuple[int, ...], ...], max_channels: int | None = None
    ) -> ChannelMasks:
        """Computes the distinct masks of activations N×K×spatial for inputs of the given spatial sizes."""
        maps = activations.to(working_dtype(activations.dtype))
        masked = torch.stack([varies(_at_most(activations, size)) for size in sizes]).any(0)
        n_constant = masked.numel() - int(masked.sum())
        if max_channels is not None:
            constant = ~masked.reshape(*masked.shape, *[1] * (maps.dim() - 2))
            masked &= most_varied(maps.masked_fill(constant, 0), max_channels)
        examples = masked.nonzero()[:, 0]
        scaled = min_max_normalize(maps).flatten(2)[masked]
        group, first = _equal_rows(scaled, examples)
        index = torch.full_like(masked, -1, dtype=torch.long)
        index[masked] = group
        return cls(scaled[first].reshape(-1, 1, *maps.shape[2:]), examples[first], index, sizes, n_constant)

    @classmethod
    def from_baselines(cls, n_examples: int, sizes: tuple[tuple[int, ...], ...], like: Tensor) -> ChannelMasks:
        """Returns one all-zero mask per example, which leaves only the baseline."""
        examples = torch.arange(n_examples, device=like.device)
        maps = like.new_zeros(n_examples, *[1] * (1 + len(sizes[0])), dtype=working_dtype(like.dtype))
        return cls(maps, examples, examples.unsqueeze(1), sizes, 0)

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Returns the masks at the given rows: one tensor per input, len(rows)×1×size, in [0, 1]."""
        return tuple(min_max_normalize(resize(self.maps[rows], size)) for size in self.sizes)

    def rows_of(self, example: int) -> Tensor:
        """Returns the indices of the masks of an example."""
        return (self.examples == example).nonzero()[:, 0]

    def by_channel(self, scores: Tensor) -> Tensor:
        """Maps scores of masks, P×T, to scores of channels, N×K×T; 0 for channels without a mask."""
        return torch.cat([scores, scores.new_zeros(1, scores.shape[1])])[self.index]

    @property
    def n_sharing(self) -> Tensor:
        """The number of channels that have each mask, shape P."""
        return self.index[self.index >= 0].bincount(minlength=len(self))

    def sums(self, values: Tensor) -> Tensor:
        """Sums values of channels, N×K×D, over the channels that share a mask: P×D."""
        masked = self.index >= 0
        rows, terms = self.index[masked], values[masked].to(self.maps.dtype)
        sums = self.maps.new_zeros(len(self), values.shape[2])
        if sums.is_cuda:  # where index_add_ adds in any order; on the CPU, it is index_put_ that does
            return sums.index_put_((rows,), terms, accumulate=True)
        return sums.index_add_(0, rows, terms)


def _equal_rows(rows: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
    """Groups the rows (R×D, in [0, 1]) of each example that are equal up to rounding.

    Rows are sorted by their dot product with a random vector, which makes equal rows adjacent. In float64, where there
    is one, so that ranks on different hardware, which add in other orders, sort alike.

    Returns:
        tuple: The group of each row (R), in ascending order of examples, and the first row of each group.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    vector = torch.rand(rows.shape[1], generator=generator, dtype=rows.dtype, device="cpu")
    with torch.autocast(rows.device.type, enabled=False):  # which would round the product
        order = (precise(rows) @ precise(vector.to(rows.device))).argsort(stable=True)
    order = order[examples[order].argsort(stable=True)]
    differ = rows[order].diff(dim=0).abs().amax(1) > EQUAL_TO_ROUNDING * torch.finfo(rows.dtype).eps
    starts = torch.ones_like(examples, dtype=torch.bool)
    starts[1:] = differ | (examples[order].diff() != 0)
    group = torch.empty_like(examples)
    group[order] = starts.cumsum(0) - 1
    return group, order[starts]


def _at_most(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    # Downsampling can make a map constant; upsampling cannot.
    return resize(maps, [min(have, wanted) for have, wanted in zip(maps.shape[2:], size, strict=True)])

"""Attributions as masks of pixels, and the scores of the inputs that they mask: what two of the measures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import Tensors
from captum_scorecam.masking.scaling import resize, working_dtype


def pixel_values(attributions: Tensor | Tensors, inputs: Tensors) -> Tensor:
    """Brings attributions into one form: a value for each pixel.

    Args:
        attributions (Tensor or tuple of Tensor): For each input tensor one, N×1×spatial or N×C×spatial (summed over
            the channels), of the input's spatial size, or smaller, which is resized linearly.
        inputs (tuple of Tensor): Each N×C×spatial.

    Returns:
        Tensor: N×P, float32 (float64 for float64), the pixels of all inputs side by side.

    Raises:
        ValueError: If an attribution does not fit its input, or is not finite.
    """
    given = _captum.format_inputs(attributions)
    if len(given) != len(inputs):
        raise ValueError(f"Expected an attribution for each of {len(inputs)} inputs, but got {len(given)}.")
    maps = [_map_of(attribution.detach(), x) for attribution, x in zip(given, inputs, strict=True)]
    return torch.cat([pixels.flatten(1) for pixels in maps], dim=1)


def pixel_ranks(values: Tensor) -> Tensor:
    """The place of each pixel, N×P, from 0 for the highest value; of equal ones the earlier pixel comes first."""
    return values.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def as_masks(values: Tensor, sizes: Sequence[tuple[int, ...]]) -> Tensors:
    """Undoes the flattening: values R×P as one tensor R×1×size for each of the sizes."""
    parts = torch.split(values, [math.prod(size) for size in sizes], dim=1)
    return tuple(part.reshape(-1, 1, *size) for part, size in zip(parts, sizes, strict=True))


@dataclass(frozen=True)
class StoredMasks:
    """Masks that all exist at once.

    Attributes:
        values (Tensor): Shape P×pixels, in [0, 1].
        examples (Tensor): Shape P, the example that each mask is applied to.
        sizes (tuple): The spatial size of each input tensor.
    """

    values: Tensor
    examples: Tensor
    sizes: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor) -> Tensors:
        """The masks of some rows: for each input tensor one, shape len(rows)×1×size."""
        return as_masks(self.values[rows], self.sizes)


@dataclass(frozen=True)
class RankMasks:
    """Binary masks that keep, or remove, each example's highest pixels, for one number of pixels after another.

    Attributes:
        ranks (Tensor): N×pixels, as :func:`pixel_ranks` gives them.
        counts (Tensor): Shape S, ascending: how many pixels to keep or remove. Each example has S masks.
        keeps_highest (bool): Whether the highest pixels are kept (insertion) or removed (deletion).
        sizes (tuple): The spatial size of each input tensor.
        dtype (torch.dtype): The masks' dtype.
    """

    ranks: Tensor
    counts: Tensor
    keeps_highest: bool
    sizes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    @property
    def examples(self) -> Tensor:
        """Shape N·S: the example that each mask is applied to."""
        return torch.arange(len(self.ranks), device=self.ranks.device).repeat_interleave(len(self.counts))

    def __len__(self) -> int:
        return len(self.ranks) * len(self.counts)

    def __getitem__(self, rows: Tensor) -> Tensors:
        """The masks of some rows: for each input tensor one, shape len(rows)×1×size, of zeros and ones."""
        example, step = rows // len(self.counts), rows % len(self.counts)
        highest = self.ranks[example] < self.counts[step].unsqueeze(1)
        return as_masks((highest == self.keeps_highest).to(self.dtype), self.sizes)


def _map_of(attributions: Tensor, inputs: Tensor) -> Tensor:
    _check_fits(attributions, inputs)
    maps = attributions.to(inputs.device, working_dtype(attributions.dtype)).sum(1, keepdim=True)
    return resize(maps, inputs.shape[2:])


def _check_fits(attributions: Tensor, inputs: Tensor) -> None:
    given, wanted = tuple(attributions.shape), tuple(inputs.shape)
    if (
        len(given) != len(wanted)
        or given[0] != wanted[0]
        or given[1] not in (1, wanted[1])
        or any(have > most for have, most in zip(given[2:], wanted[2:], strict=True))
    ):
        raise ValueError(
            f"Expected attributions of shape N×1×spatial or N×C×spatial, not larger than the input {wanted}, "
            f"but got shape {given}."
        )
    check_finite(attributions)


def check_finite(attributions: Tensor) -> None:
    """Raises ValueError, with the first example, where attributions N×… are NaN or infinite."""
    bad = ~attributions.isfinite().flatten(1).all(1)
    if bad.any():
        raise ValueError(
            f"Expected finite attributions, but got NaN or Inf for {int(bad.sum())} of {len(bad)} examples, "
            f"the first of them example {int(bad.nonzero()[0])}."
        )

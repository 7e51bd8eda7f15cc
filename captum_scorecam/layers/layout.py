"""How an activation holds image positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_scorecam.masking.activation_maps import swin_activation_maps, vit_activation_maps

ActivationTransform: TypeAlias = Callable[[Tensor], Tensor]

# Maps of so few cells, or signals of so few steps, may react everywhere, or be read only in part, with a stride.
FEW_CELLS, FEW_STEPS = 16, 4


@dataclass(frozen=True)
class Layout:
    """How an activation holds image positions.

    Attributes:
        form (str): ``maps`` N×K×grid, ``channels_last`` N×grid×K, ``tokens`` N×(P + cells)×K, or ``flat_maps``
            N×K×cells.
        grid (tuple of int): The cells along each dimension of the image.
        channels (int): K.
        prefix_tokens (int): P. Default: 0.
        suffix_tokens (int): The tokens after the patches. Default: 0.
        batch_axis (int): 1 for tokens of shape S×N×K, else 0. Default: 0.
    """

    form: Literal["maps", "channels_last", "tokens", "flat_maps"]
    grid: tuple[int, ...]
    channels: int
    prefix_tokens: int = 0
    suffix_tokens: int = 0
    batch_axis: int = 0

    @property
    def transform(self) -> ActivationTransform | None:
        """Converts the activation to maps N×K×grid. None if it already has that shape."""
        if self.form == "maps":
            return None
        if self.form == "flat_maps":
            return partial(_unflattened_maps, grid_size=self.grid)
        transform = self._of_tokens() if self.form == "tokens" or len(self.grid) == 1 else swin_activation_maps
        return partial(_of_sequence_first, transform=transform) if self.batch_axis else transform

    @property
    def is_flat(self) -> bool:
        """Whether cells lie along one axis, so that the transform is only right for inputs with this grid."""
        return self.form in ("tokens", "flat_maps") or (self.form == "channels_last" and len(self.grid) == 1)

    def _of_tokens(self) -> ActivationTransform:
        if self.prefix_tokens == 1 and len(self.grid) == 2 and self.grid[0] == self.grid[1]:
            return vit_activation_maps
        return partial(vit_activation_maps, prefix_tokens=self.prefix_tokens, grid_size=self.grid)

    def maps_of(self, activation: Tensor) -> Tensor:
        """Returns a view of the activation as maps N×K×grid."""
        values = activation.movedim(self.batch_axis, 0)
        if self.form == "tokens":
            cells = values.narrow(1, self.prefix_tokens, math.prod(self.grid))
            return torch.unflatten(cells, 1, self.grid).movedim(-1, 1)
        if self.form == "flat_maps":
            return torch.unflatten(values, -1, self.grid)
        return values if self.form == "maps" else values.movedim(-1, 1)

    def swap_positions(self, activation: Tensor) -> Tensor:
        """Swaps the image positions of two examples, but not their prefix tokens."""
        swapped = activation.clone()
        self.maps_of(swapped).copy_(self.maps_of(activation.flip(self.batch_axis)))
        return swapped

    def with_half(self, activation: Tensor, is_first: bool) -> Tensor:
        """Replaces half of the positions of two examples by ten times those of the other, which a maximum will take."""
        changed = activation.clone()
        dimension = 2 + max(range(len(self.grid)), key=lambda d: self.grid[d])
        half = slice(None, self.grid[dimension - 2] // 2) if is_first else slice(self.grid[dimension - 2] // 2, None)
        place = (slice(None),) * dimension + (half,)
        self.maps_of(changed)[place] = 10 * self.maps_of(activation.flip(self.batch_axis))[place]
        return changed


def _unflattened_maps(maps: Tensor, grid_size: tuple[int, ...]) -> Tensor:
    return torch.unflatten(maps, -1, grid_size)


def _of_sequence_first(tokens: Tensor, transform: ActivationTransform) -> Tensor:
    return transform(tokens.transpose(0, 1))


def has_one_stride(grid: Sequence[int], size: Sequence[int]) -> bool:
    """Whether one stride explains a grid's last two sides, to within a cell; equal sides have equal cells."""
    (height, width), cells = size[-2:], grid[-2:]
    if any(n > pixels for n, pixels in zip(grid, size, strict=True)) or (height == width and cells[0] != cells[1]):
        return False
    least = max(height / (cells[0] + 1), width / (cells[1] + 1))
    most = min(height / max(cells[0] - 1, 1e-9), width / max(cells[1] - 1, 1e-9))
    return least < most

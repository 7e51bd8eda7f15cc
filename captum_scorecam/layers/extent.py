"""Whether maps cover the image, the whole of it and no more, with each cell at its own place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from captum_scorecam._captum import Tensors
from captum_scorecam.layers.activations import Activation, squared_changes
from captum_scorecam.layers.layout import Layout, has_one_stride
from captum_scorecam.layers.noise_images import slab_bounds, with_slab
from captum_scorecam.layers.placement import are_in_place
from captum_scorecam.layers.probe import Probe

# Images are drawn again, with more contrast, before a part is said to have no effect: units may be 0 for some.
_CONTRASTS = (1.0, 1.0, 2.0, 4.0, 8.0, 8.0)
_MOST_IDLE = 1  # rows of cells at the edges that the image need not reach, as for sizes that are padded
_N_SLABS = 8
# Patch sizes and strides leave out pixels at the far edges, fewer than a cell has. At the near ones, part of the first
# cell must be read.
_NEAR_EDGE = 1 / 4
_FEWEST_PIXELS = 2


def misfit(probe: Probe, activation: Activation, layout: Layout) -> str:
    """What an activation does that maps of the image don't, as "leaves out …"; "" if there is nothing.

    The map of a model that crops, pads or shifts its inputs would be shown at the wrong places of the image.
    """
    unread = displaced = [dimension for dimension, cells in enumerate(layout.grid) if cells > 1]
    usual = len(layout.grid) == 1 or has_one_stride(layout.grid, probe.size)
    idle = torch.ones(layout.grid, dtype=torch.bool, device="cpu")
    rows = {d: torch.zeros((), device="cpu") for d in displaced}  # of all draws, since few are not enough for some
    for contrast in _CONTRASTS:
        changes = _Changes(probe, activation, layout, probe.noise(contrast))
        unread = [dimension for dimension in unread if not changes.include_edges(dimension)]
        for dimension in rows:
            of_slabs = changes.of_slabs(dimension)
            idle &= ~of_slabs.any(0)
            rows[dimension] = rows[dimension] + _of_rows(of_slabs, dimension)
        displaced = [
            d for d in displaced if not are_in_place(rows[d], slab_bounds(probe.size[d], _N_SLABS), is_usual=usual)
        ]
        if not unread and not displaced and not _rows_are_idle(idle):
            return ""
    if unread:
        return "leaves out pixels at the edges of the image, as if the model cropped it"
    if _rows_are_idle(idle):
        return "has rows of cells that do not depend on the image, as if the model padded it"
    return "follows the image at other places than its own, as if the model padded, shifted or mirrored it"


@dataclass(frozen=True)
class _Changes:
    """How the cells of maps change when a slab of one image is replaced by that of another."""

    probe: Probe
    activation: Activation
    layout: Layout
    images: list[Tensors]

    def include_edges(self, dimension: int) -> bool:
        """Whether the maps change with both edges of the images."""
        size, cells = self.probe.size[dimension], self.layout.grid[dimension]
        far = -(-size // cells)
        near = min(far, max(_FEWEST_PIXELS, round(_NEAR_EDGE * far)))
        edges = [with_slab([0, near, size], dimension, 0), with_slab([0, size - far, size], dimension, 1)]
        return all(bool(change.any()) for change in self._of(edges))

    def of_slabs(self, dimension: int) -> Tensor:
        """The mean squared change over channels, in units of the largest activation, n_slabs×grid."""
        bounds = slab_bounds(self.probe.size[dimension], _N_SLABS)
        return torch.stack(list(self._of([with_slab(bounds, dimension, k) for k in range(len(bounds) - 1)])))

    def _of(self, replaced: list[Callable[[Tensor, Tensor], Tensor]]) -> Iterator[Tensor]:
        first, second = self.images
        for start in range(0, len(replaced), 2):
            pair = [tuple(map(slab, first, second)) for slab in replaced[start : start + 2]]
            changes = squared_changes(self._maps(pair[0], pair[-1]), self._base)
            yield from changes.mean(1).cpu()[: len(pair)]

    @cached_property
    def _base(self) -> Tensor:
        return self._maps(self.images[0], self.images[0])

    def _maps(self, first: Tensors, second: Tensors) -> Tensor:
        return self.layout.maps_of(self.probe.read(self.activation, first, second)).nan_to_num(0, 0, 0)


def _of_rows(of_slabs: Tensor, dimension: int) -> Tensor:
    """The share of the changes, n_slabs×rows of cells along a dimension."""
    by_row = of_slabs.double().movedim(dimension + 1, 1)
    changes = by_row.reshape(*by_row.shape[:2], -1).mean(2)
    return changes / changes.sum().clamp_min(torch.finfo(changes.dtype).tiny)


def _rows_are_idle(idle: Tensor) -> bool:
    for dimension in range(idle.dim()):
        rows = idle.movedim(dimension, 0).reshape(idle.shape[dimension], -1).all(1).tolist()
        reached = [row for row, is_idle in enumerate(rows) if not is_idle]
        if not reached or reached[0] > _MOST_IDLE or len(rows) - 1 - reached[-1] > _MOST_IDLE:
            return True
    return False

"""Whether maps cover the image, the whole of it and no more."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_scorecam._captum import Tensors
from captum_scorecam.layers.activations import Activation
from captum_scorecam.layers.layout import Layout
from captum_scorecam.layers.noise_images import with_slab
from captum_scorecam.layers.probe import Probe

# Images are drawn again, with more contrast, before a part is said to have no effect: units may be 0 for some.
_CONTRASTS = (1.0, 1.0, 2.0, 4.0, 8.0, 8.0)
_MOST_IDLE = 1  # rows of cells at the edges that the image need not reach, as for sizes that are padded


def covers_image(probe: Probe, activation: Activation, layout: Layout) -> bool:
    """Whether the image's edges affect an activation, and the image affects its edges.

    The map of a model that crops or pads its inputs would be stretched over the image. An edge is as wide as a cell, so
    the pixels that a patch size or a stride leaves out are no crop.
    """
    unread = [dimension for dimension, cells in enumerate(layout.grid) if cells > 1]
    idle = torch.ones(layout.grid, dtype=torch.bool, device="cpu")
    for contrast in _CONTRASTS:
        first, second = probe.noise(contrast)
        base = probe.read(activation, first, first)
        unread = [d for d in unread if not _edges_are_read(probe, activation, layout, d, (first, second), base)]
        changed = layout.maps_of(probe.read(activation, second, second)) != layout.maps_of(base)
        idle &= ~changed.any(1).any(0).cpu()
        if not unread and not _rows_are_idle(idle):
            return True
    return False


def _edges_are_read(
    probe: Probe, activation: Activation, layout: Layout, dimension: int, images: tuple[Tensors, Tensors], base: Tensor
) -> bool:
    size = probe.size[dimension]
    width = -(-size // layout.grid[dimension])
    edges = [with_slab([0, width, size], dimension, 0), with_slab([0, size - width, size], dimension, 1)]
    values = probe.read(activation, *(tuple(map(edge, *images)) for edge in edges))
    return bool((values != base).movedim(layout.batch_axis, 0).flatten(1).any(1).all())


def _rows_are_idle(idle: Tensor) -> bool:
    for dimension in range(idle.dim()):
        rows = idle.movedim(dimension, 0).reshape(idle.shape[dimension], -1).all(1).tolist()
        reached = [row for row, is_idle in enumerate(rows) if not is_idle]
        if not reached or reached[0] > _MOST_IDLE or len(rows) - 1 - reached[-1] > _MOST_IDLE:
            return True
    return False

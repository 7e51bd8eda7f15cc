"""Where an activation holds image positions, judged by which positions react to which part of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_scorecam.layers.layout import FEW_CELLS, FEW_STEPS, Layout, has_one_stride

# Correlation of the reactions with those of an ideal map: below it along any dimension, an activation is no map; and
# by how much the best reading has to exceed the second best.
_LEAST_CORRELATION = 0.3
_LEAST_LEAD = 0.03
_MOST_EXTRA_TOKENS = 16


@dataclass(frozen=True)
class Reactions:
    """How much an activation of one example changes when a slab of the image changes.

    Attributes:
        changes (sequence of Tensor): For each dimension of the image, n_slabs×activation: the squared change.
        slabs (sequence of list of float): For each dimension of the image, the slabs' n_slabs + 1 bounds in [0, 1].
        size (tuple of int): The image's size.
        batch_axis (int): The activation's axis of examples. Default: 0.
    """

    changes: Sequence[Tensor]
    slabs: Sequence[list[float]]
    size: tuple[int, ...]
    batch_axis: int = 0

    def layout(self) -> Layout | None:
        """Finds the layout in which positions react most to their own part of the image; None if uncertain.

        Deep maps of a few cells may react everywhere. They are told by their shape, if nothing speaks against it.
        """
        plausible = [x for x in self._candidates() if self._is_plausible(x) and not self._contradicts(x)]
        found = self.local_layout() or (plausible[0] if len(plausible) == 1 else None)
        return self._usable(found)

    def local_layout(self) -> Layout | None:
        """The layout in which positions react to their own part of the image, by far more than in any other."""
        scores = sorted(((self.correlation(layout), layout) for layout in self._candidates()), key=lambda x: -x[0])
        if not scores:
            return None
        best, layout = scores[0]
        leads = [best - score for score, _ in scores[1:2]]
        if best <= self._least_correlation(layout) or any(lead <= _LEAST_LEAD for lead in leads):
            return None
        return layout

    def certain_layout(self) -> Layout | None:
        """The layout that the positions' reactions show, or the only one of a few cells; None if uncertain."""
        local = self.local_layout()
        if local is not None:
            return None if local.form in ("maps", "channels_last") and self._contradicts(local) else self._usable(local)
        most = FEW_CELLS if len(self.size) > 1 else FEW_STEPS
        few = [
            layout
            for layout in self._candidates()
            if layout.form in ("maps", "channels_last") and math.prod(layout.grid) <= most
            if (len(layout.grid) == 1 or has_one_stride(layout.grid, self.size)) and not self._contradicts(layout)
        ]
        return self._usable(few[0] if len(few) == 1 else None)

    def _usable(self, layout: Layout | None) -> Layout | None:
        in_order = ("tokens", "channels_last") if self.batch_axis else ("maps", "channels_last", "tokens", "flat_maps")
        if layout is None or layout.suffix_tokens or layout.form not in in_order:
            return None
        return replace(layout, batch_axis=self.batch_axis)

    def may_hold_positions(self) -> bool:
        """Whether an axis follows a dimension of the image, or is as long as a grid, with or without a class token."""
        candidates = (layout for layout in self._candidates() if layout.form != "flat_maps")
        is_long = any(math.prod(x.grid) > 3 and x.prefix_tokens + x.suffix_tokens <= 1 for x in candidates)
        return is_long or any(
            self._follows(a, d) for d in range(len(self.size)) for a in range(1, self.changes[0].dim())
        )

    def correlation(self, layout: Layout) -> float:
        """Correlates the reactions with those of an ideal map: the smallest value over the dimensions of the image."""
        channel_axis = {"maps": 1, "channels_last": -1, "tokens": -1, "flat_maps": 1}[layout.form]
        values = []
        for dimension, changes in enumerate(self.changes):
            if layout.grid[dimension] > 1:
                found = centred(changes.mean(channel_axis).flatten(1))
                expected = self._ideal(layout, dimension)
                norms = found.norm() * expected.norm()
                values.append(float((found * expected).sum() / norms) if norms > 0 else 0.0)
        return min(values)

    def _least_correlation(self, layout: Layout) -> float:
        """What positions taken at random seldom reach: along one dimension, or along two or more at once."""
        deviations = 1.8 if sum(cells > 1 for cells in layout.grid) > 1 else 2.6
        degrees = (math.prod(layout.grid) - 1) * (min(map(len, self.changes)) - 1)
        return max(_LEAST_CORRELATION, deviations / math.sqrt(max(degrees, 1)))

    def _is_plausible(self, layout: Layout) -> bool:
        """Whether the shape alone suggests maps: with one stride along the image's last two dimensions."""
        return (
            layout.form in ("maps", "channels_last") and len(layout.grid) > 1 and has_one_stride(layout.grid, self.size)
        )

    def _contradicts(self, layout: Layout) -> bool:
        """Whether an axis follows another dimension more than its own, as in an attention matrix, or one reversed.

        Positions that react much in one part of the image follow its other dimension, too, but less.
        """
        first = 2 if layout.form == "maps" else 1
        own_of = {first + dimension: dimension for dimension in range(len(self.size))}
        for axis in range(1, self.changes[0].dim()):
            own = own_of.get(axis)  # None for channels
            for dimension in range(len(self.size)):
                if own in (None, dimension) and self._follows(axis, dimension, reverse=True):
                    return True
                follows_other = own != dimension and self._follows(axis, dimension)
                if follows_other and (own is None or self._along(axis, dimension) >= self._along(axis, own)):
                    return True
        return False

    def _follows(self, axis: int, dimension: int, reverse: bool = False) -> bool:
        degrees = (self.changes[dimension].shape[axis] - 1) * (len(self.changes[dimension]) - 1)
        return self._along(axis, dimension, reverse) > max(_LEAST_CORRELATION, 3 / math.sqrt(max(degrees, 1)))

    def _along(self, axis: int, dimension: int, reverse: bool = False) -> float:
        """Correlates the reactions along an axis with those of an axis that is a dimension of the image."""
        changes = self.changes[dimension].movedim(axis, 1).flatten(2)
        found = centred(changes.mean(2))
        expected = centred(_shares(self.slabs[dimension], changes.shape[1]).to(found))
        expected = expected.flip(1) if reverse else expected
        norms = float(found.norm() * expected.norm())
        return float((found * expected).sum()) / norms if norms > 0 else 0.0

    def _ideal(self, layout: Layout, dimension: int) -> Tensor:
        shares = _shares(self.slabs[dimension], layout.grid[dimension]).to(self.changes[dimension])
        shape = [len(shares)] + [1] * len(layout.grid)
        shape[dimension + 1] = layout.grid[dimension]
        cells = shares.view(shape).expand(-1, *layout.grid).flatten(1)
        uniform = cells.new_full((len(cells), 1), 1 / len(cells))
        prefix, suffix = (uniform.expand(-1, n) for n in (layout.prefix_tokens, layout.suffix_tokens))
        return centred(torch.cat([prefix, cells, suffix], dim=1))

    def _candidates(self) -> Iterator[Layout]:
        shape = tuple(self.changes[0].shape[1:])
        rank = len(self.size)
        if len(shape) == rank + 1:
            for grid, channels, form in ((shape[1:], shape[0], "maps"), (shape[:-1], shape[-1], "channels_last")):
                if math.prod(grid) > 1:
                    yield Layout(form, grid, channels)  # type: ignore[arg-type]
        if len(shape) == 2:
            yield from self._token_layouts(*shape)
            yield from (Layout("flat_maps", grid, shape[0]) for grid in self._grids(shape[1]) if rank > 1)

    def _token_layouts(self, n_tokens: int, channels: int) -> Iterator[Layout]:
        for extra in range(min(_MOST_EXTRA_TOKENS, n_tokens - 2) + 1):
            for grid in self._grids(n_tokens - extra):
                if extra == 0 and len(grid) == 1:
                    continue  # the same as channels_last
                for suffix in (0, extra) if extra else (0,):
                    yield Layout("tokens", grid, channels, extra - suffix, suffix)

    def _grids(self, cells: int) -> Iterator[tuple[int, ...]]:
        """Grids of so many cells whose stride is the same along the image's last two dimensions."""
        if len(self.size) == 1:
            if cells <= self.size[0]:
                yield (cells,)
            return
        frames = range(1, min(cells, self.size[0]) + 1) if len(self.size) == 3 else [0]
        for frame in frames:
            if frame and cells % frame:
                continue
            rest = cells // (frame or 1)
            for height in range(1, math.isqrt(rest) + 1):
                if rest % height == 0:
                    for last in {(height, rest // height), (rest // height, height)}:
                        grid = (frame, *last) if frame else last
                        if rest > 1 and has_one_stride(grid, self.size):
                            yield grid


def centred(changes: Tensor) -> Tensor:
    """Each position's shares of its changes, …×n_slabs×positions, less each slab's mean."""
    total = changes.sum(-2, keepdim=True)
    tiny = torch.finfo(changes.dtype).tiny
    shares = torch.where(total > 0, changes / total.clamp_min(tiny), 1 / changes.shape[-2])
    return shares - shares.mean(-1, keepdim=True)


def _shares(bounds: list[float], cells: int) -> Tensor:
    """The share of each cell that each slab covers, n_slabs×cells."""
    starts = torch.arange(cells, dtype=torch.float64, device="cpu") / cells
    return overlaps(torch.tensor(bounds, dtype=torch.float64, device="cpu"), starts, starts + 1 / cells) * cells


def overlaps(bounds: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """How much of each slab, between two bounds, is in each interval: …×cells to …×n_slabs×cells."""
    first, last = starts.unsqueeze(-2).maximum(bounds[:-1, None]), ends.unsqueeze(-2).minimum(bounds[1:, None])
    return (last - first).clamp_min(0)

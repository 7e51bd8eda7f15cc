"""The trunk of a model: the activations through which everything passes that its output depends on."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from captum_scorecam.layers.activations import Activation
from captum_scorecam.layers.example_scores import Rows, distance
from captum_scorecam.layers.layout import FEW_CELLS, FEW_STEPS, Layout
from captum_scorecam.layers.probe import Change, Probe

# Two pairs of scores are the same if they differ by less than this share of the difference between two images.
SAME = 0.01
_ROUNDING = 1e-6


class Trunk:
    """Tells by swapping an activation of two images whether it is of the trunk: if so, their outputs are swapped.

    A residual branch, an attention matrix, a gate, and a dead branch are not.

    Args:
        probe (Probe): The model and the images.
        activations (list of Activation): What the probe recorded.

    Attributes:
        scale (float): How far the outputs of the two images differ.
        n_forwards (int): The forward passes of changed activations.
    """

    def __init__(self, probe: Probe, activations: list[Activation]) -> None:
        self.probe = probe
        probe.read_output(activations)
        self.scale = distance(probe.output[:1], probe.output[1:])
        if math.isinf(self.scale):  # different numbers of detections
            self.scale = self._largest_output
        self.n_forwards = 0
        self._activations = activations

    def layout_by_shape(self, activation: Activation) -> Layout | None:
        """The layout that the shape of an activation suggests, if it is of the trunk; None if that is uncertain."""
        if activation.is_vector or self.batch_axis(activation) != 0:
            return None
        layout = self.probe.reactions(activation).layout()
        return None if layout is None or self.follows_a_vector(activation) else layout

    def batch_axis(self, activation: Activation) -> int | None:
        """The axis along which swapping examples swaps the outputs: 0, 1, -1 if merged with another, or None."""
        shape = activation.shape
        if shape[0] == 2 and self.swaps(activation, lambda x: x.flip(0)):
            return 0
        if len(shape) == 3 and shape[1] == 2 and self.swaps(activation, lambda x: x.flip(1)):
            return 1
        if shape[0] > 2 and shape[0] % 2 == 0:
            if self.swaps(activation, lambda x: torch.unflatten(x, 0, (2, -1)).flip(0).flatten(0, 1)):
                return -1
            if self.swaps(activation, lambda x: torch.unflatten(x, 0, (-1, 2)).flip(1).flatten(0, 1)):
                return -1
        return None

    def swaps(self, activation: Activation, swap: Change) -> bool:
        """Whether a change of an activation swaps the outputs of the two images."""
        first, second = self.probe.output
        return distance(self.output(activation, swap), (second, first)) <= SAME * self.scale

    def follows_a_vector(self, activation: Activation) -> bool:
        """Whether all that an activation depends on passed through a vector, in which no positions are left."""
        earlier = [a for a in self._activations if a.time < activation.time]
        before_maps = [a for a, b in itertools.pairwise([*earlier, activation]) if a.is_vector and not b.is_vector]
        return any(self.batch_axis(vector) == 0 for vector in before_maps)

    def positions_matter(self, activation: Activation, layout: Layout) -> bool:
        """Whether the output depends on the positions: on the patches of tokens with a prefix, else on both halves."""
        if layout.prefix_tokens:
            changed = self.output(activation, layout.swap_positions)
            return distance(changed, self.probe.output) > self.least_effect
        least = FEW_CELLS if len(layout.grid) > 1 else FEW_STEPS
        halves = (True, False) if math.prod(layout.grid) > least else ()
        return all(self._half_matters(activation, layout, is_first) for is_first in halves)

    def _half_matters(self, activation: Activation, layout: Layout, is_first: bool) -> bool:
        differ = []

        def with_new_half(values: Tensor) -> Tensor:
            changed = layout.with_half(values, is_first)
            differ.append(not torch.equal(changed, values))
            return changed

        changed = self.output(activation, with_new_half)
        return distance(changed, self.probe.output) > self.least_effect or not any(differ)

    def output(self, activation: Activation, change: Change) -> Rows:
        """Returns the scores of the two images after a change of an activation."""
        self.n_forwards += 1
        return self.probe.output_with(activation, change)

    @property
    def least_effect(self) -> float:
        """The least difference of scores that is no rounding error."""
        return _ROUNDING * self._largest_output

    @property
    def _largest_output(self) -> float:
        return max(float(row.nan_to_num().abs().max()) for row in self.probe.output if row.numel())

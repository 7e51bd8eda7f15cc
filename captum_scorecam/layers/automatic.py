"""The layer that ``auto`` selects: the last whose maps the model's output is a function of."""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from captum_scorecam.layers.activations import INPUT, Activation
from captum_scorecam.layers.example_scores import distance
from captum_scorecam.layers.extent import misfit
from captum_scorecam.layers.layout import Layout
from captum_scorecam.layers.probe import Probe
from captum_scorecam.layers.trunk import SAME, Trunk

# The share of the parameters after a layer from which it may be a stem: if coarser maps follow, or any maps.
_LARGE, _MOST = 0.5, 0.75
_LITTLE = 0.01  # the share that may be used between maps that can't be read and those that are explained instead
_MOST_FORWARDS = 200  # several times what any model needs whose layer is found
_TAP = "; an `ActivationTap` can read them"
_NO_HOOKS = f", since no hooks are called, as in TorchScript, exported programs and functional code{_TAP}"


class AutomaticChoice:
    """Chooses the layer, from the last activation to the first.

    Everything that the output depends on passes through some activations, the trunk. The last of them that holds image
    positions, and whose positions affect the output, is explained.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        activations = probe.record()
        first_use = min((time for time, _ in probe.parameter_uses), default=math.inf)
        self.activations = [
            a for a in activations if not a.is_vector and (a.shape[1:] != probe.input_shape or a.time > first_use)
        ]
        self.trunk = Trunk(probe, activations)
        self._share_after = self._shares_after()
        self._branches: list[tuple[int, int]] = []  # the calls of modules whose output is not of the trunk

    def choose(self) -> tuple[str, Layout]:
        """Returns the layer's name and the layout of its activation.

        Raises:
            ValueError: If no layer or no certain one is found.
        """
        if not self.activations:
            trained = [n for n in self.probe.n_calls if any(True for _ in self.probe.modules[n].parameters())]
            unseen = self.probe.scripted or not trained
            self._refuse(f"no activation with spatial dimensions was seen{_NO_HOOKS if unseen else ''}")
        if self._share_after[-1] > _LARGE:
            self._refuse(f"most of its parameters are used after the last activation that was seen{_NO_HOOKS}")
        if not self.trunk.scale > 0:
            self._refuse("its output is the same for two images of noise")
        index, layout = self._last_of_trunk()
        index, layout = self._before_projection(index, layout)
        if layout.prefix_tokens:
            index, layout = self._before_class_attention(index, layout) or self._after_norm(index, layout)
        self._check_that_nothing_follows(index, layout)
        if reason := misfit(self.probe, self.activations[index], layout):
            self._refuse(f"{_described(self.activations[index])} {reason}")
        return self.activations[index].name, layout

    def _last_of_trunk(self) -> tuple[int, Layout]:
        unreadable: tuple[int, Layout] | None = None
        for index in reversed(range(len(self.activations))):
            activation, share = self.activations[index], self._share_after[index]
            if share > _MOST or self.trunk.n_forwards > _MOST_FORWARDS:
                break
            layout = self._trunk_layout(activation)
            if layout is None or layout.channels == 1 or self._is_dense_output(layout):
                continue
            if not self.trunk.positions_matter(activation, layout):
                continue
            if unreadable is not None:
                later, of_later = unreadable
                if of_later.grid != layout.grid or share - self._share_after[later] > _LITTLE:
                    break
            if activation.name and layout.form != "flat_maps":
                return index, layout
            unreadable = unreadable or (index, layout)
        if unreadable is not None:
            grid = _shown(unreadable[1].grid)
            self._refuse(f"its maps {grid} are not the output or input of a module that runs once{_TAP}")
        return self._refuse("none of the later ones is maps on which alone the output depends")

    def _trunk_layout(self, activation: Activation) -> Layout | None:
        """The layout of an activation of the trunk; None if it is not of the trunk or holds no positions."""
        if any(start < activation.time < end for start, end in self._branches):
            return None
        batch_axis = self.trunk.batch_axis(activation)
        if batch_axis is None:
            self._branches += [
                self.probe.spans[point.module_name]
                for point in activation.points
                if point.is_alone and not point.of_input and self.probe.n_calls[point.module_name] == 1
            ]
            return None
        if batch_axis < 0:
            self._refuse(f"{_described(activation)} has no axis of examples")
        reactions = self.probe.reactions(activation, batch_axis)
        layout = reactions.layout()
        if layout is not None and reactions.local_layout() is None and self.trunk.follows_a_vector(activation):
            self._refuse(f"{_described(activation)} is computed from a vector, which holds no image positions")
        if layout is None and reactions.may_hold_positions():
            self._refuse(f"{_described(activation)} holds image positions in an unknown order")
        return layout

    def _is_dense_output(self, layout: Layout) -> bool:
        """Whether the maps are those of the classes, in a model that scores every pixel."""
        shape = self.probe.output_shape
        return len(shape) == len(layout.grid) + 2 and math.prod(shape[2:]) > 1 and shape[1] == layout.channels

    def _before_projection(self, index: int, layout: Layout) -> tuple[int, Layout]:
        """The tokens that a pooling attention takes, not their keys and values side by side."""
        source = f"{self.activations[index].name}{INPUT}"
        taken = [i for i, a in enumerate(self.activations[:index]) if any(p.name == source for p in a.points)]
        if layout.form == "tokens" and taken and self.activations[taken[0]].name:
            found = self._trunk_layout(self.activations[taken[0]])
            if found is not None and found.grid == layout.grid and 2 * found.channels == layout.channels:
                return taken[0], found
        return index, layout

    def _before_class_attention(self, index: int, layout: Layout) -> tuple[int, Layout] | None:
        """The maps before class tokens were added, if only these take in others since (CaiT, XCiT, VOLO)."""
        for earlier in reversed(range(index)):
            activation = self.activations[earlier]
            if math.prod(activation.shape[1:]) == math.prod(layout.grid) * layout.channels and activation.name:
                found = self._trunk_layout(activation)
                if found is not None and found.grid == layout.grid and not found.prefix_tokens:
                    return (earlier, found) if self._stay_apart(earlier, found, index, layout) else None
        return None

    def _stay_apart(self, earlier: int, before: Layout, later: int, after: Layout) -> bool:
        """Whether changed cells of the earlier maps leave the other cells of the later ones unchanged."""
        half = after.grid[0] // 2

        def change(activation: Tensor) -> Tensor:
            changed = activation.clone()
            maps = before.maps_of(changed)
            maps[:, :, half:] = before.maps_of(activation.flip(before.batch_axis))[:, :, half:]
            return changed

        found = self.probe.values(self.activations[later])
        changed = self.probe.values_with(self.activations[later], self.activations[earlier], change)
        differences = (after.maps_of(changed) - after.maps_of(found)).abs()
        return bool(differences[:, :, half:].max() > 0 and differences[:, :, :half].max() == 0)

    def _after_norm(self, index: int, layout: Layout) -> tuple[int, Layout]:
        """The tokens as the next attention gets them, if the output depends on the patches only through these."""
        activation = self.activations[index]
        expected = self.trunk.output(activation, layout.swap_positions)
        effect = distance(expected, self.probe.output)
        for later, candidate in enumerate(self.activations[index + 1 : index + 2], start=index + 1):
            if candidate.shape == activation.shape and candidate.name:
                found = self.trunk.output(candidate, layout.swap_positions)
                if distance(found, expected) <= SAME * effect + self.trunk.least_effect:
                    return later, layout
        return index, layout

    def _check_that_nothing_follows(self, index: int, layout: Layout) -> None:
        """Refuses a layer before much of the model if maps follow that affect the output side by side.

        These are a pyramid's or those of two streams. Maps of the same size are usual after the layer, in the last
        block of a transformer; coarser ones are not.
        """
        share = self._share_after[index]
        if share < _LARGE:
            return
        seen = set()
        for activation in reversed(self.activations[index + 1 :]):
            may_differ = share > _MOST or self._may_be_coarser(activation, layout)
            if activation.shape in seen or activation.shape[0] != 2 or not may_differ:
                continue
            seen.add(activation.shape)
            if (
                distance(self.trunk.output(activation, lambda x: x.flip(0)), self.probe.output)
                <= SAME * self.trunk.scale
            ):
                continue
            later = self.probe.reactions(activation).layout()
            if later is not None and (share > _MOST or math.prod(later.grid) < math.prod(layout.grid)):
                found = _described(self.activations[index])
                self._refuse(f"{_described(activation)} follows {found}, and the output does not depend on it alone")

    def _may_be_coarser(self, activation: Activation, layout: Layout) -> bool:
        sizes = tuple(activation.shape[1:])
        rank = len(layout.grid)
        grids = [sizes[1:], sizes[:-1]] if len(sizes) == rank + 1 else []
        return any(all(a < b for a, b in zip(grid, layout.grid, strict=True)) for grid in grids)

    def _shares_after(self) -> list[float]:
        """The share of the parameters that are used after each activation, by results that may have positions."""
        uses = self.probe.parameter_uses
        total = max(sum(used for _, used in uses), 1)
        return [sum(used for time, used in uses if time > a.time) / total for a in self.activations]

    def _refuse(self, reason: str) -> NoReturn:
        """Raises ValueError with the reason and the last activations."""
        listed = {f"N×{_shown(a.shape[1:])}": a.name for a in self.activations if a.name and a.shape[0] == 2}
        advice = " Name the layer; the last activations are {}."
        if not listed:
            listed = {_shown(a.shape): a.point.name for a in self.activations}
            advice = (
                " The last activations are {}, for two images: of modules that run several times, or with the rows of "
                "several images in one. Explain the model inside, or read one call with an `ActivationTap`."
            )
        shown = ", ".join(f"{name!r} ({shape})" for shape, name in list(listed.items())[-6:][::-1])
        raise ValueError(
            f"Expected a model with a layer that is certain to hold the last maps of the image, but {reason}."
            f"{advice.format(shown) if shown else ''}"
        )


def _described(activation: Activation) -> str:
    return f"the activation {tuple(activation.shape[1:])} of {activation.name or activation.point.name!r}"


def _shown(sizes: tuple[int, ...] | torch.Size) -> str:
    return "×".join(map(str, sizes))

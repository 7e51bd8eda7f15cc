"""The tensors that pass between modules in a forward pass, and where they can be read."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

INPUT = ":input"


@dataclass(frozen=True)
class Point:
    """One tensor among the arguments or the outputs of one call of a module.

    Attributes:
        module_name (str): The module's dotted path.
        call (int): The call, counted from 0.
        of_input (bool): Whether the tensor is an argument.
        index (int): Its index among the tensors and other values there.
        is_alone (bool): Whether it is all that Captum reads there.
    """

    module_name: str
    call: int
    of_input: bool
    index: int
    is_alone: bool

    @property
    def name(self) -> str:
        """The layer's name, as accepted by `find_layer`."""
        return self.module_name + INPUT * self.of_input


@dataclass
class Activation:
    """A tensor and the points at which it passes.

    Attributes:
        shape (torch.Size): Its shape for two examples.
        time (int): When it appeared.
        points (list of Point): In the order of time.
        name (str): The name of the layer at which to read it, or "" if it can't be read.
    """

    shape: torch.Size
    time: int
    points: list[Point] = field(default_factory=list)
    name: str = ""

    @property
    def point(self) -> Point:
        """The point at which it is read, or changed: for all that comes after, if a module returns it."""
        named = [point for point in self.points if point.name == self.name]
        outputs = [point for point in self.points if not point.of_input]
        return (named or outputs or self.points)[-1]

    @property
    def is_vector(self) -> bool:
        """Whether at most one axis besides the examples has several values."""
        return is_vector(self.shape)


def is_vector(shape: torch.Size) -> bool:
    """Whether at most one axis of a tensor besides the examples has several values."""
    return sum(size > 1 for size in shape) <= 2


def squared_changes(values: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Squares of changes in units of the base's largest magnitude; those of tiny activations would be 0, else."""
    largest = base.nan_to_num(0, 0, 0).abs().max()
    return ((values - base) / largest.where(largest > 0, 1)).clamp(-1e15, 1e15).square()

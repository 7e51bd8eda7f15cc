"""When a forward pass uses parameters: in modules, in code shared by several calls, and in functional code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from captum_scorecam.layers.activations import is_vector


class ParameterUses(TorchFunctionMode):
    """Notes in its body the operations of this thread on parameters whose results may hold positions.

    Args:
        clock (iterator of int): Counts the events of the forward pass.

    Attributes:
        found (list of tuple): The time of each operation, and the number of its parameters' values.
    """

    def __init__(self, clock: Iterator[int]) -> None:
        super().__init__()
        self.found: list[tuple[int, int]] = []
        self._clock = clock

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        used = sum(value.numel() for value in tree_leaves((args, kwargs)) if isinstance(value, Parameter))
        if used and any(isinstance(x, Tensor) and not is_vector(x.shape) for x in tree_leaves(result)):
            self.found.append((next(self._clock), used))
        return result

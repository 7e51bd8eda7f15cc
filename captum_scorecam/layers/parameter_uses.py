"""When a forward pass uses parameters: in modules, in code shared by several calls, and where no hooks are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from captum_scorecam._threads import CallingThread, hooks
from captum_scorecam.layers.activations import is_vector


class ParameterUses(TorchFunctionMode):
    """Notes the operations of this thread on parameters whose results may hold image positions.

    Args:
        clock (iterator of int): Counts the events of the forward pass.
        scripted (set of Module): Modules in TorchScript, whose operations are not seen; a call counts as one.

    Attributes:
        found (list of tuple): The time of each operation, and the number of values of its parameters.
    """

    def __init__(self, clock: Iterator[int], scripted: Set[Module]) -> None:
        super().__init__()
        self.found: list[tuple[int, int]] = []
        self._clock, self._scripted, self._thread = clock, scripted, CallingThread()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Notes the operations in the body."""
        scripted = [lambda: register_module_forward_hook(self._after)] if self._scripted else []
        with self, hooks(*scripted):
            yield

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._note((x for x in tree_leaves((args, kwargs)) if isinstance(x, Parameter)), result)
        return result

    def _after(self, module: Module, args: Any, output: Any) -> None:
        if module in self._scripted and self._thread.makes_call_of(module):
            self._note(module.parameters(), (args, output))

    def _note(self, parameters: Iterable[Tensor], values: Any) -> None:
        used = sum(parameter.numel() for parameter in parameters if not is_lazy(parameter))
        if used and any(isinstance(x, Tensor) and not is_vector(x.shape) for x in tree_leaves(values)):
            self.found.append((next(self._clock), used))

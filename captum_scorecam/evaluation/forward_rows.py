"""Records the number of rows of each forward pass of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.module import register_module_forward_hook

from captum_scorecam._threads import hooks


class _RowsHook:
    """A forward hook of one model and its copies; not a function, so that the model can still be pickled."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], _output: Any) -> None:
        tensors = (value for value in (*inputs, *keywords.values()) if isinstance(value, Tensor) and value.dim() > 0)
        first = next(tensors, None)
        if first is not None:
            self.rows.append(len(first))

    def __deepcopy__(self, _memo: dict[int, Any]) -> _RowsHook:
        return self


@contextmanager
def forward_rows(model: nn.Module, twin: Callable[..., Any] | None = None) -> Iterator[list[int]]:
    """Records the rows of the forward passes that return; one that runs out of memory does not count.

    Args:
        model (nn.Module): The model.
        twin (callable, optional): What runs masked inputs; its forward passes count if it is a module. Default: None.

    Yields:
        list of int: The rows of each forward pass so far, in order.
    """
    hook = _RowsHook()

    def of_this_model(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if module is model:
            hook(module, inputs, {}, output)

    if isinstance(model, ScriptModule):  # takes no hooks of its own
        # PyTorch never quite removes a global one that takes keywords.
        registrations = [partial(register_module_forward_hook, of_this_model)]
    else:
        registrations = [partial(model.register_forward_hook, hook, with_kwargs=True)]
    if isinstance(twin, nn.Module):
        registrations.append(partial(twin.register_forward_hook, hook, with_kwargs=True))
    with hooks(*registrations):
        yield hook.rows

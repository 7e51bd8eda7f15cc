"""The buffers of a user's modules: which may change in a forward pass, what they held, and their restoration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.jit import ScriptModule
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

_MOST_LISTED = 1000  # of the elements of a list


class KeptBuffer:
    """A buffer and a copy of what it held.

    Args:
        module (Module): The module that has it.
        name (str): Its name in the module.
        buffer (Tensor): The buffer.
        bound (bool): Whether it is the module's own. False for a buffer seen in a forward pass, in which
            ``torch.func.functional_call`` may have put another in its place.
    """

    def __init__(self, module: Module, name: str, buffer: Tensor, bound: bool) -> None:
        self._module, self._name, self._buffer, self._bound = module, name, buffer, bound
        self._content = None if is_lazy(buffer) else buffer.clone()  # a lazy module has yet to make it
        self._version = None if is_lazy(buffer) else _version(buffer)

    @property
    def changed_silently(self) -> bool:
        """Whether it was changed without a new version, which is how BatchNorm updates its running statistics."""
        # InstanceNorm updates its own, in training mode, without using them.
        return not isinstance(self._module, _InstanceNorm) and not self._written and self._differs

    @property
    def size_of_change(self) -> int:
        """The number of elements of a buffer that a forward pass changed or replaced; 0 if it did not."""
        if isinstance(self._module, _InstanceNorm):
            return 0
        return self._buffer.numel() if self._content is None or self._replaced or self._differs else 0

    def restore(self, training: bool) -> None:
        """Restores the content of a buffer that was changed.

        Args:
            training (bool): Whether the module gets the buffer back if it has replaced it. In evaluation mode, a cache
                that was replaced by one of another size stays.
        """
        if self._content is None:
            if not is_lazy(self._buffer):
                getattr(self._module, "reset_running_stats", lambda: None)()
            return
        if self._differs and self._buffer.shape == self._content.shape:
            with torch.inference_mode() if self._buffer.is_inference() else nullcontext():
                # A graph of the user's that has the buffer needs this content, and tells by its version if it has it.
                self._buffer.data.copy_(self._content)
        if training and self._bound:
            self._module._buffers[self._name] = self._buffer

    @property
    def _replaced(self) -> bool:
        buffers = self._module._buffers
        return self._bound and (self._name not in buffers or buffers[self._name] is not self._buffer)

    @property
    def _written(self) -> bool:
        """Whether it has another version, or none that tells."""
        return self._version is None or self._version != _version(self._buffer)

    @property
    def _differs(self) -> bool:
        if self._content is None or not (self._written or self._name.startswith("running_")):
            return False
        if self._buffer.layout != torch.strided or self._buffer.shape != self._content.shape:
            return True
        try:
            same = (self._buffer == self._content) | (self._buffer.isnan() & self._content.isnan())
        except (RuntimeError, NotImplementedError):  # of a dtype that can't be compared
            return True
        return not bool(same.all())


@contextmanager
def unchanged_buffers(model: Module) -> Iterator[None]:
    """Restores what the buffers of a model in evaluation mode held before the body."""
    kept = [KeptBuffer(module, name, buffer, bound=True) for module, name, buffer in own_buffers(model.modules())]
    try:
        yield
    finally:
        for buffer in kept:
            buffer.restore(training=False)


def own_buffers(modules: Iterable[Module]) -> Iterator[tuple[Module, str, Tensor]]:
    """The buffers of modules, without those of their submodules, each with its module and its name there."""
    for module in modules:
        for name, buffer in module._buffers.items():
            if buffer is not None:
                yield module, name, buffer


def held_modules(forward_func: Callable[..., Any]) -> list[Module]:
    """Returns the modules that a function is, is a method of, or calls the ``forward`` of, which no hook sees.

    Those in them count, too, submodules or not. Others are seen when they run.
    """
    function = forward_func.func if isinstance(forward_func, functools.partial) else forward_func
    waiting: list[Any] = [function, getattr(function, "__self__", None)]
    if inspect.isfunction(function) and "forward" in function.__code__.co_names:
        waiting += _variables(function)
    found: dict[Module, None] = {}
    while waiting:
        value = waiting.pop()
        if type(value) in (list, tuple):
            waiting += [each for each in value[:_MOST_LISTED] if _is_module(each)]
        elif _is_module(value) and value not in found:
            found[value] = None
            waiting += [*value.children(), *vars(value).values()]
    return list(found)


def _is_module(value: object) -> bool:
    return issubclass(type(value), Module)  # `isinstance` would ask a weak proxy for what it refers to


def _variables(function: FunctionType) -> Iterator[Any]:
    """The values of the variables of a function that are not its own."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # of a variable without a value yet
            yield cell.cell_contents
    names = set(function.__code__.co_names)
    yield from (value for name, value in function.__globals__.items() if name in names)


def is_mapped(tensor: Tensor) -> bool:
    """Checks whether a tensor is one of several inside ``torch.func.vmap``."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def plain_tensor(tensor: Tensor) -> Tensor:
    """Returns the tensor that transforms of ``torch.func`` have wrapped; other tensors unchanged."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def uses_batch_statistics(module: Module) -> bool:
    """Checks whether a module is a BatchNorm without running statistics; False in TorchScript, which takes no hooks."""
    return isinstance(module, _BatchNorm) and not isinstance(module, ScriptModule) and module.running_mean is None


def _version(buffer: Tensor) -> int | None:
    return None if buffer.is_inference() else buffer._version

"""The buffers of a user's modules: which may change in a forward pass, what they held, and their restoration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from types import FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ProxyTypes

import torch
from torch import Tensor
from torch._C import _functorch
from torch.jit import ScriptModule
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

_MOST_LISTED = 1000  # of the elements of a list
_MOST_LEVELS = 2  # of containers and objects in an attribute


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
        self._module, self._name, self._buffer, self.bound = module, name, buffer, bound
        self._content = None if is_lazy(buffer) else buffer.clone()  # a lazy module has yet to make it
        self._version = None if is_lazy(buffer) or buffer.is_inference() else buffer._version
        self._data = buffer.data  # the storage, since `buffer.data = ...` gives the buffer another one
        self._described = _plain_attributes(module)

    @property
    def may_be_statistics(self) -> bool:
        """Whether it was changed as running statistics are: more than one number, or named so, of the same shape."""
        if isinstance(self._module, _InstanceNorm):  # updates its own, in training mode, without using them
            return False
        named = self._buffer.numel() > 1 or self._name.startswith("running_")
        current = current_buffer(self._module, self._name) if self.bound else self._buffer
        return named and self._is_alike(current) and (current is not self._buffer or self._differs)

    @property
    def size_of_change(self) -> int:
        """The number of elements of a buffer that a forward pass changed or replaced; 0 if it did not."""
        if isinstance(self._module, _InstanceNorm):
            return 0
        return self._buffer.numel() if self._content is None or self._replaced or self._differs else 0

    def restore(self) -> None:
        """Restores the content of a buffer that was changed, and the buffer itself if the module has replaced it.

        In evaluation mode, a cache stays: a buffer of another size or dtype, or one that attributes describe which have
        changed, too.
        """
        if self._content is None:
            if not is_lazy(self._buffer):
                getattr(self._module, "reset_running_stats", lambda: None)()
            return
        if self._differs and self._buffer.shape == self._content.shape:
            with torch.inference_mode() if self._buffer.is_inference() else nullcontext():
                self._buffer.data = self._data
                # A graph of the user's that has the buffer needs this content, and tells by its version if it has it.
                self._buffer.data.copy_(self._content)
        if self.bound and (self._module.training or not self._is_cache):
            self._module._buffers[self._name] = self._buffer

    @property
    def _is_cache(self) -> bool:
        """Whether the module has replaced it by one that does not fit what its attributes said before."""
        current = current_buffer(self._module, self._name)
        return not self._is_alike(current) or _plain_attributes(self._module) != self._described

    def _is_alike(self, other: Tensor | None) -> bool:
        content = self._content
        return (
            content is not None and other is not None and (other.shape, other.dtype) == (content.shape, content.dtype)
        )

    @property
    def _replaced(self) -> bool:
        return self.bound and current_buffer(self._module, self._name) is not self._buffer

    @property
    def _differs(self) -> bool:
        if self._content is None:
            return False
        try:
            return not same_values(self._buffer, self._content)
        except (RuntimeError, NotImplementedError):  # of a dtype or layout that can't be compared, or a meta tensor
            return self._version is None or self._buffer._version != self._version


def same_values(first: Tensor, second: Tensor) -> bool:
    """Checks whether tensors have the same shape, dtype and values, of which NaN equals NaN.

    Raises:
        RuntimeError, NotImplementedError: If tensors of their layout, dtype or device can't be compared.
    """
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return bool(((first == second) | (first.isnan() & second.isnan())).all())


def current_buffer(module: Module, name: str) -> Tensor | None:
    """Returns a module's buffer, None if it has none of that name."""
    return dict(module._buffers.items()).get(name)  # TorchScript's have no `get`


def _plain_attributes(module: Module) -> dict[str, Any]:
    """The attributes that may describe a cache, such as its size."""
    kinds = (int, float, str, tuple, torch.Size, torch.dtype, torch.device)
    return {name: value for name, value in list(vars(module).items()) if type(value) in kinds}


def held_modules(forward_func: Callable[..., Any]) -> list[Module]:
    """Returns the modules that a function is, is a method of, or calls the ``forward`` of, which no hook sees.

    Those in them and in their attributes count, too, submodules or not. Others are seen when a function runs them.
    """
    function = forward_func.func if isinstance(forward_func, functools.partial) else forward_func
    roots: list[Any] = [function, getattr(function, "__self__", None)]
    if inspect.isfunction(function) and "forward" in function.__code__.co_names:
        roots += _variables(function)
    waiting = [module for root in roots if _is_module(root) or type(root) in (list, tuple) for module in _inside(root)]
    found: dict[Module, None] = {}
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            values = list(vars(module).values())  # other threads may add some
            waiting += [*module.children(), *(each for value in values for each in _inside(value))]
    return list(found)


def _inside(value: Any, levels: int = _MOST_LEVELS) -> Iterator[Module]:
    """The modules that a value is or has in it, some levels deep."""
    if _is_module(value):
        yield value
    elif levels > 0:
        for part in _parts(value):
            yield from _inside(part, levels - 1)


def _parts(value: Any) -> Iterable[Any]:
    kind = type(value)
    if kind in (list, tuple):
        return list(value[:_MOST_LISTED])
    if kind is dict:
        return list(value.values())[:_MOST_LISTED]
    if kind is functools.partial:
        return (value.func, *value.args, *value.keywords.values())
    if kind is MethodType:
        return (value.__self__,)
    if issubclass(kind, (type, ModuleType, Tensor, *ProxyTypes)):
        return ()
    try:
        return list(vars(value).values())
    except Exception:  # it has none, or is an object of the user's, which may raise anything
        return ()


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

"""The buffers of a user's modules: what they held before a forward pass, which have changed, and their restoration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import nullcontext
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.jit import ScriptModule
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

_FEW_ELEMENTS = 2**16  # of buffers that are compared together
_OF_EACH_MODULE = frozenset(vars(Module()))  # parameters, buffers, hooks, children and flags


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
        self._attributes, self._described = {*vars(module)}, _plain_attributes(module)

    @property
    def module(self) -> Module:
        """The module that has it."""
        return self._module

    @property
    def may_be_statistics(self) -> bool:
        """Whether a changed one may be running statistics: of its old shape, with several elements or such a name."""
        if isinstance(self._module, _InstanceNorm):  # updates its own, in training mode, without using them
            return False
        named = self._buffer.numel() > 1 or self._name.startswith("running_")
        return named and self._is_alike(current_buffer(self._module, self._name) if self.bound else self._buffer)

    @property
    def size_of_change(self) -> int:
        """The number of elements of a changed one."""
        return 0 if isinstance(self._module, _InstanceNorm) else self._buffer.numel()

    @property
    def stays(self) -> bool:
        """Whether it is now a cache: replaced in evaluation mode by another size or dtype, or described anew."""
        if self._content is None:  # of a lazy module, whose attributes describe what it has made
            return True
        is_replaced = self.replaced and not is_training(self._module)
        return is_replaced and (not self._is_alike(current_buffer(self._module, self._name)) or self._is_described_anew)

    def restore(self, with_attributes: bool = True) -> None:
        """Restores the content of a buffer that was changed, and the buffer itself if the module has replaced it.

        A cache stays (see `stays`).

        Args:
            with_attributes (bool): Whether attributes that may describe it are restored with it: not where another one
                of the module's buffers stays. Default: True.
        """
        if self._content is None:
            if not is_lazy(self._buffer):
                getattr(self._module, "reset_running_stats", lambda: None)()
            return
        if self.differs and self._buffer.shape == self._content.shape:
            with torch.inference_mode() if self._buffer.is_inference() else nullcontext():
                self._buffer.data = self._data
                # A graph of the user's that has the buffer needs this content, and tells by its version if it has it.
                self._buffer.data.copy_(self._content)
        if self.stays:
            return
        if self.bound:
            self._module._buffers[self._name] = self._buffer
        if with_attributes and self._is_described_anew:
            for name in self._describing():
                if name in self._described:
                    vars(self._module)[name] = self._described[name]
                else:
                    delattr(self._module, name)

    @property
    def _is_described_anew(self) -> bool:
        now = self._describing()
        return now != {name: self._described[name] for name in now if name in self._described}

    def _describing(self) -> dict[str, Any]:
        """The attributes that may describe it now: those that may have before, and new ones."""
        plain = _plain_attributes(self._module).items()
        return {name: value for name, value in plain if name in self._described or name not in self._attributes}

    def _is_alike(self, other: Tensor | None) -> bool:
        content = self._content
        return (
            content is not None and other is not None and (other.shape, other.dtype) == (content.shape, content.dtype)
        )

    @property
    def memory(self) -> int | None:
        """Where the content begins that it held; None if it has no such place."""
        try:
            return None if self._content is None else self._data.untyped_storage().data_ptr()
        except (RuntimeError, NotImplementedError):  # of a sparse tensor, for example
            return None

    @property
    def group(self) -> object:
        """Equal for buffers that can be compared together."""
        buffer = self._buffer
        plain = type(buffer) is Tensor and buffer.layout is torch.strided and buffer.device.type != "meta"
        if plain and self._is_alike(buffer) and not buffer.is_quantized and buffer.numel() <= _FEW_ELEMENTS:
            return buffer.dtype, buffer.device
        return self

    def flat(self) -> tuple[Tensor, Tensor]:
        """Returns the elements and those that it held."""
        assert self._content is not None
        return self._buffer.flatten(), self._content.flatten()

    @property
    def replaced(self) -> bool:
        """Whether the module has another one in its place."""
        return self.bound and current_buffer(self._module, self._name) is not self._buffer

    @property
    def differs(self) -> bool:
        """Whether its content has changed; of a lazy module's buffer, whether it exists by now."""
        if self._content is None:
            return not is_lazy(self._buffer)
        try:
            return not same_values(self._buffer, self._content)
        except (RuntimeError, NotImplementedError):  # of a dtype or layout that can't be compared, or a meta tensor
            return self._version is None or self._buffer._version != self._version


def changed_buffers(kept: Iterable[KeptBuffer]) -> list[KeptBuffer]:
    """Returns those that were written to or replaced, in the same order.

    Small ones are compared together: one by one, those of a large model would cost a GPU hundreds of synchronisations.
    """
    kept = list(kept)
    groups: dict[object, list[KeptBuffer]] = defaultdict(list)
    for each in kept:
        groups[each.group].append(each)
    written = {each for group in groups.values() if not _all_same(group) for each in group if each.differs}
    return [each for each in kept if each in written or each.replaced]


def _all_same(group: list[KeptBuffer]) -> bool:
    """Whether several buffers hold what they held; False for a single one, which is compared alone."""
    if len(group) == 1:
        return False
    now, before = zip(*(each.flat() for each in group), strict=True)
    try:
        return same_values(torch.cat(now), torch.cat(before))
    except (RuntimeError, NotImplementedError):  # of a dtype that can't be compared, or for want of memory
        return False


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
    """The attributes that may describe a buffer, such as the size of a cache, or whether it is ready."""
    attributes = list(vars(module).items())  # other threads may add some
    return {name: value for name, value in attributes if name not in _OF_EACH_MODULE and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) in (NoneType, bool, int, float, str, torch.Size, torch.dtype, torch.device)


def is_training(module: Module) -> bool:
    """Whether a module is in training mode; a frozen one of TorchScript has none."""
    return bool(getattr(module, "training", False))


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

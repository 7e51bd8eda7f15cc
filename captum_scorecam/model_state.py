"""Context managers that leave the user's model, random state and grad mode unchanged."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from captum_scorecam._messages import warn_caller


class TrainingBuffers:
    """Saves the buffers of modules in training mode before they run and restores them afterwards.

    A forward pass in training mode changes buffers, such as BatchNorm's running statistics. Modules are found as they
    run, so they may be wrapped in any callable.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Module, str, Tensor, Tensor]] = []
        self._modules: set[Module] = set()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Saves the buffers of modules that run in training mode in the body, and warns about BatchNorm and dropout.

        Compiled code runs eagerly in the body.
        """
        hook = register_module_forward_pre_hook(self._keep)
        try:
            # Harmless: the hook may fire twice, for a compiled model and for the original module inside it.
            with _ignored("Using `torch.compile.*global hooks"), compiled_code_run_eagerly():
                yield
        finally:
            hook.remove()
        self._warn_of_training_mode()

    def restore(self) -> None:
        """Restores every saved buffer."""
        for module, name, buffer, content in self._kept:
            buffer.copy_(content)
            module._buffers[name] = buffer

    def _warn_of_training_mode(self) -> None:
        names = sorted(type(m).__name__ for m in self._modules if isinstance(m, (_BatchNorm, _DropoutNd)))
        if names:
            warn_caller(
                f"The model is in training mode ({names[0]}): scores depend on the batch or are random. "
                "Call `model.eval()` for a reproducible map."
            )

    def _keep(self, module: Module, _args: Any) -> None:
        if module.training and module not in self._modules:
            self._modules.add(module)
            self._kept += [(module, name, b, b.clone()) for name, b in module._buffers.items() if b is not None]


@contextmanager
def _ignored(message: str) -> Iterator[None]:
    """Ignores a warning in its body. ``catch_warnings`` would make Python repeat warnings that it has already shown."""
    filters, entry = cast("list[Any]", warnings.filters), ("ignore", re.compile(message), Warning, None, 0)
    filters.insert(0, entry)
    try:
        yield
    finally:
        if entry in filters:
            filters.remove(entry)


@contextmanager
def unchanged_model_state(inputs: tuple[Tensor, ...]) -> Iterator[TrainingBuffers]:
    """Disables gradients in its body, then restores the CPU and GPU random states and the recorded buffers.

    Args:
        inputs (tuple of Tensor): The CUDA devices of these tensors have their random states restored.
    """
    devices = {tensor.device.index for tensor in inputs if tensor.is_cuda}
    buffers = TrainingBuffers()
    with torch.random.fork_rng(sorted(devices)), torch.no_grad():
        try:
            yield buffers
        finally:
            buffers.restore()


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Enables gradients in its body, even within ``no_grad`` or ``inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def differentiable(value: Any) -> Any:
    """Returns a detached copy of a tensor for use with autograd; returns other values unchanged.

    The copy is needed because the model may modify the tensor in place, and because autograd does not accept tensors
    created in ``inference_mode``.
    """
    return value.detach().clone() if isinstance(value, Tensor) else value


def compiled_code_run_eagerly() -> AbstractContextManager[object]:
    """Returns a context in which compiled code runs eagerly, because hooks do not fire in compiled code.

    The context loads the compiler and with it ``torch.distributed.nn``, which keeps a reference to the default process
    group: the group's threads would outlive ``destroy_process_group`` and could abort the process at exit. So if there
    is a process group and the compiler is not loaded, which means that nothing is compiled, the context does nothing.
    """
    if "torch._dynamo" not in sys.modules:
        if dist.is_available() and dist.is_initialized():
            return nullcontext()
        with warnings.catch_warnings():  # SymPy, which the compiler loads, adds a warning filter.
            importlib.import_module("torch._dynamo")
    eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return eager

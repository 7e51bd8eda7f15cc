"""Context managers that leave the user's model, random state and grad mode unchanged."""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Generator, Tensor
from torch.fx import GraphModule
from torch.jit import ScriptModule
from torch.nn import Module
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from captum_scorecam._held_modules import held_modules
from captum_scorecam._kept_buffers import (
    KeptBuffer,
    changed_buffers,
    current_buffer,
    is_training,
    plain_tensor,
    uses_batch_statistics,
)
from captum_scorecam._messages import check_generator, warn_caller
from captum_scorecam._random_draws import RandomDraws, compiler_is_loaded, draws_undone
from captum_scorecam._threads import CallingThread, SharedContext, hooks

T = TypeVar("T")

TRAINING_MODE_LOCK = threading.RLock()  # of the thread that runs a model in training mode


class _NotItsTurn(BaseException):
    """A function runs a module in training mode while another thread has its turn.

    The forward pass is given up before it waits, since the function may hold locks that the other thread waits for.
    """


class ModelState:
    """Saves what a forward pass may change, in the first one of a call, and restores it at the end.

    These are the buffers of modules, such as BatchNorm's running statistics, and the random state of a model that draws
    random numbers. Threads take turns while they run a model in training mode.

    Args:
        forward_func (callable): The model, or any function of its inputs.
        inputs (tuple of Tensor): If one is on MPS, its random state is restored, as those of the CPU and of CUDA are.
        draws_only_in_forwards (bool): Whether only forward passes of the call may draw from PyTorch's generators, so
            that numbers drawn after the first pass are the model's, too. Default: False.
    """

    def __init__(
        self, forward_func: Callable[..., Any], inputs: tuple[Tensor, ...], draws_only_in_forwards: bool = False
    ) -> None:
        self._forward_func, self._inputs = forward_func, inputs
        self._draws_only_in_forwards = draws_only_in_forwards
        self._thread = CallingThread()
        self._batch_norms: list[str] = []
        self._modules: set[Module] = set()
        self._kept: dict[tuple[Module, str, int], KeptBuffer] = {}
        self._called_with: dict[Module, dict[str, Tensor | None]] = {}
        self._replaced: dict[tuple[Module, str], tuple[KeptBuffer, Tensor | None]] = {}
        self._draws = RandomDraws(inputs)
        self._has_lock = False
        self._submodules = set(forward_func.modules()) if isinstance(forward_func, Module) else set()

    def first_forward(self, run: Callable[[], T], is_reproducible: Callable[[T, bool], bool | None]) -> T:
        """Runs the first forward pass of a call, the unmasked one; compiled code runs eagerly in it.

        Warns if the scores are random or depend on the batch.

        Args:
            run (callable): Runs the forward pass.
            is_reproducible (callable): Takes the result of `run` and whether it changed buffers. Checks, for a model in
                training mode or one that updates running statistics, whether another forward pass gives the same. If it
                returns None, the scores are taken to vary if a buffer of more than one number was changed.

        Returns:
            The result of `run`.
        """
        try:
            result = self._noted(run)
        except _NotItsTurn:
            self._draws.undo()
            self._has_lock = TRAINING_MODE_LOCK.acquire()
            result = self._noted(run)
        buffers = changed_buffers(self._kept.values())
        reproducible: bool | None = True
        if (self._training or any(kept.may_be_statistics for kept in buffers)) and not self._draws.any:
            changed = max((kept.size_of_change for kept in buffers), default=0)
            with draws_undone(self._inputs) as draws:
                reproducible = is_reproducible(result, changed > 0)
            self._draws.any = draws.any
            if reproducible is None:
                reproducible = changed < 2 or not self._training  # a single number counts forward passes
        self._warn(varies=not reproducible)
        return result

    def _noted(self, run: Callable[[], T]) -> T:
        with compiled_code_run_eagerly(), self.changes_noted():
            if any(is_lazy(parameter) for module in self._modules for parameter in module.parameters(recurse=False)):
                run()  # initialises them, with random numbers that are not the scores'
            with self._draws:
                return run()

    @contextmanager
    def changes_noted(self) -> Iterator[None]:
        """Saves the buffers of the modules that run in its body, and of those that the forward function holds."""
        held = held_modules(self._forward_func)
        self._keep(held, bound=True)
        try:
            with hooks(*self._registrations(held)):
                yield
        finally:
            for (module, name), (kept, buffer) in self._replaced.items():
                # After `torch.func.functional_call`, the module has its own buffer back.
                kept.bound = kept.bound or current_buffer(module, name) is buffer

    def restore(self) -> None:
        """Restores the saved buffers and the random state."""
        try:
            changed = changed_buffers(self._kept.values())
            places, described = {kept.memory for kept in changed}, {kept.module for kept in changed if kept.stays}
            for kept in reversed(self._kept.values()):  # the first of several views has the first content
                if kept.memory in places:
                    kept.restore(with_attributes=kept.module not in described)
            late = self._draws_only_in_forwards and self._draws.look_again()
            self._draws.undo()
            if late and (self._draws.any or self._training):
                self._warn_of_draws()
        finally:
            if self._has_lock:
                self._has_lock = False
                TRAINING_MODE_LOCK.release()

    @property
    def _training(self) -> bool:
        return any(map(self._trains, self._modules))

    def _trains(self, module: Module) -> bool:
        """Whether a module's training mode matters. That of a loss in an attribute does not."""
        if not is_training(module) or not isinstance(self._forward_func, Module):
            return is_training(module)
        held = [*module._parameters.values(), *module._buffers.values()]
        may_run = any(tensor is not None for tensor in held) or isinstance(module, _DropoutNd)
        return may_run or module in self._submodules

    def _registrations(self, held: Iterable[Module]) -> list[Callable[[], Any]]:
        # Hooks of single modules leave the other models of the process alone, but a function may hide modules.
        if not isinstance(self._forward_func, Module):
            before, after = register_module_forward_pre_hook, register_module_forward_hook
            return [lambda: before(self._note), lambda: after(self._note_replaced, always_call=True)]
        registered = (m.register_forward_pre_hook for m in held if uses_batch_statistics(m))
        return [partial(register, self._note) for register in registered]

    def _note(self, module: Module, _args: Any) -> None:
        if not self._thread.makes_call_of(module):
            return
        if uses_batch_statistics(module):
            self._batch_norms.append(type(module).__name__)
        if not isinstance(self._forward_func, Module):
            # No hook sees the modules in TorchScript and exported programs.
            self._keep(module.modules() if isinstance(module, (ScriptModule, GraphModule)) else [module], bound=False)
            self._called_with[module] = dict(module._buffers)

    def _note_replaced(self, module: Module, _args: Any, _output: Any) -> None:
        """Notes the buffers that the module has replaced, each with the first in its place, as several calls may do."""
        if not self._thread.makes_call_of(module):
            return
        for name, before in self._called_with.pop(module, {}).items():
            after = current_buffer(module, name)
            if before is None or after is before:
                continue
            first, latest = self._replaced.get((module, name), (None, None))
            if first is None or latest is not before:  # not what an earlier call put there
                first = self._kept[module, name, id(plain_tensor(before))]
            self._replaced[module, name] = first, after

    def _keep(self, modules: Iterable[Module], bound: bool) -> None:
        """Saves the buffers of modules; `bound` before the forward pass, when it may wait for other threads."""
        for module in sorted(modules, key=is_training, reverse=True):
            if self._trains(module) and not self._has_lock and not getattr(module, "_is_replica", False):
                self._has_lock = TRAINING_MODE_LOCK.acquire(blocking=bound)
                if not self._has_lock:
                    raise _NotItsTurn
            self._modules.add(module)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    buffer = plain_tensor(buffer)
                    key = (module, name, id(buffer))
                    if key not in self._kept:
                        self._kept[key] = KeptBuffer(module, name, buffer, bound)

    def _warn(self, varies: bool) -> None:
        if self._draws.any:
            self._warn_of_draws()
        elif varies and self._training:
            warn_caller(
                "The model is in training mode: scores depend on the batch or are random. "
                "Call `model.eval()` for a reproducible map."
            )
        elif varies:
            warn_caller("The model updates running statistics in evaluation mode: scores depend on the batch.")
        elif self._batch_norms:
            warn_caller(
                f"The model has a {self._batch_norms[0]} without running statistics: scores depend on the batch."
            )

    def _warn_of_draws(self) -> None:
        if self._training:
            warn_caller(
                "The model draws random numbers in training mode: scores are random. "
                "Call `model.eval()` for a reproducible map."
            )
        else:
            warn_caller("The model draws random numbers: scores are random.")


@contextmanager
def unchanged_model_state(
    forward_func: Callable[..., Any], inputs: tuple[Tensor, ...], draws_only_in_forwards: bool = False
) -> Iterator[ModelState]:
    """Disables gradients in its body, then restores what the first forward pass saved (see `ModelState`)."""
    state = ModelState(forward_func, inputs, draws_only_in_forwards)
    with gradients_disabled():
        try:
            yield state
        finally:
            state.restore()


@contextmanager
def unchanged_buffers(model: Module) -> Iterator[None]:
    """Restores the buffers of the modules that a model holds or runs in the body."""
    state = ModelState(model, ())
    try:
        with state.changes_noted():
            yield
    finally:
        state.restore()


@contextmanager
def gradients_disabled() -> Iterator[None]:
    """Disables gradients in its body; autocast then forgets the weights that it has rounded, without a graph, there."""
    try:
        with torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Enables gradients in its body, even within ``no_grad`` or ``inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def own_generator(generator: Generator | None) -> Generator:
    """Returns the generator, or a copy of PyTorch's global one, so that drawing from it changes no global state.

    Raises:
        TypeError: If `generator` is neither a generator nor None.
    """
    check_generator(generator)
    return torch.default_generator.clone_state() if generator is None else generator


_EAGER = SharedContext(lambda: torch.compiler.set_stance("force_eager"))


def compiled_code_run_eagerly() -> AbstractContextManager[object]:
    """Returns a context in which compiled code runs eagerly, because hooks do not fire in compiled code.

    The context loads the compiler and with it ``torch.distributed.nn``, which keeps a reference to the default process
    group: the group's threads would outlive ``destroy_process_group`` and could abort the process at exit. So if there
    is a process group and the compiler is not loaded, which means that nothing is compiled, the context does nothing.
    """
    if not compiler_is_loaded():
        if dist.is_available() and dist.is_initialized():
            return nullcontext()
        with warnings.catch_warnings():  # SymPy, which the compiler loads, adds a warning filter.
            importlib.import_module("torch._dynamo")
    return _EAGER

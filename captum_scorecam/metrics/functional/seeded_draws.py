"""Seeds the random numbers that this thread draws from PyTorch's global generators."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from captum_scorecam._random_draws import compiler_is_loaded, draws_from_global


@contextmanager
def seeded_draws(seed: int, cuda_devices: Collection[int]) -> Iterator[None]:
    """Seeds the random numbers that this thread draws in the body; the CPU and GPU random states are left unchanged.

    PyTorch has one random state for all threads. If there are other threads, it is not seeded: the operations of this
    thread draw the same numbers from generators of their own. Only an operation that accepts no generator, such as
    dropout, uses the global one while it runs.

    Args:
        seed (int): Random seed.
        cuda_devices (collection of int): The GPUs that the body draws on.
    """
    if threading.active_count() > 1 and compiler_is_loaded():
        with _SeededOperations(seed):
            yield
        return
    with torch.random.fork_rng(sorted(cuda_devices)):
        torch.default_generator.manual_seed(seed)
        for device in cuda_devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class _SeededOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes operations of this thread draw from seeded generators, one per device, instead of the global ones."""

    supports_higher_order_operators = True

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed = seed
        self._generators: dict[torch.device, Generator] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = _device(args, kwargs)
        if device.type not in ("cpu", "cuda") or not draws_from_global(func, args, kwargs):
            return func(*args, **kwargs)
        if device not in self._generators:
            self._generators[device] = Generator(device).manual_seed(self._seed)
        generator, variant = self._generators[device], _variant_with_generator(func)
        if variant is None or any(isinstance(value, Generator) for value in (*args, *kwargs.values())):
            return _with_global_state(generator, lambda: func(*args, **kwargs))
        return variant(*args, **{**kwargs, "generator": generator})


def _device(args: Any, kwargs: Any) -> torch.device:
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    return tensors[0].device if tensors else torch.empty(0, device=kwargs.get("device")).device


def _variant_with_generator(func: Any) -> Any:
    """Returns the overload of an operation that takes a generator, such as ``rand.generator``, or None."""
    if not isinstance(func, OpOverload):
        return None
    if any(argument.name == "generator" for argument in func._schema.arguments):
        return func
    name = func._overloadname
    return getattr(func.overloadpacket, "generator" if name == "default" else f"{name}_generator", None)


def _with_global_state(generator: Generator, operation: Callable[[], Any]) -> Any:
    """Runs an operation that draws from the global generator only, such as dropout, with a generator's state."""
    on_cuda = generator.device.type == "cuda"
    with torch.random.fork_rng([generator.device] if on_cuda else []):
        if on_cuda:
            torch.cuda.set_rng_state(generator.get_state(), generator.device)
        else:
            torch.set_rng_state(generator.get_state())
        result = operation()
        generator.set_state(torch.cuda.get_rng_state(generator.device) if on_cuda else torch.get_rng_state())
    return result

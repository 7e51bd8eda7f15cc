"""Random numbers that a model draws from PyTorch's generators, told from those that other threads draw meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Generator, Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode


class RandomDraws:
    """Notes in its body whether this thread draws random numbers, which `undo` takes back.

    PyTorch has one random state for all threads. If this thread drew none, it is left to the others.

    Args:
        inputs (sequence of Tensor): Their devices are those whose random state is watched, besides the CPU.

    Attributes:
        any (bool): Whether this thread drew random numbers.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.any = False
        self._cuda_devices = sorted({x.device.index for x in inputs if x.is_cuda})
        self._before: list[Tensor] = []
        self._operations: Any = None

    def __enter__(self) -> None:
        self._before = self._states()
        # Only other threads raise the question who drew random numbers. Watching operations needs the compiler loaded.
        self._operations = _RandomOperations() if threading.active_count() > 1 and compiler_is_loaded() else None
        if self._operations is not None:
            self._operations.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._operations is not None:
            self._operations.__exit__(kind, error, traceback)
        drawn = any(not torch.equal(a, b) for a, b in zip(self._before, self._states(), strict=True))
        self.any = drawn and (self._operations is None or self._operations.seen)

    def undo(self) -> None:
        """Restores the random state from before the body if this thread drew random numbers in it."""
        if self.any:
            torch.set_rng_state(self._before[0])
            for device, state in zip(self._cuda_devices, self._before[1:], strict=True):
                torch.cuda.set_rng_state(state, device)

    def _states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._cuda_devices)]


@contextmanager
def draws_undone(inputs: Sequence[Tensor]) -> Iterator[None]:
    """Takes back the random numbers that this thread draws in the body (see `RandomDraws`)."""
    draws = RandomDraws(inputs)
    try:
        with draws:
            yield
    finally:
        draws.undo()


def compiler_is_loaded() -> bool:
    """Checks whether ``torch._dynamo`` has been imported, without importing it."""
    return "torch._dynamo" in sys.modules


def draws_from_global(func: Any, args: Any, kwargs: Any) -> bool:
    """Checks whether an operation draws random numbers from PyTorch's global generators, not from one passed to it."""
    if not isinstance(func, OpOverload):
        return True  # a higher-order operator, such as flex attention, may
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    passed = [value for value in (*args, *kwargs.values()) if isinstance(value, Generator)]
    of_all = [_address(generator) for generator in (torch.default_generator, *torch.cuda.default_generators)]
    return all(_address(generator) in of_all for generator in passed)


def _address(generator: Generator) -> int:
    # Operations get a new Python object for a generator that was passed to them.
    address: int = generator._cdata  # type: ignore[attr-defined]
    return address


class _RandomOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees whether an operation of this thread draws random numbers."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.seen = self.seen or draws_from_global(func, args, kwargs)
        return func(*args, **kwargs)

"""Random numbers that a model draws from PyTorch's generators, told from those that other threads draw meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

_PROBABILITIES, _MODES = ("dropout_p", "dropout"), ("train", "training", "is_training")  # arguments of operations
_GlobalGenerator: TypeAlias = tuple[Callable[[], Tensor], Callable[[Tensor], None]]  # gets its state, and sets it


class RandomDraws:
    """Notes in its body whether this thread draws random numbers, which `undo` takes back.

    PyTorch has one random state for all threads. If this thread drew none, it is left to the others. The state of the
    CPU is watched, and once CUDA is in use that of each of its devices, any of which may hold a part of the model.

    Args:
        inputs (sequence of Tensor): If one is on MPS, the state of MPS is watched, too.

    Attributes:
        any (bool): Whether this thread drew random numbers.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.any = False
        self._on_mps = any(x.device.type == "mps" for x in inputs)
        self._generators: list[_GlobalGenerator] = []
        self._before: list[Tensor] = []
        self._drawn: list[bool] = []
        self._operations: Any = None

    def __enter__(self) -> None:
        self._generators = _global_generators(self._on_mps)
        self._before = self._states()
        # Only other threads raise the question who drew random numbers. Watching operations needs the compiler loaded.
        self._operations = _RandomOperations() if _others_may_draw() and compiler_is_loaded() else None
        if self._operations is not None:
            self._operations.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._operations is not None:
            self._operations.__exit__(kind, error, traceback)
        after = self._states()
        self._drawn = [not torch.equal(*states) for states in zip(self._before, after, strict=True)]
        self.any = any(self._drawn) and (self._operations is None or self._operations.seen)
        if not self.any:
            self._before = after

    def look_again(self) -> bool:
        """Checks whether random numbers were drawn after the body, such as by a model that drops layers at random.

        They count as drawn by this thread if no other one may have drawn them.
        """
        if self.any or all(torch.equal(*states) for states in zip(self._before, self._states(), strict=False)):
            return False  # the states from before are none without a body
        self.any = not _others_may_draw()
        return True

    def undo(self) -> None:
        """Restores the random state from before the body if this thread drew random numbers.

        If other threads may draw, too, only that of devices on which numbers were drawn in the body.
        """
        if self.any:
            alone = not _others_may_draw()
            for (_, restore), state, drawn in zip(self._generators, self._before, self._drawn, strict=True):
                if drawn or alone:
                    restore(state)

    def _states(self) -> list[Tensor]:
        return [state() for state, _ in self._generators]


@contextmanager
def draws_undone(inputs: Sequence[Tensor]) -> Iterator[RandomDraws]:
    """Takes back the random numbers that this thread draws in the body; yields the `RandomDraws`, of use after it."""
    draws = RandomDraws(inputs)
    try:
        with draws:
            yield draws
    finally:
        draws.undo()


def _global_generators(on_mps: bool) -> list[_GlobalGenerator]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return [
        (torch.get_rng_state, torch.set_rng_state),
        *((partial(torch.cuda.get_rng_state, i), partial(torch.cuda.set_rng_state, device=i)) for i in devices),
        *([(torch.mps.get_rng_state, torch.mps.set_rng_state)] if on_mps else []),
    ]


def _others_may_draw() -> bool:
    """Checks whether there are threads that may draw random numbers: others than that which watches progress bars."""
    return any(
        thread is not threading.current_thread() and not type(thread).__module__.startswith("tqdm")
        for thread in threading.enumerate()
    )


def compiler_is_loaded() -> bool:
    """Checks whether ``torch._dynamo`` has been imported, without importing it."""
    return "torch._dynamo" in sys.modules


def draws_from_global(func: Any, args: Any, kwargs: Any) -> bool:
    """Checks whether an operation draws random numbers from PyTorch's global generators, not from one passed to it."""
    if not isinstance(func, OpOverload):
        return True  # a higher-order operator, such as flex attention, may
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    names = [argument.name for argument in func._schema.arguments]
    given = {each.name: each.default_value for each in func._schema.arguments if each.has_default_value()}
    given |= dict(zip(names, args, strict=False)) | kwargs
    probabilities = [given[name] for name in _PROBABILITIES if isinstance(given.get(name), int | float)]
    if 0 in probabilities or any(given.get(name) is False for name in _MODES):
        return False  # as attention without dropout, or a recurrent layer in evaluation mode
    passed = [value for value in given.values() if isinstance(value, Generator)]
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

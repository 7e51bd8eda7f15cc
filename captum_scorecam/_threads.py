"""Hooks that see one thread's calls only, and settings of the process that several threads need at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

from torch.nn import Module
from torch.utils.hooks import RemovableHandle

_REGISTRATION = threading.Lock()  # PyTorch numbers hooks with a counter that has no lock


class CallingThread:
    """Tells the calls of modules in the thread that created it from those of other threads."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def makes_call_of(self, module: Module) -> bool:
        """Checks whether this thread calls the module. DataParallel's replicas, called in threads of its own, count."""
        return threading.get_ident() == self._thread or getattr(module, "_is_replica", False)


@contextmanager
def hooks(*registrations: Callable[[], RemovableHandle]) -> Iterator[None]:
    """Registers hooks, such as ``lambda: module.register_forward_hook(hook)``, and removes them after the body."""
    handles: list[RemovableHandle] = []
    try:
        for register in registrations:
            with _REGISTRATION:
                handles.append(register())
        yield
    finally:
        for handle in handles:
            handle.remove()


class SharedContext:
    """A setting of the process, made when the first of several threads needs it and undone by the last.

    Args:
        make (callable): Returns the context manager that makes and undoes the setting.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._context: AbstractContextManager[Any] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._context = self._make()
                self._context.__enter__()
            self._users += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._context is not None:
                self._context.__exit__(None, None, None)

"""Calls that run in threads side by side."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LEAST_STEPS = 50


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Makes Python switch between threads as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Runs each call in a thread of its own and returns their results; raises the first error."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            results[i] = calls[i]()
        except BaseException as error:  # an error of any kind must reach the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def stepping_meanwhile(
    step: Callable[[int], Any], run: Callable[[], Any], times: int = 6
) -> tuple[list[Any], list[Any]]:
    """Calls `run` several times while another thread calls `step` with 0, 1, 2, and so on; returns their results.

    The steps end after the last run, but there are at least `LEAST_STEPS`.
    """
    done = threading.Event()

    def steps() -> list[Any]:
        results: list[Any] = []
        while not done.is_set() or len(results) < LEAST_STEPS:
            results.append(step(len(results)))
        return results

    def runs() -> list[Any]:
        try:
            return [run() for _ in range(times)]
        finally:
            done.set()

    stepped, found = in_threads(steps, runs)
    return stepped, found

"""Keeps memory freed by a forward pass on the CPU for the next one."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# Parameters of mallopt(3), and the maxima of glibc's dynamic thresholds on 64-bit machines.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Makes the C library keep memory freed in the body for reuse by later tensors.

    By default, glibc returns large blocks to the system as soon as they are freed, so in each forward pass the memory
    of every layer's output is mapped and zeroed again, page by page, which can take longer than the layer itself.
    After the body, glibc trims the heap as usual.

    Does nothing on other devices, with another C library, or if the environment already tunes glibc's allocator
    (``MALLOC_MMAP_MAX_`` etc., or ``glibc.malloc`` in ``GLIBC_TUNABLES``).

    Args:
        device (torch.device): The device of the tensors.

    Source: `mallopt(3) <https://man7.org/linux/man-pages/man3/mallopt.3.html>`_.
    """
    if device.type != "cpu" or not _is_glibc() or _is_tuned_by_the_environment():
        yield
        return
    _set(KEEPING)
    try:
        yield
    finally:
        _set(USUAL)


def _set(parameters: dict[int, int]) -> None:
    for parameter, value in parameters.items():
        ctypes.CDLL(None).mallopt(parameter, value)


@cache
def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _is_tuned_by_the_environment() -> bool:
    names = {f"MALLOC_{name}_" for name in ("TRIM_THRESHOLD", "TOP_PAD", "MMAP_THRESHOLD", "MMAP_MAX")}
    return not names.isdisjoint(os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
